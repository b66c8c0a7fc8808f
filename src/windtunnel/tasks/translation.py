"""Predict the target of a pair from its source: translation.

To a model that reads a stream a pair is one sequence, end source turn target end; only what follows the turn is
predicted. The turn is the TAB that stands between the fields of a document. A model that reads pairs is given
source end, and the target after an end mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.models import ModelConfig
from windtunnel.tasks.task import EXACT_MATCH, LOSS, Metric, TaskConfig
from windtunnel.tasks.token_task import TokenTask
from windtunnel.text.batches import IGNORED, Batch, Documents, collate, in_turn, sample
from windtunnel.text.store import TokenStore

TURN = "\t"
"""What stands between source and target; no field has one in it."""


class TranslationConfig(TaskConfig):
    """Translation has no settings of its own yet."""

    kind: Literal["translation"] = "translation"
    ragged: ClassVar[bool] = True

    def model(self, model: ModelConfig) -> ModelConfig:
        does = {
            "context": f"reads {model.context_length} tokens", "text": "predicts labels",
            "captioned": "finds the picture of a caption",
        }.get(model.reads)  # fmt: skip
        if does:
            raise ConfigError(
                f"task.kind=translation needs a model that reads the whole source, and the family {model.family} "
                f"{does}; give --set model.family=translator"
            )
        return model.for_pairs()

    def make(self, model: ModelConfig, store: TokenStore) -> Translation:
        return Translation(store, model)


class Pairs(Documents):
    """Pairs as sequences end source turn target end, the same in every epoch; `ids` hold source turn target.

    Raises:
        DataError: when there is none, or one does not fit into the context.
    """

    def __init__(
        self, ids: np.ndarray, offsets: np.ndarray, end_id: int, turn_id: int, context_length: int, name: str = "train"
    ) -> None:
        n = len(offsets) - 1
        if n == 0:
            raise DataError(f"the {name} split holds no pair; give more text or larger fractions of it")
        self.turns = np.flatnonzero(ids.view(np.ndarray) == turn_id)
        if not np.array_equal(offsets.view(np.ndarray).searchsorted(self.turns, side="right") - 1, np.arange(n)):
            raise DataError(f"the {name} split holds a document that is no pair; expected one TAB in each")
        longest = int(self.n_tokens(offsets.view(np.ndarray)).max())
        if longest > context_length:
            raise DataError(
                f"a pair of the {name} split needs {longest} tokens and the context has {context_length}; a pair is "
                f"never cut, so give at least: --set model.context_length={longest}"
            )
        super().__init__(ids, offsets, end_id, int(np.diff(offsets).max()) + 1, name)  # an example a pair

    def n_tokens(self, offsets: np.ndarray) -> np.ndarray:
        """How much of the context each pair takes, (n,) int64."""
        return np.diff(offsets) + 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many targets each pair has: its target's tokens and the end mark, (n,) int64."""
        return self.offsets[1:] - self.turns

    def n_read(self) -> dict[str, int]:
        """How many tokens a model reads of all pairs: `ids`, and `source` where that is read apart."""
        return {"ids": len(self.ids) + len(self)}

    def by_length(self, indices: np.ndarray) -> np.ndarray:
        """The same pairs, the shortest first: cut into micro-batches, a batch has little padding in each."""
        return indices[np.argsort(np.diff(self.offsets)[indices], kind="stable")]

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        """These pairs, the shortest first."""
        indices = self.by_length(indices)
        batch = super().take(indices, key)
        of_source = torch.from_numpy(self.turns[indices] - self.offsets[indices])[:, None]
        hidden = torch.arange(batch.targets.shape[1]) <= of_source
        return batch._replace(targets=batch.targets.masked_fill(hidden, IGNORED))

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        chosen = sample(self.lengths, max_tokens)
        for some in in_turn(self.by_length(chosen), size):
            yield self.take(some)._replace(units=torch.from_numpy(some)[:, None])


class PairsApart(Pairs):
    """Pairs whose source is read before their target: `source` and `source_kept` (B, S) beside `ids` (B, T)."""

    def n_tokens(self, offsets: np.ndarray) -> np.ndarray:
        """The longer of source and target, with its end mark."""
        return np.maximum(self.turns - offsets[:-1] + 1, offsets[1:] - self.turns)

    def n_read(self) -> dict[str, int]:
        targets = int(self.lengths.sum())  # as many as are read, one later
        return {"ids": targets, "source": len(self.ids) + len(self) - targets}

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        """These pairs, the shortest first."""
        indices = self.by_length(indices)
        first, turn, last = self.offsets[indices], self.turns[indices], self.offsets[indices + 1]
        batch = collate([self._between_marks(a + 1, b) for a, b in zip(turn.tolist(), last.tolist(), strict=True)])
        of_source = collate([self._between_marks(a, b) for a, b in zip(first.tolist(), turn.tolist(), strict=True)])
        source, kept = of_source.targets, of_source.targets != IGNORED  # what follows its first mark
        return batch._replace(inputs=batch.inputs | {"source": source.masked_fill(~kept, 0), "source_kept": kept})

    def _between_marks(self, first: int, last: int) -> np.ndarray:
        return np.concatenate(([self.end_id], self.ids[first:last], [self.end_id]))


@dataclass(frozen=True)
class Translation(TokenTask):
    """The pairs of a store, for a model that reads a stream or pairs. Units are pairs.

    Raises:
        ConfigError: for a corpus that has no source and target.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, EXACT_MATCH)

    def __post_init__(self) -> None:
        fields = self.store.corpus.fields
        if fields != ("source", "target"):
            raise ConfigError(
                f"task.kind=translation needs a corpus with the fields source and target, and {self.store.corpus.name} "
                f"has {', '.join(fields)}; give one of pairs, such as pig-latin or a .tsv with these "
                "columns (of other names: --column source=NAME --column target=NAME)"
            )

    def examples(self, split: str) -> Pairs:
        part, tokenizer = self.store.splits[split], self.store.tokenizer
        turn = tokenizer.encode(TURN)
        if part.offsets is None or tokenizer.end_id is None or len(turn) != 1:
            raise ConfigError("a tokenizer for pairs needs an end mark and one token for a TAB; use characters or bpe")
        kind = PairsApart if self.model.reads == "pair" else Pairs
        return kind(part.ids, part.offsets, tokenizer.end_id, int(turn[0]), self.model.context_length, split)

    def totals(self, split: str) -> Mapping[str, float]:
        """The tokens of all targets with an end mark each, the pairs, and the tokens that are read, see `n_read`."""
        if self.n_units(split) == 0:
            return {"targets": 0, "pairs": 0}
        examples = self.examples(split)
        return {"targets": int(examples.lengths.sum()), "pairs": len(examples), **examples.n_read()}

    def n_units(self, split: str) -> int:
        offsets = self.store.splits[split].offsets
        return 0 if offsets is None else len(offsets) - 1

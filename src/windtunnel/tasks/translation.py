"""Predict the target of a pair from its source: translation by a decoder alone.

A pair is one sequence, end source turn target end; only what follows the turn is predicted. The turn is the TAB that
stands between the fields of a document.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from windtunnel.errors import ConfigError, DataError
from windtunnel.models import ModelConfig
from windtunnel.tasks.cross_entropy import loss_sum, losses, training_loss_sum
from windtunnel.tasks.language import EVALUATION_TOKENS
from windtunnel.tasks.task import EXACT_MATCH, LOSS, Metric, TaskConfig
from windtunnel.text.batches import IGNORED, Batch, collate, in_turn, sample
from windtunnel.text.store import TokenStore

TURN = "\t"
"""What stands between source and target; no field has one in it."""


class TranslationConfig(TaskConfig):
    """Translation has no settings of its own yet."""

    kind: Literal["translation"] = "translation"


class Pairs:
    """Pairs as sequences end source turn target end, the same in every epoch; `ids` hold source turn target.

    Raises:
        DataError: when there is none, or one does not fit into the context.
    """

    def __init__(
        self, ids: np.ndarray, offsets: np.ndarray, end_id: int, turn_id: int, context_length: int, name: str = "train"
    ) -> None:
        self.ids, self.offsets, self.end_id = ids.view(np.ndarray), offsets.view(np.ndarray), end_id
        if len(self) == 0:
            raise DataError(f"the {name} split holds no pair; give more text or larger fractions of it")
        self.turns = np.flatnonzero(self.ids == turn_id)
        inside = (self.turns >= self.offsets[:-1]) & (self.turns < self.offsets[1:]) if self._one_each() else None
        if inside is None or not inside.all():
            raise DataError(f"the {name} split holds a document that is no pair; expected one TAB in each")
        longest = int(np.diff(self.offsets).max()) + 1
        if longest > context_length:
            raise DataError(
                f"a pair of the {name} split needs {longest} tokens and the context has {context_length}; a pair is "
                f"never cut, so give at least: --set model.context_length={longest}"
            )

    def _one_each(self) -> bool:
        return len(self.turns) == len(self)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many targets each pair has: its target's tokens and the end mark, (n,) int64."""
        return self.offsets[1:] - self.turns

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        batch = collate([self.sequence(int(index)) for index in indices])
        of_source = torch.from_numpy(self.turns[indices] - self.offsets[indices])[:, None]
        hidden = torch.arange(batch.targets.shape[1]) <= of_source
        return batch._replace(targets=batch.targets.masked_fill(hidden, IGNORED))

    def sequence(self, index: int) -> np.ndarray:
        """The tokens of one pair, with an end mark on both sides."""
        first, last = self.offsets[index : index + 2].tolist()
        whole = np.full(last - first + 2, self.end_id, np.int64)
        whole[1:-1] = self.ids[first:last]
        return whole

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        chosen = sample(self.lengths, max_tokens)
        for some in in_turn(chosen[np.argsort(np.diff(self.offsets)[chosen], kind="stable")], size):
            yield self.take(some)._replace(units=torch.from_numpy(some)[:, None])


@dataclass(frozen=True)
class Translation:
    """The pairs of a store, for a model that reads a stream. Units are pairs.

    Raises:
        ConfigError: for a corpus that has no source and target, or a model that does not read a stream.
    """

    store: TokenStore
    model: ModelConfig
    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, EXACT_MATCH)

    def __post_init__(self) -> None:
        fields = self.store.corpus.fields
        if fields != ("source", "target"):
            raise ConfigError(
                f"task.kind=translation needs a corpus with the fields source and target, and {self.store.corpus.name} "
                f"has {', '.join(fields)}; give one of pairs, such as pig-latin or a .tsv with these columns"
            )
        if self.model.reads != "stream":
            raise ConfigError(
                f"task.kind=translation needs a model that reads the whole source, and an {self.model.family} reads "
                f"{self.model.context_length} tokens; give --set model.family=transformer"
            )

    @property
    def blind(self) -> float:
        return math.log(self.model.vocab_size)

    @property
    def rows(self) -> int:
        return max(1, EVALUATION_TOKENS // self.model.context_length)

    def examples(self, split: str) -> Pairs:
        part, tokenizer = self.store.splits[split], self.store.tokenizer
        turn = tokenizer.encode(TURN)
        if part.offsets is None or tokenizer.end_id is None or len(turn) != 1:
            raise ConfigError("a tokenizer for pairs needs an end mark and one token for a TAB; use characters or bpe")
        return Pairs(part.ids, part.offsets, tokenizer.end_id, int(turn[0]), self.model.context_length, split)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return losses(logits, targets)

    def loss_sum(self, logits: Tensor, targets: Tensor, once: bool = False) -> Tensor:
        return (training_loss_sum if once else loss_sum)(logits, targets)

    def totals(self, split: str) -> Mapping[str, float]:
        """The tokens of all targets with an end mark each, and the pairs."""
        if self.n_units(split) == 0:
            return {"targets": 0, "pairs": 0}
        return {"targets": int(self.examples(split).lengths.sum()), "pairs": self.n_units(split)}

    def n_units(self, split: str) -> int:
        offsets = self.store.splits[split].offsets
        return 0 if offsets is None else len(offsets) - 1

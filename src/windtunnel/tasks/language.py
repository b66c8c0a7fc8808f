"""Predict every token from those before it: the task of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.models import ModelConfig
from windtunnel.tasks.task import BITS_PER_BYTE, LOSS, Metric, TaskConfig
from windtunnel.tasks.token_task import TokenTask
from windtunnel.text.batches import Documents, Examples, Positions, Source, Windows
from windtunnel.text.store import TokenStore

if TYPE_CHECKING:
    from windtunnel.tasks.mixed_language import MixedLanguage

BLOCK, MOST_BLOCKS = 512, 400
"""Running text has no documents: blocks of at least BLOCK tokens, at most MOST_BLOCKS of them, are its units."""


class LanguageConfig(TaskConfig):
    """Language modelling has no settings of its own."""

    kind: Literal["language"] = "language"

    def model(self, model: ModelConfig) -> ModelConfig:
        if model.reads == "pair":
            raise ConfigError(
                f"the family {model.family} reads a source and predicts its target; task.kind=language has neither; "
                "give a corpus of pairs and --recipe translate, or --set model.family=transformer"
            )
        if model.reads == "text":
            raise ConfigError(
                "a classifier predicts labels, and task.kind=language has none; give a corpus with the fields text and "
                "label and --recipe classify, or --set model.family=transformer"
            )
        if model.reads == "captioned":
            raise ConfigError(
                f"the family {model.family} finds the picture of a caption, and task.kind=language predicts tokens; "
                "give a corpus of pictures and captions and --recipe clip, or --set model.family=transformer"
            )
        return model

    def make(self, model: ModelConfig, store: TokenStore) -> Language | MixedLanguage:
        from windtunnel.tasks.mixed_language import MixedLanguage

        return MixedLanguage(store, model) if store.parts else Language(store, model)


@dataclass(frozen=True)
class Language(TokenTask):
    """The tokens of a store, read as the model's family reads them.

    Units are documents (lines, files); of running text blocks, long enough to be nearly independent. They do not
    depend on the model, so that two models are compared unit by unit.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, BITS_PER_BYTE)

    @cached_property
    def by_line(self) -> bool:
        """Whether documents are read one by one, each between two end marks."""
        return self.store.corpus.unit == "line"

    def examples(self, split: str) -> Examples:
        return self.source(split)

    def source(self, split: str) -> Source:
        """Documents for a corpus of lines, windows for running text and files; for a model that reads one context a
        prediction, single predictions. A held-out split shorter than one window is read in one shorter window."""
        part, length, end_id = self.store.splits[split], self.model.context_length, self.store.tokenizer.end_id
        if self.model.reads == "context":
            offsets = part.offsets if self.by_line else None
            return Positions(part.ids, offsets, end_id, length, split, self._first_targets(split))
        if self.by_line:
            assert part.offsets is not None
            assert end_id is not None
            return Documents(part.ids, part.offsets, end_id, length, split)
        if split != "train":
            length = max(1, min(length, len(part.ids) - 1))
        return Windows(part.ids, length, split, self._first_targets(split))

    def totals(self, split: str) -> Mapping[str, float]:
        """Of running text all tokens but the first are predicted, of a document also its end mark."""
        part = self.store.splits[split]
        ends = len(part.offsets) - 1 if self.by_line and part.offsets is not None else -1
        return {"targets": len(part.ids) + ends, "bytes": part.n_bytes}

    def n_units(self, split: str) -> int:
        part = self.store.splits[split]
        return len(self._first_targets(split)) if part.offsets is None else len(part.offsets) - 1

    def _first_targets(self, split: str) -> np.ndarray:
        """Which of the predicted tokens of running text or of files, counted from 0, is the first of each unit."""
        part, n = self.store.splits[split], int(self.totals(split)["targets"])
        if part.offsets is None:
            n_blocks = int(np.clip(n // BLOCK, 1, MOST_BLOCKS))
            return np.arange(n_blocks) * n // n_blocks
        return np.maximum(
            part.offsets[:-1].view(np.ndarray) - 1, 0
        )  # the first token of the first file is not predicted

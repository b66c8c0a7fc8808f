"""Predict every token of a mix of corpora, each of which is read as it is alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from windtunnel.errors import DataError
from windtunnel.tasks.language import Language
from windtunnel.tasks.task import BITS_PER_BYTE, LOSS, Metric
from windtunnel.tasks.token_task import TokenTask
from windtunnel.text.batches import Source
from windtunnel.text.corpora.mixes import names_of
from windtunnel.text.mixture import Mixture


@dataclass(frozen=True)
class MixedLanguage(TokenTask):
    """The tokens of the stores of a mix. Weights decide what is trained on and nothing else.

    A held-out split is all of that of every corpus, so mixes of the same corpora are judged on the same text. Its units
    are those of the first store, then those of the second, and so on.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (LOSS, BITS_PER_BYTE)

    @cached_property
    def parts(self) -> tuple[Language, ...]:
        """The task of each corpus, in the order of the store's."""
        return tuple(Language(part, self.model) for part in self.store.parts)

    def holding(self, split: str) -> tuple[Language, ...]:
        """The parts that hold something in a split, in their order."""
        return tuple(part for part in self.parts if _holds(part, split))

    def by_name(self, split: str) -> dict[str, Language]:
        """Those parts by the names of their corpora."""
        own = self.holding(split)
        return dict(zip(names_of([part.store.corpus for part in own]), own, strict=True))

    def units_by_part(self, split: str) -> dict[str, npt.NDArray[np.bool_]]:
        """The units of each part, (n_units,) bool by its name."""
        parts = self.by_name(split)
        of = np.repeat(np.arange(len(parts)), [part.n_units(split) for part in parts.values()])
        return {name: of == i for i, name in enumerate(parts)}

    def examples(self, split: str) -> Mixture:
        """Those of every part; a batch of training has of each its share."""
        own = self.holding(split)
        if not own:
            raise DataError(f"the {split} split of {self.store.corpus.name} holds nothing; hold out more")
        of_all = zip(self.parts, self.store.corpus.weights, strict=True)
        weights = [weight if split == "train" else 1.0 for part, weight in of_all if _holds(part, split)]
        n_targets = [int(part.totals(split)["targets"]) for part in own]
        return Mixture(
            [_source(part, split) for part in own], weights, [part.n_units(split) for part in own], n_targets
        )

    def totals(self, split: str) -> Mapping[str, float]:
        each = [part.totals(split) for part in self.holding(split)]
        return {name: sum(own[name] for own in each) for name in ("targets", "bytes")}

    def n_units(self, split: str) -> int:
        return sum(part.n_units(split) for part in self.holding(split))


def _holds(part: Language, split: str) -> bool:
    return len(part.store.splits[split].ids) > 0


def _source(part: Language, split: str) -> Source:
    try:
        return part.source(split)
    except DataError as error:
        raise DataError(f"{part.store.corpus.name}: {error}") from None

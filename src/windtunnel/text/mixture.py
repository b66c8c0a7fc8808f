"""Batches of a mix: of several sources of examples, each its share, and still a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch

from windtunnel.text.batches import Batch, Source, in_epochs, join


class Mixture:
    """Examples of several sources. In training each gives its share of the predicted tokens; a sweep reads all of all.

    Which source an example of a step is from does not depend on the seed: any steps in a row have of each source its
    share, to an example. The examples of a source are those that it has alone: shuffled epochs.

    Args:
        weights: of each source, at least 0; their sum is positive.
        n_units: how many units each source has; those of the first are counted first.
        n_targets: how many tokens of each source are predicted in all.
    """

    CYCLE: ClassVar[int] = 1 << 16
    """After so many examples the order of the sources repeats; no positive share is less than one of them."""

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float], n_units: Sequence[int], n_targets: Sequence[int]
    ) -> None:
        self.sources, self.n_targets = sources, n_targets
        self.first_unit = np.concatenate([[0], np.cumsum(n_units)])[:-1]
        self.first = np.concatenate([[0], np.cumsum([len(source) for source in sources])])
        each = np.array([source.targets_each for source in sources])
        shares = np.array(weights) / each
        self.targets_each = float(shares @ each / shares.sum())
        self.counts = np.where(shares > 0, np.maximum(1, np.round(self.CYCLE * shares / shares.sum())), 0).astype(int)
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts if count])
        self.cycle = np.repeat(np.arange(len(sources)), self.counts)[np.argsort(places, kind="stable")]

    def __len__(self) -> int:
        return int(self.first[-1])

    def take(self, indices: np.ndarray, key: int) -> Batch:
        chosen = self.first.searchsorted(indices, side="right") - 1
        return self._rows(chosen, lambda i: self.sources[i].take(indices[chosen == i] - self.first[i], key))

    def draw(self, seed: int, start: int, end: int) -> Batch:
        """Examples start ... end - 1 of an endless sequence, as `in_epochs`."""
        chosen = self.cycle[np.arange(start, end) % len(self.cycle)]
        return self._rows(
            chosen, lambda i: in_epochs(self.sources[i], seed, self._before(i, start), self._before(i, end))
        )

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        for source, first, n in zip(self.sources, self.first_unit, self.n_targets, strict=True):
            share = None if max_tokens is None else max(1, round(max_tokens * n / sum(self.n_targets)))
            for some in source.sweep(size, share):
                yield some if some.units is None else some._replace(units=some.units + int(first))

    def _before(self, source: int, n: int) -> int:
        """How many of the first n examples are of this source."""
        cycles, more = divmod(n, len(self.cycle))
        return int(cycles * self.counts[source] + np.count_nonzero(self.cycle[:more] == source))

    @staticmethod
    def _rows(chosen: np.ndarray, of: Callable[[int], Batch]) -> Batch:
        """The rows that `of` has of each source, each where that source was chosen."""
        together = join([of(int(i)) for i in np.unique(chosen)])
        back = torch.from_numpy(np.argsort(np.argsort(chosen, kind="stable")))
        return together.map(lambda tensor: tensor[back])

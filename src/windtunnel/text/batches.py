"""A batch is a pure function of (seed, step): no iterator, no state, so every process and every resume sees the same.

Three kinds of examples behind one contract. `Windows` cuts running text into windows of the context length; `Documents`
keeps documents whole, each between two end marks. Such an example is a sequence of up to context_length + 1 tokens: all
but the last are the input, all but the first are the targets. An example of `Positions` has the last of exactly
context_length + 1 tokens as its only target, for models that see a fixed number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.errors import DataError
from windtunnel.text.shuffle import LONGEST_ORDER, epoch_key, order, shuffled

IGNORED = -1
"""The target of a padded position; the loss leaves it out."""


class Batch(NamedTuple):
    """What a model reads and what it is to answer. A tuple, so that torch.compile, vmap and DDP see the tensors in it.

    inputs: by the names of the model's forward pass, `model(**inputs)`; one row of each for one example. A language
        model reads `ids` (B, T), int64.
    targets: (B, T'), int64; IGNORED is left out of the loss. Token by token T' is T and `ids` is padded as the targets
        are; with one target a row, as from `Positions`, T' is 1. Where a model reads `pictures`, a target is the row of
        the picture that a caption is of.
    units: (B, T') or (B, 1), int64: which unit of the split (document, block of running text, pair, picture) each
        target belongs to. `sweep` says it; None in training, which does not ask.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    units: Tensor | None = None

    @property
    def ids(self) -> Tensor:
        """The input `ids`, (B, T)."""
        return self.inputs["ids"]

    @property
    def n_targets(self) -> int:
        """How many targets count."""
        return int((self.targets != IGNORED).sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def split(self, parts: int) -> list[Batch]:
        """The same rows in `parts` smaller batches, each cut to its own longest row."""
        size, more = divmod(len(self.targets), parts)
        ends = [min(part, more) + part * size for part in range(parts + 1)]
        return [
            trim(self.map(lambda tensor, rows=slice(start, end): tensor[rows]))  # type: ignore[misc]
            for start, end in pairwise(ends)
            if start < end
        ]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with each of its tensors changed."""
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return Batch(inputs, change(self.targets), None if self.units is None else change(self.units))


class Examples(Protocol):
    """What a batch is made of."""

    def __len__(self) -> int:
        """Number of examples in an epoch."""
        ...

    def take(self, indices: np.ndarray, key: int) -> Batch:
        """These examples as they are in the epoch of this key."""
        ...

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        """Batches of `size` rows that predict every token of the split exactly once, for evaluation.

        With max_tokens a fixed random sample of them, of at least that many predicted tokens if there are so many.
        """
        ...


@runtime_checkable
class Endless(Examples, Protocol):
    """Examples that have an order of their own in training."""

    def draw(self, seed: int, start: int, end: int) -> Batch:
        """Examples start ... end - 1 of an endless sequence, as `in_epochs`."""
        ...


class Source(Examples, Protocol):
    """Examples of a language model: on average `targets_each` tokens are predicted in one."""

    targets_each: float


class Windows:
    """Windows of running text. Each epoch starts them at its own offset and visits each of them once.

    There are at least context_length offsets, and as many as it takes for some epoch to reach the last token.

    Args:
        first_targets: which of the predicted tokens, counted from 0, is the first of each unit; None is one unit.
    """

    def __init__(
        self, ids: np.ndarray, context_length: int, name: str = "train", first_targets: np.ndarray | None = None
    ) -> None:
        self.ids, self.context_length = ids.view(np.ndarray), context_length
        self.first_targets = np.zeros(1, np.int64) if first_targets is None else first_targets
        if len(ids) <= context_length:
            raise DataError(
                f"the {name} split holds {len(ids)} tokens, one window needs {context_length + 1}; give more text or a "
                f"shorter context: --set model.context_length={max(1, min(len(ids) - 1, context_length // 2))}"
            )
        self.n_windows = max(1, (len(ids) - context_length) // context_length)
        self.n_offsets = len(ids) - self.n_windows * context_length
        self.targets_each = float(context_length)

    def __len__(self) -> int:
        return self.n_windows

    def take(self, indices: np.ndarray, key: int) -> Batch:
        starts = key % self.n_offsets + indices * self.context_length
        return collate([self.ids[start : start + self.context_length + 1] for start in starts])

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        lengths = np.minimum(
            self.context_length, len(self.ids) - 1 - np.arange(0, len(self.ids) - 1, self.context_length)
        )
        starts = sample(lengths, max_tokens) * self.context_length
        for some in in_turn(starts, size):
            batch = collate([self.ids[start : start + self.context_length + 1] for start in some])
            predicted = some[:, None] + np.arange(batch.targets.shape[1])
            yield batch._replace(units=units_of(predicted, self.first_targets))


class Documents:
    """Whole documents, each after an end mark and before one; one longer than the context becomes several examples,
    cut so that every token is still predicted once."""

    def __init__(
        self, ids: np.ndarray, offsets: np.ndarray, end_id: int, context_length: int, name: str = "train"
    ) -> None:
        self.ids, self.offsets = ids.view(np.ndarray), offsets.view(np.ndarray)  # slicing a memmap is slow
        self.end_id, self.context_length = end_id, context_length
        pieces = -(-(np.diff(offsets) + 1) // context_length)
        self.first_piece = np.concatenate([[0], np.cumsum(pieces)])
        if len(self) == 0:
            raise DataError(f"the {name} split holds no document; give more text or larger fractions of it")
        self.targets_each = (len(ids) + len(offsets) - 1) / len(self)

    def __len__(self) -> int:
        return int(self.first_piece[-1])

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        return collate([self.sequence(int(index)) for index in indices])

    def sequence(self, index: int) -> np.ndarray:
        """The tokens of one example, which are the same in every epoch."""
        document = int(self.first_piece.searchsorted(index, side="right")) - 1
        first, last = self.offsets[document : document + 2].tolist()
        start = (index - int(self.first_piece[document])) * self.context_length
        whole = np.full(last - first + 2, self.end_id, np.int64)
        whole[1:-1] = self.ids[first:last]
        return whole[start : start + self.context_length + 1]

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        lengths = np.diff(self.offsets) + 1
        chosen = sample(lengths, max_tokens)
        ordered = chosen[np.argsort(lengths[chosen], kind="stable")]
        for some in in_turn(ranges(self.first_piece[ordered], self.first_piece[ordered + 1]), size):
            yield self.take(some)._replace(units=units_of(some[:, None], self.first_piece))


LARGEST_TABLE = 1 << 20
"""Tokens; `Positions` keeps a table of its rows up to this many, and makes rows batch by batch beyond."""


class Positions:
    """Every token once, each predicted from exactly the context_length tokens before it.

    Where there are not so many, the first one is repeated: for documents that is the end mark, for running text its
    first token, which itself is not predicted.
    """

    def __init__(
        self,
        ids: np.ndarray,
        offsets: np.ndarray | None,
        end_id: int | None,
        context_length: int,
        name: str = "train",
        first_targets: np.ndarray | None = None,
    ) -> None:
        self.first_targets = np.zeros(1, np.int64) if first_targets is None else first_targets
        self.ids, self.offsets, self.end_id = ids.view(np.ndarray), offsets, end_id
        self.reach = np.arange(-context_length, 1)
        starts = np.array([0, len(ids) - 1]) if offsets is None else offsets.view(np.ndarray)
        self.first = starts + np.arange(len(starts)) * (offsets is not None)  # a document also predicts its end mark
        if len(self) < 1:
            raise DataError(f"the {name} split holds nothing to predict; give more text or larger fractions of it")
        self.targets_each = 1.0

    def __len__(self) -> int:
        return int(self.first[-1])

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        known = len(self) * len(self.reach) <= LARGEST_TABLE
        rows = torch.from_numpy(self.table[indices] if known else self.rows(indices))
        return Batch({"ids": rows[:, :-1]}, rows[:, -1:])

    @cached_property
    def table(self) -> np.ndarray:
        """All rows, (len, context_length + 1) int64."""
        return self.rows(np.arange(len(self)))

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Context and target of these predictions, (n, context_length + 1) int64."""
        if self.offsets is None:
            return self.ids[np.maximum(indices[:, None] + 1 + self.reach, 0)].astype(np.int64)
        documents = self.first.searchsorted(indices, side="right") - 1
        places = (indices - self.first[documents])[:, None] + self.reach
        begins, lengths = self.offsets[documents], self.offsets[documents + 1] - self.offsets[documents]
        outside = (places < 0) | (places == lengths[:, None])
        rows = np.full(places.shape, self.end_id, np.int64)
        rows[~outside] = self.ids[(places + begins[:, None])[~outside]]
        return rows

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        lengths = np.diff(self.first)
        if self.offsets is None:
            indices = sample(np.ones(len(self), np.int64), max_tokens)
        else:  # in the order in which `Documents` goes through them
            chosen = sample(lengths, max_tokens)
            ordered = chosen[np.argsort(lengths[chosen], kind="stable")]
            indices = ranges(self.first[ordered], self.first[ordered + 1])
        firsts = self.first_targets if self.offsets is None else self.first
        for some in in_turn(indices, size):
            yield self.take(some)._replace(units=units_of(some[:, None], firsts))


class Subset:
    """A random sample of `size` examples of a source, the same for every seed and epoch."""

    def __init__(self, source: Examples, size: int) -> None:
        if size > len(source):
            raise DataError(
                f"train.n_examples is {size}, and the train split has only {len(source)} examples; give at most those"
            )
        self.source, self.chosen = source, shuffled(np.arange(size), len(source), key=0)

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, indices: np.ndarray, key: int) -> Batch:
        return self.source.take(self.chosen[indices], key)

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        lengths = np.array([self.take(np.array([index]), 0).n_targets for index in range(len(self))])
        for some in in_turn(sample(lengths, max_tokens), size):
            yield self.take(some, 0)


def batch(source: Examples, size: int, seed: int, step: int) -> Batch:
    """The batch of a step: examples step*size ... of an endless sequence of shuffled epochs."""
    return in_epochs(source, seed, step * size, (step + 1) * size)


def in_epochs(source: Examples, seed: int, start: int, end: int) -> Batch:
    """Examples start ... end - 1 of an endless sequence of shuffled epochs."""
    if isinstance(source, Endless):
        return source.draw(seed, start, end)
    epochs, places = np.divmod(np.arange(start, end), len(source))
    parts = []
    for epoch in range(epochs[0], epochs[-1] + 1):
        key, own = epoch_key(seed, epoch), places[epochs == epoch]
        known = len(source) <= LONGEST_ORDER
        parts.append(source.take(order(len(source), key)[own] if known else shuffled(own, len(source), key), key))
    return parts[0] if len(parts) == 1 else join(parts)


def join(parts: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, padded to the widest; their units are forgotten."""

    def padded(tensors: Sequence[Tensor], value: int) -> Tensor:
        width = max(tensor.shape[1] for tensor in tensors)
        wide = [F.pad(tensor, (0, width - tensor.shape[1]), value=value) if tensor.dim() == 2 else tensor
                for tensor in tensors]  # fmt: skip
        return torch.cat(wide)

    inputs = {name: padded([part.inputs[name] for part in parts], 0) for name in parts[0].inputs}
    targets = padded([part.targets for part in parts], IGNORED)
    return Batch(inputs, torch.arange(len(targets))[:, None] if "pictures" in inputs else targets)


def collate(sequences: Sequence[np.ndarray], width: int = 0) -> Batch:
    """Pad sequences on the right to the longest of them (at least `width` positions), padding out of the targets."""
    width = max(width, *(len(row) - 1 for row in sequences))
    ids = np.zeros((len(sequences), width), np.int64)
    targets = np.full((len(sequences), width), IGNORED, np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence) - 1] = sequence[:-1]
        targets[row, : len(sequence) - 1] = sequence[1:]
    return Batch({"ids": torch.from_numpy(ids)}, torch.from_numpy(targets))


def trim(batch: Batch) -> Batch:
    """Cut the columns on the right that are padding in every row, of the targets, their units and `ids`.

    An input of another name has its own padding, also when it happens to be as wide: it is cut where there is a mask of
    it, as `source_kept` (B, S) is of `source`.
    """
    all_columns = batch.targets.shape[1]
    if all_columns == 1:
        return batch
    width = int((batch.targets != IGNORED).any(dim=0).nonzero().max()) + 1

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:, :width] if tensor.shape[1:] == (all_columns,) else tensor

    inputs = {name: cut(tensor) if name == "ids" else tensor for name, tensor in batch.inputs.items()}
    for name in [name for name in inputs if name.endswith("_kept")]:
        longest = int(inputs[name].any(dim=0).nonzero().max()) + 1
        of = name.removesuffix("_kept")
        inputs |= {of: inputs[of][:, :longest], name: inputs[name][:, :longest]}
    return Batch(inputs, cut(batch.targets), None if batch.units is None else cut(batch.units))


def units_of(predicted: np.ndarray, first_targets: np.ndarray) -> Tensor:
    """Which unit each of these predictions belongs to, given the first prediction of every unit; int64."""
    return torch.from_numpy(first_targets.searchsorted(predicted, side="right") - 1)


def in_turn(values: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`size` values after another."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All whole numbers from each start to before its end, in a row."""
    lengths = ends - starts
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


def sample(lengths: np.ndarray, max_tokens: int | None) -> np.ndarray:
    """Which pieces, of these lengths, to read, in their order: all, or random ones (always the same) of max_tokens."""
    if max_tokens is None:
        return np.arange(len(lengths))
    order = shuffled(np.arange(len(lengths)), len(lengths), key=0)
    return np.sort(order[: int(np.searchsorted(np.cumsum(lengths[order]), max_tokens)) + 1])

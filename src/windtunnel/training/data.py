"""What a run reads and draws: its corpus, its task, its initial weights, and the examples of every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from windtunnel.errors import ConfigError
from windtunnel.models import Model, build
from windtunnel.tasks import Task
from windtunnel.text.batches import Batch, Examples, Subset, in_epochs
from windtunnel.text.corpora import open_corpus
from windtunnel.text.features import Ints
from windtunnel.text.mixture import Mixture
from windtunnel.text.store import TokenStore, prepare
from windtunnel.training.run_config import RunConfig

BatchOf = Callable[[int], Batch]
"""step -> batch."""
RowsOf = Callable[[int, int], Batch]
"""(first step, step after the last) -> their batches, one below the other."""


def first_weights(config: RunConfig) -> Model:
    """The model with its random weights."""
    return _replayed(config)[0] if config.generator is not None else build(config.model, config.seed)


def open_store(config: RunConfig) -> TokenStore:
    """The corpus of a config as tokens, from the cache where it is there."""
    return prepare(open_corpus(config.corpus, config.text.unit, config.text.columns), config.text)


def open_task(config: RunConfig, store: TokenStore | None = None) -> Task:
    """The task of a resolved config; `store` is its corpus as tokens where that is open already."""
    return config.task.make(config.model, store or open_store(config))


def check_split(folder: Path, store: TokenStore, split: str) -> None:
    """Raises ConfigError when the corpus of a run has no such split, or nothing in it, naming those that it has."""
    there = [name for name, part in store.splits.items() if len(part.ids)]
    if split not in there:
        raise ConfigError(f"{folder} has nothing in a split {split!r}; it has {', '.join(there)}")


def train_examples(config: RunConfig, task: Task) -> Examples:
    """What a run trains on: the examples of the train split, or a random sample of `train.n_examples` of them.

    Raises:
        DataError: when there are not so many, or none at all.
        ConfigError: when they are a mix, and are to be sampled or drawn as a script draws them.
    """
    whole = task.examples("train")
    if isinstance(whole, Mixture) and (config.train.n_examples is not None or config.generator is not None):
        what = "generator" if config.generator is not None else "train.n_examples"
        raise ConfigError(
            f"{what} draws from one corpus, and {config.corpus} is a mix of several; leave one of them out"
        )
    return whole if config.train.n_examples is None else Subset(whole, config.train.n_examples)


def train_texts(config: RunConfig, task: Task) -> Ints:
    """Which texts or pictures of the train split a run learns from, (N,) in their order; raises as `train_examples`."""
    read = train_examples(config, task)
    return np.sort(read.chosen) if isinstance(read, Subset) else np.arange(len(read))


def batches(config: RunConfig, task: Task) -> BatchOf:
    """The batch of every step: of shuffled epochs, or as the script that is replayed draws them.

    Raises:
        DataError: when the corpus is too small for the context.
    """
    rows = rows_of_steps(config, task)
    return lambda step: rows(step, step + 1)


def rows_of_steps(config: RunConfig, task: Task) -> RowsOf:
    """The batches of several steps, one below the other; raises as `batches` does."""
    source, size = train_examples(config, task), config.train.batch_size
    if config.generator is None:
        return lambda start, end: in_epochs(source, config.seed, start * size, end * size)
    # One draw of all steps gives the numbers that the script draws step by step.
    drawn = torch.randint(len(source), (config.train.steps * size,), generator=_replayed(config)[1]).int().numpy()
    return lambda start, end: source.take(drawn[start * size : end * size].astype(np.int64), key=0)


def _replayed(config: RunConfig) -> tuple[Model, torch.Generator]:
    """The weights that the script draws, and its generator as they leave it."""
    assert config.generator is not None
    generator = torch.Generator().manual_seed(config.generator + config.seed)
    return build(config.model, config.seed, generator), generator

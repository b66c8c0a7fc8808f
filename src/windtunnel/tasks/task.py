"""What a run learns, between its data and the loop.

    store -> Task.examples(split) -> Batch -> model(**batch.inputs) -> Task.losses(logits, batch.targets)

The loop, the ranks, seeds that train stacked, `evaluate`, `compare` and the doctor ask the task, and know nothing of
corpora, context lengths or families.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from windtunnel.config import Tagged
from windtunnel.models import ModelConfig
from windtunnel.text.batches import Batch, Examples
from windtunnel.text.store import TokenStore


class TaskConfig(Tagged, ABC):
    """The settings of one task. A new task is one subclass beside it, and one line in `TASKS`."""

    tag: ClassVar[str] = "kind"
    kind: str
    """The next token, the target of a source, the label of a text, or the picture of a caption."""
    coupled: ClassVar[bool] = False
    """Whether a row's loss depends on the batch's other rows, as a contrastive loss does. Then a batch is never cut:
    such a run is refused with micro-batches and on several ranks, and its seeds train one by one."""
    ragged: ClassVar[bool] = False
    """Whether a batch's inputs have widths of their own, for which a compiled step was found no faster
    (benchmarks/joeynmt.py): `train.compile=auto` then leaves it."""

    noun: ClassVar[str] = "token"
    """What a target is; losses are in nats per this."""
    inputless: ClassVar[str] = "token frequencies"
    """What says something of a target without reading an input: the least that a trained model has to beat."""

    @property
    def of_tokens(self) -> bool:
        """Whether targets are tokens: two tokenizers then give other targets, whose scores cannot be compared."""
        return self.noun == "token"

    def model(self, model: ModelConfig) -> ModelConfig:
        """The settings of a model with what they leave open decided for this task.

        Raises:
            ConfigError: for a family that cannot do it.
        """
        return model

    def sized(self, model: ModelConfig, store: TokenStore) -> ModelConfig:
        """The settings of a model with what the corpus decides for this task.

        Raises:
            ConfigError: when they do not fit the corpus.
        """
        return model

    @abstractmethod
    def make(self, model: ModelConfig, store: TokenStore) -> Task:
        """The task for a model and a corpus as tokens. Raises ConfigError when they do not fit."""


@dataclass(frozen=True)
class Metric:
    """A number of a model on a split: a function of columns that are summed over the split's units.

    So it sums over batches and ranks, has an interval over units by the bootstrap, and needs no code in `compare`.

    columns: `nats` (summed loss), `targets` (how many count), `right` (how many have the largest logit), `top/K` (how
        many are among the K largest), `exact` (rows all of whose targets have the largest), those of `macro_f1`, or one
        of the task's own `totals`.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    columns: tuple[str, ...]
    of_sums: Callable[[Sequence[float]], float]

    @property
    def title(self) -> str:
        """What heads a column: its unit, or its name where it has none."""
        return self.unit or self.name

    def score(self, sums: Mapping[str, float]) -> float:
        """Its value, of the sums of all columns by name."""
        return float(self.of_sums([sums[name] for name in self.columns]))

    @property
    def worst(self) -> float:
        """What a run that diverged gets."""
        return math.inf if self.better == "lower" else -math.inf


LossSum = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, T', V), targets (B, T')) -> summed loss in nats (), IGNORED left out."""
LossOf = Callable[[Batch], Tensor]
"""batch -> summed loss in nats; the model and the task are inside."""


def ratio(sums: Sequence[float]) -> float:
    """The first sum by the second."""
    return sums[0] / sums[1]


LOSS = Metric("loss", "nats per token", "lower", ("nats", "targets"), ratio)
BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", "lower", ("nats", "bytes"), lambda s: ratio(s) / math.log(2))
ACCURACY = Metric("accuracy", "", "higher", ("right", "targets"), ratio)
EXACT_MATCH = Metric("exact_match", "", "higher", ("exact", "pairs"), ratio)
RECALLS = tuple(Metric(f"recall_at_{k}", "", "higher", (f"top/{k}", "targets"), ratio) for k in (1, 5, 10))
"""The share of captions whose picture is among the first 1, 5 and 10 that are found."""
CLASS_COLUMNS = 100
"""Up to this many labels a text has its columns of each label counted."""


def macro_f1(n_labels: int) -> Metric:
    """The mean of F1, 2 x right / (predicted + true), over the labels that are predicted or true of any text.

    Its columns are counted a label: `right/K`, `said/K` (predicted) and `is/K` (true) of label K.
    """
    columns = tuple(f"{count}/{label}" for count in PER_CLASS for label in range(n_labels))

    def of_sums(sums: Sequence[float]) -> float:
        right, said, true = (sums[i * n_labels : (i + 1) * n_labels] for i in range(3))
        found = [2 * r / (s + t) for r, s, t in zip(right, said, true, strict=True) if s + t]
        return math.fsum(found) / len(found)

    return Metric("macro_f1", "", "higher", columns, of_sums)


PER_CLASS = ("right", "said", "is")
"""What is counted of each label, see `macro_f1`."""
METRICS = {metric.name: metric for metric in (LOSS, BITS_PER_BYTE, ACCURACY, EXACT_MATCH, macro_f1(2), *RECALLS)}
"""By name, for what reads scores back."""


class Task(Protocol):
    """What a run learns: its examples, the loss of each target, what a blind guess costs, and its metrics."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The first decides verdicts."""
        ...

    @property
    def blind(self) -> float:
        """Nats a target of a guess that knows nothing: ln of the number of tokens, of labels, of rows in a batch."""
        ...

    @property
    def rows(self) -> int:
        """How many rows an evaluation reads at once."""
        ...

    def examples(self, split: str) -> Examples:
        """The examples of a split. Raises DataError when it holds too few."""
        ...

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats (B, T') of each target, 0 where it is IGNORED."""
        ...

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of `losses`."""
        ...

    def training_loss_sum(self, logits: Tensor, targets: Tensor, once: bool = False) -> Tensor:
        """What a training step lowers, summed: `loss_sum`, unless the task's settings weigh or smooth targets.

        With `once` its gradient may be computable only once, and take less memory.
        """
        ...

    def totals(self, split: str) -> Mapping[str, float]:
        """Of the whole split: `targets`, and the columns of its metrics that no batch counts, such as `bytes`."""
        ...

    def n_units(self, split: str) -> int:
        """How many units (documents, blocks, pairs, pictures) a split has; `Batch.units` counts them from 0."""
        ...

"""Predict the label of a text: classification."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from windtunnel.errors import ConfigError, DataError
from windtunnel.models import ModelConfig
from windtunnel.models.classifier import ClassifierConfig
from windtunnel.tasks.cross_entropy import loss_sum, losses
from windtunnel.tasks.task import ACCURACY, CLASS_COLUMNS, LOSS, Metric, TaskConfig, macro_f1
from windtunnel.tasks.token_task import EVALUATION_TOKENS
from windtunnel.text.batches import IGNORED, Batch, in_turn, sample
from windtunnel.text.corpora.tables import ONE_LABEL
from windtunnel.text.store import TokenStore
from windtunnel.text.tokenizers import Tokenizer


class ClassificationConfig(TaskConfig):
    """Predict the label of a text."""

    added: ClassVar[frozenset[str]] = frozenset({"class_weights", "label_smoothing"})
    kind: Literal["classification"] = "classification"
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: in training a text counts n / (labels x texts of its label), so that each label counts the same."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In training this share of each target is spread evenly over all labels (Szegedy et al. 2016)."""
    ragged: ClassVar[bool] = True
    noun: ClassVar[str] = "text"
    inputless: ClassVar[str] = "label frequencies"

    def model(self, model: ModelConfig) -> ModelConfig:
        if model.reads != "text":
            raise ConfigError(
                f"task.kind=classification needs a model of the family classifier, and this is a {model.family}; give "
                "--recipe classify, or --from RUN to begin with the trunk of a run"
            )
        return model

    def sized(self, model: ModelConfig, store: TokenStore) -> ModelConfig:
        check_labels(store)
        n = len(store.labels)
        if "n_labels" in model.model_fields_set and model.n_labels != n:  # type: ignore[attr-defined]
            raise ConfigError(f"model.n_labels is {model.n_labels}, and the corpus has {n} labels; leave it out")  # type: ignore[attr-defined]
        return model.replace(n_labels=n)

    def make(self, model: ModelConfig, store: TokenStore) -> Classification:
        assert isinstance(model, ClassifierConfig)
        check_labels(store)
        return Classification(store, model, self)


def check_labels(store: TokenStore) -> None:
    """Raises ConfigError for a corpus without labels, and DataError where all texts have one label, or some several."""
    if not store.labels:
        raise ConfigError(
            f"task.kind=classification needs a corpus with the fields text and label, and {store.corpus.name} has "
            f"{', '.join(store.corpus.fields)}; give a .csv, .tsv or .jsonl file with these columns (of other names: "
            "--column text=NAME --column label=NAME)"
        )
    if len(store.labels) == 1:
        raise DataError(f"every text of {store.corpus.name} has the label {store.labels[0]!r}; expected two labels")
    if found := _listed(store.labels):
        label, mark = found
        raise DataError(
            f"{store.corpus.name}: {label!r} looks like several labels, since what stands beside {mark!r} is in other "
            f"labels, too, and {ONE_LABEL}; where it is one, write it without {mark!r}"
        )


def _listed(labels: Sequence[str]) -> tuple[str, str] | None:
    """The first label that others of them are put together to, and the mark between these; None where there is none."""
    for mark in ";|":
        parts = {label: {part.strip() for part in label.split(mark)} - {""} for label in labels}
        counts = Counter(part for own in parts.values() for part in own)
        for label, own in parts.items():
            if mark in label and any(counts[part] > 1 for part in own):
                return label, mark
    return None


def text_rows(texts: Sequence[np.ndarray], tokenizer: Tokenizer, context_length: int) -> dict[str, Tensor]:
    """What a classifier reads of texts given as ids: `ids` (B, T) and `kept` (B, T), padded on the right.

    Each text stands between two end marks, or after the mark cls where the tokenizer has one; of one that does not fit
    into the context the end is cut, and where there is cls, a mark ends it all the same.
    """
    end, begin = np.array([tokenizer.end_id]), np.array([tokenizer.marks.get("cls", tokenizer.end_id)])
    most = context_length - 2 if "cls" in tokenizer.marks else context_length
    rows = [np.concatenate([begin, text[:most], end])[:context_length] for text in texts]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    kept = np.arange(ids.shape[1]) < lengths[:, None]
    ids[kept] = np.concatenate(rows)
    return {"ids": torch.from_numpy(ids), "kept": torch.from_numpy(kept)}


def rows_at(
    places: np.ndarray, ids: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer, context_length: int
) -> dict[str, Tensor]:
    """`text_rows` of the texts at these places of a split, whose ids and offsets are given."""
    first, last = offsets[places].tolist(), offsets[places + 1].tolist()
    return text_rows([ids[a:b] for a, b in zip(first, last, strict=True)], tokenizer, context_length)


def n_read(offsets: np.ndarray, context_length: int) -> np.ndarray:
    """How many tokens `text_rows` gives of each text of a split, (n,) int64."""
    return np.minimum(np.diff(offsets) + 2, context_length)


class LabelledTexts:
    """Texts with their labels, the same in every epoch.

    Raises:
        DataError: when there is none.
    """

    def __init__(self, store: TokenStore, split: str, context_length: int) -> None:
        part = store.splits[split]
        assert part.offsets is not None
        assert part.labels is not None
        self.ids, self.offsets, self.labels = (a.view(np.ndarray) for a in (part.ids, part.offsets, part.labels))
        self.tokenizer, self.context_length = store.tokenizer, context_length
        if len(self) == 0:
            raise DataError(f"the {split} split holds no text; give more texts or larger fractions of them")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        targets = torch.from_numpy(self.labels[indices].astype(np.int64))[:, None]
        return Batch(rows_at(indices, self.ids, self.offsets, self.tokenizer, self.context_length), targets)

    def sweep(self, size: int, max_tokens: int | None = None, chosen: np.ndarray | None = None) -> Iterator[Batch]:
        """Batches of `size` texts, the shortest first; of the chosen ones, or with max_tokens of a sample."""
        lengths = np.diff(self.offsets)
        chosen = sample(np.ones(len(self), np.int64), max_tokens) if chosen is None else chosen
        for some in in_turn(chosen[np.argsort(lengths[chosen], kind="stable")], size):
            yield self.take(some)._replace(units=torch.from_numpy(some)[:, None])

    @property
    def n_read(self) -> np.ndarray:
        """How many tokens are read of each text, (n,) int64."""
        return n_read(self.offsets, self.context_length)

    @property
    def n_cut(self) -> int:
        """How many texts do not fit into the context."""
        return int((np.diff(self.offsets) + 2 > self.context_length).sum())


@dataclass(frozen=True)
class Classification:
    """The labelled texts of a store. Units are texts."""

    store: TokenStore
    model: ClassifierConfig
    config: ClassificationConfig

    @cached_property
    def weights(self) -> Tensor | None:
        """What a text of each label counts in training, (n_labels,); None is 1."""
        labels = self.store.splits["train"].labels
        if self.config.class_weights == "none" or labels is None:
            return None
        counts = torch.bincount(torch.from_numpy(np.array(labels, np.int64)), minlength=self.model.n_labels)
        return len(labels) / (self.model.n_labels * counts.clamp(min=1).float())

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        few = (macro_f1(self.model.n_labels),) if self.model.n_labels <= CLASS_COLUMNS else ()
        return (ACCURACY, LOSS, *few)

    @property
    def blind(self) -> float:
        """Nats a text of a guess that knows nothing: ln n_labels."""
        return math.log(self.model.n_labels)

    @property
    def rows(self) -> int:
        """How many texts an evaluation reads at once."""
        return max(1, EVALUATION_TOKENS // self.model.context_length)

    def examples(self, split: str) -> LabelledTexts:
        return LabelledTexts(self.store, split, self.model.context_length)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats (B, 1) of each label, 0 where it is IGNORED."""
        return losses(logits, targets)

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of `losses`."""
        return loss_sum(logits, targets)

    def training_loss_sum(self, logits: Tensor, targets: Tensor, once: bool = False) -> Tensor:
        """`loss_sum` with the weights of the labels and the smoothing."""
        weights, smoothing = self.weights, self.config.label_smoothing
        if weights is None and not smoothing:
            return loss_sum(logits, targets)
        flat, true = logits.flatten(0, 1).float(), targets.flatten()
        each = F.cross_entropy(flat, true, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing)
        return (each if weights is None else each * weights.to(flat.device)[true.clamp(min=0)]).sum()

    def totals(self, split: str) -> Mapping[str, float]:
        """The texts, and the tokens that are read of them."""
        n = self.n_units(split)
        return {"targets": n, "ids": int(self.examples(split).n_read.sum()) if n else 0}

    def n_units(self, split: str) -> int:
        labels = self.store.splits[split].labels
        return 0 if labels is None else len(labels)

"""Find the picture of a caption among others: contrastive learning of pictures and captions."""

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
from windtunnel.models.captions import CaptionEncoderConfig
from windtunnel.models.clip import CLIPConfig
from windtunnel.models.pretrained.catalogue import MINILM
from windtunnel.models.vectors import CaptionVectorsConfig, PictureVectorsConfig
from windtunnel.tasks.augment import AugmentConfig, augmented, uniform
from windtunnel.tasks.classification import n_read, rows_at
from windtunnel.tasks.task import LOSS, RECALLS, Metric, TaskConfig
from windtunnel.tasks.vectors import caption_vectors, picture_vectors
from windtunnel.text.batches import IGNORED, Batch, sample
from windtunnel.text.pictures import pixels
from windtunnel.text.store import TokenStore

MINILM_TOKENS = 30522


class ContrastiveConfig(TaskConfig):
    """Find the picture of a caption among those of the batch, and the caption of a picture."""

    added: ClassVar[frozenset[str]] = frozenset({"solve_for"})
    kind: Literal["contrastive"] = "contrastive"
    augment: AugmentConfig = AugmentConfig()
    """How pictures are changed in training."""
    solve_for: Literal["main", "all"] = "main"
    """Where training begins with the map of pictures solved: for each picture's main caption, or for the mean of all of
    its captions, of which a step draws one."""
    coupled: ClassVar[bool] = True
    ragged: ClassVar[bool] = True
    noun: ClassVar[str] = "picture"
    inputless: ClassVar[str] = "a blind guess"

    def model(self, model: ModelConfig) -> ModelConfig:
        if model.reads != "captioned":
            raise ConfigError(
                f"task.kind=contrastive needs a model of the family clip, and this is a {model.family}; give "
                "--recipe clip"
            )
        return model

    def sized(self, model: ModelConfig, store: TokenStore) -> ModelConfig:
        check_pictures(store)
        assert isinstance(model, CLIPConfig)
        if isinstance(model.caption, CaptionEncoderConfig) and store.tokenizer.vocab_size != MINILM_TOKENS:
            raise ConfigError(
                f"model.caption.kind=encoder reads the tokens of {MINILM.name}, and these are others; give --set "
                f"text.tokenizer={MINILM.folder}"
            )
        picture, of_train = model.picture, store.splits["train"].pictures
        if not isinstance(picture, PictureVectorsConfig) or picture.centres is None or of_train is None:
            return model
        n = len(np.unique(of_train))
        return model.replace(picture=picture.replace(centres=min(picture.centres, max(n, 1))))

    def make(self, model: ModelConfig, store: TokenStore) -> Contrastive:
        assert isinstance(model, CLIPConfig)
        check_pictures(store)
        return Contrastive(store, model, self)


def check_pictures(store: TokenStore) -> None:
    """Raises ConfigError for a corpus without pictures."""
    if not store.pictures:
        raise ConfigError(
            f"task.kind=contrastive needs a corpus with the fields picture and caption, and {store.corpus.name} has "
            f"{', '.join(store.corpus.fields)}; give emoji, or a folder of pictures with a captions.csv"
        )


class CaptionedPictures:
    """The pictures of a split, in the order of their first captions. Rows of a batch are pictures with one caption.

    Raises:
        DataError: when there are fewer than two.
    """

    def __init__(self, task: Contrastive, split: str) -> None:
        store, model = task.store, task.model
        part = store.splits[split]
        assert part.offsets is not None
        assert part.pictures is not None
        self.ids, self.offsets = part.ids.view(np.ndarray), part.offsets.view(np.ndarray)
        of_caption = part.pictures.view(np.ndarray)
        found, first = np.unique(of_caption, return_index=True)
        order = np.argsort(first)
        self.places, self.main = found[order], first[order]
        """Of each picture its place in the store, and its main caption: (n,)."""
        self.captions = np.argsort(np.argsort(order)[np.searchsorted(found, of_caption)], kind="stable")
        """The captions, picture by picture."""
        counts = np.bincount(np.searchsorted(found, of_caption), minlength=len(found))[order]
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.tokenizer, self.context_length, self.augment = store.tokenizer, model.context_length, task.config.augment
        if len(self) < 2:
            raise DataError(
                f"the {split} split holds {len(self)} pictures, and one is found among others; give more pictures or "
                "larger fractions of them"
            )
        known: dict[str, int] = {}
        self.texts = np.array([known.setdefault(text, len(known)) for text in store.documents(split)])
        """Of each caption which text it is: equal ones have the same number."""
        self.all_seen = task.seen
        self.of_captions = None
        if isinstance(model.caption, CaptionVectorsConfig):
            self.of_captions = torch.from_numpy(caption_vectors(list(store.documents(split)), model))

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: np.ndarray, key: int = 0) -> Batch:
        """These pictures, changed as in the epoch of this key, each with one of its captions."""
        places, first = self.places[indices], self.starts[indices]
        n_captions = self.starts[indices + 1] - first
        chosen = self.captions[first + (uniform(~key & 0xFFFFFFFF, places, 1)[:, 0] * n_captions).astype(np.int64)]
        seen = self.seen(indices)
        if seen.dtype == torch.uint8:
            seen = augmented(seen.float() / 255, self.augment, key, places)
        return Batch({"pictures": seen, **self.read(chosen)}, torch.from_numpy(self._first_alike(places, chosen)))

    def _first_alike(self, places: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """Of each row the first with the same picture or the same caption, (n, 1): of two alike neither is wrong."""
        rows = np.arange(len(places))
        for own in (self.texts[captions], places):
            _, first, of = np.unique(own, return_index=True, return_inverse=True)
            rows = rows[first[of]]
        return rows[:, None]

    def sweep(self, size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        """One batch: the main captions, or a sample of max_tokens of them, and all pictures of the split, unchanged."""
        chosen = sample(np.ones(len(self), np.int64), max_tokens)
        units = torch.from_numpy(chosen)[:, None]
        yield Batch({"pictures": self.seen(np.arange(len(self))), **self.read(self.main[chosen])}, units, units)

    def seen(self, indices: np.ndarray) -> Tensor:
        """These pictures as they are, (n, 3, S, S) uint8, or their vectors (n, V)."""
        seen = torch.from_numpy(self.all_seen[self.places[indices]])
        return seen.permute(0, 3, 1, 2) if seen.dtype == torch.uint8 else seen

    def read(self, captions: np.ndarray) -> dict[str, Tensor]:
        """What a model reads of captions."""
        if self.of_captions is not None:
            return {"ids": self.of_captions[captions]}
        return rows_at(captions, self.ids, self.offsets, self.tokenizer, self.context_length)

    @property
    def n_read(self) -> np.ndarray:
        """How many tokens are read of each picture's main caption, (n,) int64."""
        return n_read(self.offsets, self.context_length)[self.main]


@dataclass(frozen=True)
class Contrastive:
    """The pictures of a store and their captions. Units are pictures."""

    store: TokenStore
    model: CLIPConfig
    config: ContrastiveConfig
    metrics: ClassVar[tuple[Metric, ...]] = (*RECALLS, LOSS)

    @property
    def blind(self) -> float:
        """Nats a caption of a guess that knows nothing, among all pictures of train: a batch has no more."""
        return math.log(max(2, self.n_units("train")))

    @property
    def rows(self) -> int:
        """How many rows an evaluation reads at once: all of them, as each is found among all others."""
        return max(self.n_units(split) for split in self.store.splits)

    @cached_property
    def seen(self) -> np.ndarray:
        """All pictures of the store, (n, S, S, 3) uint8, or what a frozen net makes of them, (n, V) float32: once for
        all splits. Raises as `pixels` and `picture_vectors`."""
        picture = self.model.picture
        if isinstance(picture, PictureVectorsConfig):
            return picture_vectors(self.store, self.model)
        return pixels(self.store, picture.size, cropped=picture.cropped)

    @cached_property
    def _examples(self) -> dict[str, CaptionedPictures]:
        return {}

    def examples(self, split: str) -> CaptionedPictures:
        if split not in self._examples:
            self._examples[split] = CaptionedPictures(self, split)
        return self._examples[split]

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats (M, 1) of each caption: the mean of finding its picture, and of finding it from its picture.

        InfoNCE, both ways (Radford et al. 2021, figure 3), in which what is alike is no wrong answer: another picture
        with the same caption, and the same picture a second time.

        Args:
            logits: (M, 1, N), of each caption and each picture.
            targets: (M, 1), the column of each caption's picture; of as many captions as pictures, which are in the
                same order, the first column that is alike.
        """
        scores_MN, own_M1 = logits[:, 0].float(), targets.clamp(min=0)
        if len(scores_MN) == scores_MN.shape[1]:
            alike_MN = (own_M1 == own_M1.T).fill_diagonal_(False)
            scores_MN = scores_MN.masked_fill(alike_MN & (targets != IGNORED), -math.inf)
            own_M1 = torch.arange(len(scores_MN), device=targets.device)[:, None]
        to_picture = -scores_MN.log_softmax(1).gather(1, own_M1)
        to_caption = -scores_MN.log_softmax(0).gather(1, own_M1)
        return ((to_picture + to_caption) / 2).masked_fill(targets == IGNORED, 0)

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of `losses`."""
        return self.losses(logits, targets).sum()

    def training_loss_sum(self, logits: Tensor, targets: Tensor, once: bool = False) -> Tensor:
        """`loss_sum`."""
        return self.loss_sum(logits, targets)

    def totals(self, split: str) -> Mapping[str, float]:
        """The pictures, and the tokens that are read of their main captions."""
        n = self.n_units(split)
        return {"targets": n, "ids": int(self.examples(split).n_read.sum()) if n > 1 else 0}

    def n_units(self, split: str) -> int:
        pictures = self.store.splits[split].pictures
        return 0 if pictures is None else len(np.unique(pictures))

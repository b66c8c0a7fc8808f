"""What augmentation does to pictures in training: some of them as they are, and as some epochs of a seed draw them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from windtunnel.errors import ConfigError
from windtunnel.inspect.captions import main_captions
from windtunnel.models.clip import CLIPConfig
from windtunnel.models.vectors import PictureVectorsConfig
from windtunnel.tasks import Contrastive
from windtunnel.tasks.augment import AugmentConfig
from windtunnel.text.batches import Subset
from windtunnel.text.shuffle import epoch_key, shuffled
from windtunnel.training.data import open_store, open_task, train_examples
from windtunnel.training.run import Run, resolve
from windtunnel.training.run_config import RunConfig


@dataclass(frozen=True)
class Augmentation:
    """Pictures of the train split, and what training makes of them.

    captions: the main one of each of n pictures. plain: (n, S, S, 3) uint8 as they are drawn. changed: (n, M, S, S, 3)
    uint8 in each of `epochs`, of `seed`; those that a run with this seed sees.
    """

    corpus: str
    credit: str
    seed: int
    epochs: tuple[int, ...]
    settings: AugmentConfig
    names: tuple[str, ...]
    captions: tuple[str, ...]
    plain: np.ndarray = field(repr=False)
    changed: np.ndarray = field(repr=False)


def explain_augmentation(
    config: RunConfig, run: Run | None = None, pictures: int = 6, draws: int = 6, step: int = 1, seed: int | None = None
) -> Augmentation:
    """The pictures that the batch of a step begins with, as that epoch and those after it change them.

    Args:
        run: whose settings these are, perhaps with changes; None is a run that is not begun yet.
        pictures, draws: how many pictures, and how many epochs of each.
        step: of training, from 1.
        seed: None is the config's own.

    Raises:
        ConfigError: when what is trained reads no pictures, or vectors in their place.
        DataError: when the corpus cannot be read.
    """
    kind, model = config.task.kind, config.model
    if kind != "contrastive" or not isinstance(model, CLIPConfig):
        raise ConfigError(
            f"{config.corpus} with task.kind={kind} reads no pictures; give emoji, a folder of pictures, or a run"
        )
    if isinstance(model.picture, PictureVectorsConfig):
        raise ConfigError(
            "model.picture.kind=vectors reads vectors that were computed once, so no picture is changed in training; "
            "see what it would be with another tower: --set model.picture.kind=convolutional"
        )
    if run is not None and not config.corpus:
        raise ConfigError(
            f"{run.folder} has no pictures of its own; give a corpus: windtunnel explain augmentation emoji"
        )
    store = open_store(config) if run is None else run.store()
    task = open_task(resolve(config, store) if run is None else config, store)
    assert isinstance(task, Contrastive)
    source, examples = train_examples(config, task), task.examples("train")
    seed, n = config.seed if seed is None else seed, len(source)
    epoch, first = divmod((step - 1) * config.train.batch_size, n)
    own = shuffled(np.arange(first, first + min(pictures, n)) % n, n, epoch_key(seed, epoch))
    base = source.chosen[own] if isinstance(source, Subset) else own
    epochs = tuple(range(epoch, epoch + draws))
    changed = [source.take(own, epoch_key(seed, one)).inputs["pictures"] for one in epochs]
    captions = main_captions(task, "train")
    assert store.corpus.pictures is not None
    return Augmentation(
        corpus=store.corpus.name,
        credit=store.corpus.pictures.credit,
        seed=seed,
        epochs=epochs,
        settings=task.config.augment,
        names=tuple(store.pictures[place] for place in examples.places[base]),
        captions=tuple(captions[i] for i in base),
        plain=examples.seen(base).permute(0, 2, 3, 1).numpy(),
        changed=(torch.stack(changed, 1) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy(),
    )

"""Parameters that stay as they are: which of them, and a head on a frozen trunk that is solved, not stepped towards.

What a frozen trunk makes of a text never changes, so it is computed once for each weights, texts and pooling, and kept
in the cache (`features`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models.captions import CaptionEncoder
from windtunnel.models.classifier import Classifier
from windtunnel.models.clip import CLIP, in_parts
from windtunnel.models.vectors import CaptionVectors, PictureVectors
from windtunnel.nn.attention import attend
from windtunnel.nn.blocks import layers_of
from windtunnel.nn.mode import evaluating
from windtunnel.tasks import Classification, Contrastive
from windtunnel.text.features import Floats, Ints, linear_head
from windtunnel.training.run_config import Freeze
from windtunnel.training.vectors import kept_vectors, of_split

TOWER_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of ridge regression, times the mean of the kernel's diagonal; dev chooses."""


def freeze(model: nn.Module, what: Freeze) -> None:
    """Take parameters out of training.

    Args:
        what: `embeddings`; a number N, the embeddings and the first N layers; `all`, all but the head of a classifier.

    Raises:
        ConfigError: when that leaves nothing to train.
    """
    for parameter in _frozen(model, what):
        parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"train.freeze={what} leaves nothing to train in this model; freeze less")


def _frozen(model: nn.Module, what: Freeze) -> Iterator[nn.Parameter]:
    if what is None:
        return
    if what == "all":
        if not isinstance(model, Classifier):
            raise ConfigError("train.freeze=all trains the head of a classifier alone, and this model is none; omit it")
        yield from model.trunk.parameters()
        return
    for module in model.modules():
        yield from module.parameters(recurse=False) if isinstance(module, nn.Embedding) else ()
    layers = layers_of(model)
    if isinstance(what, int) and what > len(layers):
        raise ConfigError(f"train.freeze={what} freezes layers, and this model has {len(layers)}; give at most those")
    for layer in layers[: what if isinstance(what, int) else 0]:
        yield from layer.parameters()


def solve_head(model: Classifier, task: Classification, chosen: Ints) -> str:
    """Set the head to the logistic regression on the trunk's features of the chosen texts; says what was done."""
    weights, biases, penalty = solved_head(model, task, chosen)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weights))
        assert model.head.bias is not None
        model.head.bias.copy_(torch.from_numpy(biases))
    return (
        f"the trunk is frozen: its features of {len(chosen):,} texts were computed once, and the head was "
        f"solved to convergence (logistic regression, C {penalty:g} chosen on dev)"
    )


def solved_head(model: Classifier, task: Classification, chosen: Ints) -> tuple[Floats, Floats, float]:
    """`linear_head` of the trunk's features of the chosen texts of the train split (`train_texts`) and of dev."""
    train = features(model, task, "train", chosen)
    dev = features(model, task, "dev") if task.n_units("dev") else train[:0]
    labels = {split: np.asarray(task.store.splits[split].labels, np.int64) for split in ("train", "dev")}
    return linear_head(train, labels["train"][chosen], dev, labels["dev"], task.model.n_labels)


def solve_towers(model: CLIP, task: Contrastive, chosen: Ints) -> str:
    """Set the map of pictures to that of ridge regression; says what was done. Of a kernel it is kernel ridge.

    Its targets are what the other tower makes of captions, see `ContrastiveConfig.solve_for`; that one begins with the
    statistics of training, and with its vectors as they are where the shared space is as wide. The penalty is the one
    with the highest mean reciprocal rank on dev.
    """
    with evaluating(model), torch.no_grad():
        pictures, inputs = _whole(task, "train", chosen)
        model.picture.settle(pictures)
        if isinstance(model.caption, CaptionVectors | CaptionEncoder):
            model.caption.settle(*inputs.values())
        weight = model.caption_projection.weight
        if weight.shape[0] == weight.shape[1]:
            weight.copy_(torch.eye(len(weight)))
        dev = _whole(task, "dev", None) if task.n_units("dev") > 1 else None
        made = in_parts(lambda some: model.picture(some, attend), pictures).double()
        wanted = _wanted(model, task, chosen, inputs)
        outer = made.T @ made
        best, said = (-1.0, torch.zeros_like(weight)), 0.0
        for penalty in TOWER_PENALTIES if dev else (0.3,):
            ridge = penalty * outer.trace() / len(made) * torch.eye(len(outer), dtype=outer.dtype)
            solved = torch.linalg.solve(outer + ridge, made.T @ wanted).T
            solved /= (made @ solved.T).norm(dim=1).mean()
            model.picture_projection.weight.copy_(solved)
            found = _reciprocal_rank(model, *dev) if dev else 0.0
            if found > best[0]:
                best, said = (found, solved), penalty
        model.picture_projection.weight.copy_(best[1])
    kernel = f"kernel ridge regression, {model.config.picture.width:,} centres"
    how = kernel if isinstance(model.picture, PictureVectors) and model.picture.kernel else "ridge regression"
    return (
        f"the map from pictures to captions was solved on {len(made):,} pictures ({how}, penalty {said:g}"
        f"{' chosen on dev' * bool(dev)}), and training steps from there"
    )


def _wanted(model: CLIP, task: Contrastive, chosen: Ints, main: dict[str, Tensor]) -> Tensor:
    """What the map of each chosen picture of training is solved for, (N, D): see `ContrastiveConfig.solve_for`."""
    if task.config.solve_for == "main":
        return model.encode_texts(main["ids"], main.get("kept")).double()
    examples = task.examples("train")
    own = [examples.captions[examples.starts[i] : examples.starts[i + 1]] for i in chosen]
    inputs = examples.read(np.concatenate(own))
    made = model.encode_texts(inputs["ids"], inputs.get("kept")).double()
    return torch.stack([some.mean(0) for some in torch.split(made, [len(captions) for captions in own])])


def is_solved(model: nn.Module) -> bool:
    """Whether a model's start is solved by `solve_towers`."""
    return isinstance(model, CLIP) and model.config.picture.is_solved


def _whole(task: Contrastive, split: str, chosen: Ints | None) -> tuple[Tensor, dict[str, Tensor]]:
    """All pictures of a split, or the chosen ones, and their main captions."""
    examples = task.examples(split)
    places = np.arange(len(examples)) if chosen is None else chosen
    return examples.seen(places), examples.read(examples.main[places])


def _reciprocal_rank(model: CLIP, pictures: Tensor, inputs: dict[str, Tensor]) -> float:
    scores = model.encode_texts(inputs["ids"], inputs.get("kept")) @ model.encode_pictures(pictures).T
    return float((1 / (scores >= scores.diag()[:, None]).sum(1)).mean())


def features(model: Classifier, task: Classification, split: str, chosen: Ints | None = None) -> Floats:
    """The pooled vectors (N, D) of a split's texts, or the chosen ones, from the cache where they are there."""
    n = task.n_units(split)
    some = [] if chosen is None or len(chosen) == n else [chosen.tolist()]
    return kept_vectors(
        model.trunk,
        [model.config.pool, task.store.folder.name, split, *some],
        (n if chosen is None else len(chosen), model.config.trunk.d_model),
        lambda: of_split(model, lambda ids, kept: model.pooled(ids, kept).float(), task, split, chosen),
    )

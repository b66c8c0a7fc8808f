"""What a model makes of texts, one row each; the vectors of its hidden layers are kept in the cache.

The same weights and texts give the same vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import read_file, temporary, write_file
from windtunnel.models import Model
from windtunnel.models.encoder import Pool, TextModel, pool
from windtunnel.models.transformer import Transformer
from windtunnel.nn.mode import evaluating
from windtunnel.tasks.classification import Classification, text_rows
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.text.features import Floats, Ints
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.checkpoint import weights_sha256
from windtunnel.training.disk import saving

AT_ONCE = 64
"""Texts that are read at once; they are of about one length."""

Function = Callable[[Tensor, Tensor], Tensor]
"""(ids (B, T), kept (B, T)) -> rows (B, D) of a model, one a text."""


def of_split(
    model: Model, function: Function, task: Classification, split: str, chosen: Ints | None = None
) -> npt.NDArray[Any]:
    """A function's rows (N, D) of a split's texts, or the chosen ones, in its order; the model is in evaluation mode
    meanwhile."""

    def batches() -> Iterator[tuple[np.ndarray, Mapping[str, Tensor]]]:
        for batch in task.examples(split).sweep(task.rows, chosen=chosen):
            assert batch.units is not None
            yield batch.units[:, 0].numpy(), batch.inputs

    return _read(model, function, batches())


def of_texts(
    model: Model, function: Function, tokenizer: Tokenizer, texts: Sequence[str], at_once: int = AT_ONCE
) -> npt.NDArray[Any]:
    """A function's rows (N, D) of any texts, one or more; the model is in evaluation mode meanwhile.

    Raises:
        DataError: for a character that the tokenizer does not know.
    """
    rows = tokenizer.encode_batch([" ".join(text.split()) for text in texts])
    order = np.argsort([len(row) for row in rows], kind="stable")
    length = model.config.context_length
    some = np.array_split(order, -(-len(order) // at_once))
    return _read(model, function, ((at, text_rows([rows[i] for i in at], tokenizer, length)) for at in some))


def _read(
    model: Model, function: Function, batches: Iterable[tuple[np.ndarray, Mapping[str, Tensor]]]
) -> npt.NDArray[Any]:
    """The rows of batches of texts, each at its text's place."""
    places, found, device = [], [], next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for at, inputs in batches:
            places.append(at)
            found.append(function(inputs["ids"].to(device), inputs["kept"].to(device)).cpu().numpy())
    return np.concatenate(found)[np.argsort(np.concatenate(places))]


def text_vectors(model: Model, tokenizer: Tokenizer, texts: Sequence[str], how: Pool = "mean") -> Floats:
    """The pooled vectors (N, D) of any texts, from the cache where they are there.

    Args:
        how: which vector stands for a text: the mean of its tokens', its last one's or its first one's.

    Raises:
        ConfigError: for a family without a vector for each token.
        DataError: for a character that the tokenizer does not know, or vectors that are not finite.
    """
    trunk = model.trunk if isinstance(model, TextModel) else model
    if not isinstance(trunk, Transformer) or tokenizer.end_id is None:
        raise ConfigError(
            f"a model of the family {model.config.family} gives no vectors of texts; expected an encoder, a classifier "
            "or a transformer whose tokenizer has an end mark, such as minilm-l6"
        )

    def vectors(ids: Tensor, kept: Tensor) -> Tensor:
        return pool(trunk.hidden(ids, kept=kept), kept, how).float()

    return kept_vectors(
        trunk,
        [how, tokenizer.to_json(), list(texts)],
        (len(texts), trunk.config.d_model),
        lambda: of_texts(trunk, vectors, tokenizer, texts),
    )


def kept_vectors(
    trunk: Transformer, of: Sequence[object], shape: tuple[int, int], computed: Callable[[], npt.NDArray[np.float32]]
) -> Floats:
    """Vectors from the cache, or computed and kept there; a damaged file is computed again.

    Args:
        of: what decides them beside the trunk's weights and settings, as JSON holds it.

    Raises:
        DataError: when they are not finite.
    """
    sha256 = weights_sha256({name: t.detach().cpu() for name, t in trunk.state_dict().items()})
    parts = [sha256, trunk.config.model_dump(mode="json"), *of]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_folder() / "features" / f"{key}.safetensors"
    try:
        kept = safetensors.numpy.load(read_file(path))["features"]
        if kept.shape == shape and np.isfinite(kept).all():
            return kept.astype(np.float64)
    except (OSError, ArtifactError, SafetensorError, KeyError):  # not there, or damaged
        pass
    found = computed()
    if not np.isfinite(found).all():
        raise DataError(f"the vectors of {len(found):,} texts are not finite; the weights of this model cannot be used")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as new:
            write_file(new, safetensors.numpy.save({"features": found}))
            new.rename(path)
    return found.astype(np.float64)

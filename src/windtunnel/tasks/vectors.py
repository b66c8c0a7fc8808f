"""What a model makes of texts and pictures, one row each; what frozen nets make of them is kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.models import CLIPConfig, Model
from windtunnel.models.efficientnet import EfficientNet, EfficientNetConfig
from windtunnel.models.encoder import Encoder, pool
from windtunnel.models.pretrained.catalogue import LITE0, MINILM, Listed, find_model
from windtunnel.models.pretrained.huggingface import to_model
from windtunnel.models.pretrained.read import read_pretrained
from windtunnel.models.vectors import WIDTHS, CaptionVectorsConfig, PictureVectorsConfig
from windtunnel.nn.attention import attend
from windtunnel.nn.mode import evaluating
from windtunnel.tasks.classification import text_rows
from windtunnel.text.kept import Vectors, kept_vectors
from windtunnel.text.pictures import drawing_key, drawn_as, pixels
from windtunnel.text.store import TokenStore
from windtunnel.text.tokenizers import Tokenizer

AT_ONCE = 64
"""Texts that are read at once; they are of about one length."""

Function = Callable[[Tensor, Tensor], Tensor]
"""(ids (B, T), kept (B, T)) -> rows (B, D) of a model, one a text."""


def of_texts(
    model: Model, function: Function, tokenizer: Tokenizer, texts: Sequence[str], at_once: int = AT_ONCE
) -> npt.NDArray[Any]:
    """A function's rows (N, D) of any texts, one or more; the model is in evaluation mode meanwhile.

    Raises:
        DataError: for a character that the tokenizer does not know.
    """
    rows = _ids_of(tokenizer, texts)
    order = np.argsort([len(row) for row in rows], kind="stable")
    length = model.config.context_length
    some = np.array_split(order, -(-len(order) // at_once))
    return read_batches(model, function, ((at, text_rows([rows[i] for i in at], tokenizer, length)) for at in some))


def _ids_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """The ids of texts in which any white space is one space."""
    return tokenizer.encode_batch([" ".join(text.split()) for text in texts])


def read_batches(
    model: Model, function: Function, batches: Iterable[tuple[np.ndarray, Mapping[str, Tensor]]]
) -> npt.NDArray[Any]:
    """The rows of batches of texts, each at its text's place."""
    places, found, device = [], [], next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for at, inputs in batches:
            places.append(at)
            found.append(function(inputs["ids"].to(device), inputs["kept"].to(device)).cpu().numpy())
    return np.concatenate(found)[np.argsort(np.concatenate(places))]


def pictures_of(model: CLIPConfig, drawn: np.ndarray) -> Tensor:
    """What a model reads of pictures, see `CLIP.encode_pictures`; of a tower of vectors the frozen net reads them now.

    Args:
        drawn: (N, S, S, 3) uint8 of the tower's size, as `Pictures.draw` gives them.

    Raises:
        DataError: where the frozen net has not been fetched.
    """
    if not isinstance(model.picture, PictureVectorsConfig):
        return _channels_first(drawn)
    net, some = _lite0(), (_channels_first(drawn[at : at + AT_ONCE]) for at in range(0, len(drawn), AT_ONCE))
    by_stage = model.picture.net.endswith("-stages")
    with torch.no_grad():
        return torch.cat([net.stages(one) if by_stage else net(one, attend) for one in some])


def _channels_first(drawn: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(drawn)).permute(0, 3, 1, 2)


def captions_of(model: CLIPConfig, tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, Tensor]:
    """What a model reads of captions, see `CLIP.encode_texts`; of a tower of vectors the frozen net reads them now.

    Raises:
        DataError: for a character that the tokenizer does not know, and where the frozen net has not been fetched.
    """
    if not isinstance(model.caption, CaptionVectorsConfig):
        return text_rows(_ids_of(tokenizer, texts), tokenizer, model.context_length)
    return {"ids": torch.from_numpy(_minilm_vectors(texts))}


def picture_vectors(store: TokenStore, model: CLIPConfig) -> Vectors:
    """What the frozen net of a tower makes of all pictures of a store, (len(store.pictures), V), kept in the cache;
    raises as `pictures_of` and `pixels`."""
    assert isinstance(model.picture, PictureVectorsConfig)
    assert store.corpus.pictures is not None
    size, cropped = model.picture.size, model.picture.cropped
    net, n = model.picture.net, len(store.pictures)
    of = [*_files(LITE0), drawing_key(drawn_as(store.corpus.pictures, cropped), store.pictures, size)]
    of += [net] if net != LITE0.name else []

    def computed() -> Vectors:
        return pictures_of(model, pixels(store, size, cropped=cropped)).numpy()

    return kept_vectors(of, (n, WIDTHS[net]), computed)


def caption_vectors(texts: Sequence[str], model: CLIPConfig) -> Vectors:
    """What the frozen net of a tower makes of captions, (M, V), kept in the cache; raises as `captions_of`."""
    assert isinstance(model.caption, CaptionVectorsConfig)
    of, width = [*_files(MINILM), "mean", list(texts)], WIDTHS[model.caption.net]
    return kept_vectors(of, (len(texts), width), lambda: _minilm_vectors(texts))


def _files(listed: Listed) -> list[str]:
    return [member.sha256 for member in listed.members]


@lru_cache(maxsize=1)
def _lite0() -> EfficientNet:
    config = EfficientNetConfig()
    net = config.create()
    config.begin(net)
    return net.eval()


@lru_cache(maxsize=1)
def _minilm() -> tuple[Encoder, Tokenizer]:
    found = read_pretrained(find_model(MINILM.name)[0])
    encoder = to_model(found.config, found.weights)
    assert isinstance(encoder, Encoder)
    assert found.tokenizer is not None
    return encoder, found.tokenizer


def _minilm_vectors(texts: Sequence[str]) -> Vectors:
    encoder, tokenizer = _minilm()
    return of_texts(encoder, lambda ids, kept: pool(encoder(ids, kept), kept, "mean").float(), tokenizer, texts)

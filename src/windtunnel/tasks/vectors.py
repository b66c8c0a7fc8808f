"""What a model makes of texts, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.models import Model
from windtunnel.nn.mode import evaluating
from windtunnel.tasks.classification import text_rows
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
    rows = tokenizer.encode_batch([" ".join(text.split()) for text in texts])
    order = np.argsort([len(row) for row in rows], kind="stable")
    length = model.config.context_length
    some = np.array_split(order, -(-len(order) // at_once))
    return read_batches(model, function, ((at, text_rows([rows[i] for i in at], tokenizer, length)) for at in some))


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

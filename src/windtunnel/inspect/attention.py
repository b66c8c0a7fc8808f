"""Attention weights of every layer and head on a text, from the weights that the fast path uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.errors import DataError
from windtunnel.models import Model, as_transformer
from windtunnel.nn.attention import Attend, Mask, attend_reference, attention_weights
from windtunnel.nn.mode import evaluating

SHOWN = 48
"""Tokens of a map that a notebook draws."""


@dataclass(frozen=True)
class AttentionMap:
    """How much each token looks at each token before it.

    weights: (n_layers, n_heads, T, T) float32; row t of a head is what token t looks at, and sums to 1.
    max_difference: largest absolute difference between the logits of this pass, whose attention is written out
        step by step, and those of the fast path; rounding alone makes it about 1e-6.
    """

    weights: npt.NDArray[np.float32]
    max_difference: float

    def __repr__(self) -> str:
        n_layers, n_heads, n_tokens, _ = self.weights.shape
        return f"AttentionMap({n_layers} layers, {n_heads} heads, {n_tokens} tokens)"

    def _repr_html_(self) -> str:
        """In a notebook: a small map of each head, a row a layer; of a long text only how large it is."""
        if self.weights.shape[-1] > SHOWN:
            return f"<span>{escape(repr(self))}</span>"
        rows = "".join(f"<div>{''.join(map(_svg, layer))}</div>" for layer in self.weights)
        return f"{rows}<small>{escape(repr(self))}: a row a layer; in a map a row is a token that looks</small>"


def _svg(weights_TT: npt.NDArray[np.float32]) -> str:
    """A head's weights as a drawing without any text."""
    n = len(weights_TT)
    cells = "".join(
        f'<rect x="{s}" y="{t}" width="1" height="1" fill-opacity="{weights_TT[t, s]:.2f}"/>'
        for t, s in np.argwhere(weights_TT >= 0.005).tolist()
    )
    frame = f'<rect width="{n}" height="{n}" fill="none" stroke="#888" stroke-width="{n / 96:.2f}"/>'
    drawing = f'<svg viewBox="0 0 {n} {n}" width="96" height="96" fill="#0072b2" role="img" style="margin:2px">'
    return f"{drawing}{cells}{frame}</svg>"


def attention(model: Model, ids: Sequence[int]) -> AttentionMap:
    """Run a model on ids (T,) twice, with the fast attention and with the one that shows its weights.

    Raises:
        ConfigError: for a model without attention.
        DataError: for no ids, or more than the model's context length.
    """
    model = as_transformer(model, "attention")
    context = model.config.context_length
    if not 1 <= len(ids) <= context:
        raise DataError(
            f"the text has {len(ids)} tokens, attention can be shown for 1 to {context} (the model's context); "
            f"give a {'longer' if not ids else 'shorter'} text"
        )
    weights: list[Tensor] = []
    ids_1T = torch.tensor([list(ids)], device=model.embedding.weight.device)
    with torch.no_grad(), evaluating(model):
        difference = (model(ids_1T) - model(ids_1T, attend=recording(weights))).abs().max()
    return AttentionMap(as_numpy(weights), float(difference))


def recording(weights: list[Tensor]) -> Attend:
    """An attention function that appends the weights (H, T, S) of the first row of its batch to a list."""

    def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, dropout: float) -> Tensor:
        weights.append(attention_weights(q_BHTK, k_BGSK, mask)[0])
        return attend_reference(q_BHTK, k_BGSK, v_BGSK, mask, dropout)

    return attend


def as_numpy(weights: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    """The weights of each layer as one array (n_layers, n_heads, T, S)."""
    return torch.stack(list(weights)).float().cpu().numpy()

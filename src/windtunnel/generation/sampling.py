"""From logits to one token: pure functions, float64, no generator state.

The random number of a token depends on (seed, index of the token) only. So one seed gives one text, however the
tokens are computed: with or without a cache, streamed or at once.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from windtunnel.config import Config
from windtunnel.nn.init import stream

Floats = npt.NDArray[np.float64]
FEW = 16
"""Tokens. Up to this many of the most probable ones are found one by one; beyond, partitioning the vocabulary is
faster."""


class SamplingConfig(Config):
    """How the next token is drawn: temperature first, then top_k, then top_p, then what is left is renormalised."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Logits are divided by it; below 1 is more careful, above 1 more daring, 0 always takes the most probable."""
    top_k: PositiveInt | None = None
    """Keep only this many of the most probable tokens (Fan et al. 2018, arXiv 1805.04833); None keeps all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep the fewest of the most probable tokens that together reach this probability (nucleus sampling,
    Holtzman et al. 2020, arXiv 1904.09751); None keeps all."""


def softmax(logits_V: npt.ArrayLike) -> Floats:
    """The probabilities (..., V) of logits (..., V) at temperature 1, in float64."""
    x_V = np.asarray(logits_V, dtype=np.float64)
    p_V = np.exp(x_V - x_V.max(axis=-1, keepdims=True))
    return np.asarray(p_V / p_V.sum(axis=-1, keepdims=True))


def log_softmax(logits_V: npt.ArrayLike) -> Floats:
    """The natural logarithms of the probabilities (..., V); finite also where the probability underflows."""
    x_V = np.asarray(logits_V, dtype=np.float64)
    x_V = x_V - x_V.max(axis=-1, keepdims=True)
    return np.asarray(x_V - np.log(np.exp(x_V).sum(axis=-1, keepdims=True)))


def adjust(logits_V: npt.ArrayLike, config: SamplingConfig) -> Floats:
    """The probabilities (..., V) from which the next token is drawn; they sum to 1.

    Among equals the lower id counts as the more probable, so that the result is always the same.
    """
    x_V = np.asarray(logits_V, dtype=np.float64)
    if config.temperature == 0:
        p_V = np.zeros_like(x_V)
        p_V.reshape(-1, x_V.shape[-1])[np.arange(x_V[..., 0].size), x_V.argmax(axis=-1).reshape(-1)] = 1.0
        return p_V
    # The largest logit is taken off before the division, or a very small temperature would overflow.
    with np.errstate(over="ignore"):  # at a tiny temperature the others go to -inf, as they should
        p_V = softmax((x_V - x_V.max(axis=-1, keepdims=True)) / config.temperature)
    if config.top_k is not None or config.top_p is not None:
        rows = p_V.reshape(-1, p_V.shape[-1])
        p_V = np.stack([_only_the_best(row, config) for row in rows]).reshape(p_V.shape)
    return p_V


def _only_the_best(p_V: Floats, config: SamplingConfig) -> Floats:
    if config.top_k is not None:
        p_V = _keep(p_V, best(p_V, config.top_k))
    if config.top_p is not None:
        n, total = 64, p_V.sum()
        while n < len(p_V) and p_V[best(p_V, n)].sum() < min(config.top_p, total) + 1e-9:
            n *= 8
        order = best(p_V, n)
        before = np.concatenate([[0.0], np.cumsum(p_V[order])[:-1]])
        p_V = _keep(p_V, order[before < config.top_p])
    return p_V


def ranking(scores_V: Floats) -> npt.NDArray[np.int64]:
    """All ids (..., V), the highest score first, the lower id first among equals."""
    return np.argsort(-scores_V, axis=-1, kind="stable")


def best(scores_V: Floats, n: int) -> npt.NDArray[np.int64]:
    """The first n of `ranking`, (..., n), without sorting a large vocabulary."""
    size = scores_V.shape[-1]
    if 1 <= n <= min(FEW, size):
        return _one_by_one(scores_V.reshape(-1, size), n).reshape(*scores_V.shape[:-1], n)
    if n < 1 or 8 * n > size or size < 256:
        return ranking(scores_V)[..., : max(n, 0)]
    if scores_V.ndim > 1:
        return np.stack([best(row_V, n) for row_V in scores_V])
    least = np.partition(scores_V, -n)[-n]
    ids = np.flatnonzero(scores_V >= least)
    return np.asarray(ids[ranking(scores_V[ids])[:n]])


def _one_by_one(scores_NV: Floats, n: int) -> npt.NDArray[np.int64]:
    left_NV, rows_N = scores_NV.copy(), np.arange(len(scores_NV))
    best_Nn = np.empty((len(scores_NV), n), dtype=np.int64)
    for rank in range(n):
        id_N = best_Nn[:, rank] = left_NV.argmax(axis=-1)
        if (left_NV[rows_N, id_N] == -np.inf).any():  # taken ids cannot be told from ids of probability 0
            return ranking(scores_NV)[:, :n]
        left_NV[rows_N, id_N] = -np.inf
    return best_Nn


def choose(probabilities_V: Floats, u: float) -> int:
    """The id at u in [0, 1) of the cumulated probabilities; never one of probability 0."""
    return int(choose_each(probabilities_V[None], np.array([u]))[0])


def choose_each(probabilities_BV: Floats, u_B: Floats) -> npt.NDArray[np.int64]:
    """`choose` for each row, (B,)."""
    cumulated_BV = probabilities_BV.cumsum(axis=-1)
    at_B = (cumulated_BV <= (u_B * cumulated_BV[:, -1])[:, None]).sum(axis=-1)
    for row in np.flatnonzero(at_B == probabilities_BV.shape[-1]):  # u times the sum was rounded up to the sum
        at_B[row] = np.flatnonzero(probabilities_BV[row])[-1]
    return at_B


def uniform(seed: int, index: int) -> float:
    """The random number in [0, 1) that draws the token of this index, 53 bits."""
    return (stream(seed, "token", index) >> 10) * 2.0**-53


def _keep(p_V: Floats, ids: npt.NDArray[np.int64]) -> Floats:
    kept_V = np.zeros_like(p_V)
    kept_V[ids] = p_V[ids]
    return np.asarray(kept_V / kept_V.sum())

"""The arithmetic of one attention head: its matrices in order, and one entry with the numbers put in.

Shape suffixes as in `windtunnel.nn`: T queries, S keys, D d_model, K d_head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from windtunnel.nn.attention import distances
from windtunnel.nn.positions import Rotation, rotate
from windtunnel.stats.digits import number

MOST_TERMS = 4
"""Products that a substituted sum writes out; the others are counted."""


@dataclass(frozen=True)
class Matrix:
    """One matrix of the head: how it came about, and what its rows and columns are ("token" or a width)."""

    name: str
    formula: str
    rows: str
    columns: str
    values: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a hidden score, minus infinity, is null."""
        values = [[x if math.isfinite(x) else None for x in row] for row in self.values.tolist()]
        names = {"name": self.name, "formula": self.formula, "rows": self.rows, "columns": self.columns}
        return {**names, "shape": list(self.values.shape), "values": values}


@dataclass(frozen=True)
class Weights:
    """What a head multiplies with: matrices from width to width, biases (K,); None where there is none."""

    q_DK: Tensor
    k_DK: Tensor
    v_DK: Tensor
    out_KD: Tensor | None = None
    q_bias_K: Tensor | None = None
    k_bias_K: Tensor | None = None
    v_bias_K: Tensor | None = None


def head_matrices(
    x_TD: Tensor, weights: Weights, hidden_TS: Tensor, rotary: Rotation | None = None, slope: float | None = None
) -> tuple[Matrix, ...]:
    """Every matrix of a head, in order (Vaswani et al. 2017, equation 1).

    Args:
        hidden_TS: True where a key is hidden from a query.
        rotary: rotary positions, cosines and sines (T, K/2) each.
        slope: ALiBi's slope; the scaled score of a key falls by slope x distance.
    """
    w, made = weights, {}
    found = [Matrix("x", "what the head reads", "token", "d_model", x_TD)]
    parts = (("q", w.q_DK, w.q_bias_K), ("k", w.k_DK, w.k_bias_K), ("v", w.v_DK, w.v_bias_K))
    for name, matrix_DK, bias_K in parts:
        found.append(Matrix(f"W{name}", "learned", "d_model", "d_head", matrix_DK))
        formula, made_TK = f"x W{name}", x_TD @ matrix_DK
        if bias_K is not None:
            found.append(Matrix(f"b{name}", "learned", "1", "d_head", bias_K[None]))
            formula, made_TK = f"{formula} + b{name}", made_TK + bias_K
        turned = rotary is not None and name != "v"
        found.append(Matrix(f"{name} unturned" if turned else name, formula, "token", "d_head", made_TK))
        made[name] = made_TK
    if rotary is not None:
        found += _turned(made, rotary)
    scores_TS, d_head = made["q"] @ made["k"].T, made["q"].shape[1]
    logits_TS = scores_TS / d_head**0.5
    found.append(Matrix("scores", "q kᵀ", "token", "token", scores_TS))
    found.append(Matrix("scaled", f"scores / √{d_head}", "token", "token", logits_TS))
    if slope is not None:
        logits_TS = logits_TS - slope * distances(len(x_TD), len(x_TD))
        found.append(Matrix("lowered", f"scaled - {slope:.4g} x distance", "token", "token", logits_TS))
    if bool(hidden_TS.any()):
        logits_TS = logits_TS.masked_fill(hidden_TS, -torch.inf)
        found.append(Matrix("masked", "-∞ where a key is hidden", "token", "token", logits_TS))
    weights_TS = logits_TS.softmax(dim=-1)
    mix_TK = weights_TS @ made["v"]
    found.append(Matrix("weights", "softmax of each row", "token", "token", weights_TS))
    found.append(Matrix("mix", "weights v", "token", "d_head", mix_TK))
    if w.out_KD is not None:
        found.append(Matrix("Wo", "learned", "d_head", "d_model", w.out_KD))
        found.append(Matrix("output", "mix Wo", "token", "d_model", mix_TK @ w.out_KD))
    return tuple(found)


def _turned(made: dict[str, Tensor], rotary: Rotation) -> list[Matrix]:
    """The rotation, and q and k after it; `made` then holds these."""
    cos, sin = (
        Matrix(n, f"{n}(position x rate)", "token", "d_head / 2", x)
        for n, x in zip(("cos", "sin"), rotary, strict=True)
    )
    for name in "qk":
        made[name] = rotate(made[name], rotary)
    formula = "columns i and i + d_head / 2 of {} unturned, turned by cos and sin"
    return [cos, sin, *(Matrix(name, formula.format(name), "token", "d_head", made[name]) for name in "qk")]


def variances(scores_TS: Tensor, seen_TS: Tensor, d_head: int) -> tuple[float, float] | None:
    """Variance (n - 1 below) of the visible scores before and after the division by √d_head; None of one score."""
    seen = scores_TS.double()[seen_TS]
    if len(seen) < 2:
        return None
    return float(seen.var()), float((seen / math.sqrt(d_head)).var())


def substituted(values: Mapping[str, Tensor], tokens: Sequence[str], query: int, key: int) -> tuple[str, ...]:
    """How one entry comes about, one step a line; of q, k, mix and output the first component."""
    v, looks, seen, d_head = (
        values,
        f"«{tokens[query]} {query + 1}»",
        f"«{tokens[key]} {key + 1}»",
        values["q"].shape[1],
    )
    lines = [*_projected(v, "q", query, looks), *_projected(v, "k", key, seen)]
    score, scaled = float(v["scores"][query, key]), float(v["scaled"][query, key])
    lines.append(f"score of {looks} on {seen} = q · k = {_dot(v['q'][query], v['k'][key])} = {score:.6g}")
    lines.append(f"scaled = {score:.6g} / √{d_head} = {scaled:.6g}")
    logit = scaled
    if "lowered" in v:
        logit = float(v["lowered"][query, key])
        lines.append(f"lowered, {query - key} back in the text = {scaled:.6g} - {scaled - logit:.6g} = {logit:.6g}")
    row = v.get("masked", v.get("lowered", v["scaled"]))[query].double()
    if not math.isfinite(float(row[key])):
        lines.append(f"mask: {seen} is hidden from {looks}, so the score becomes -∞ and the weight exp(-∞) = 0")
    elif "masked" in v:
        lines.append(f"mask: {looks} sees {int(row.isfinite().sum())} of {len(row)} tokens, {seen} among them")
    top, exponentials = float(row.max()), (row - row.max()).exp()
    weight, total = float(v["weights"][query, key]), float(exponentials.sum())
    lines.append(
        f"weight = exp({float(row[key]):.6g} - {_factor(top)}) / sum of the row = {number(float(exponentials[key]))} / "
        f"{total:.4f} = {number(weight)} (the row's largest score is taken off first, which changes no weight)"
    )
    seen_by = row.isfinite().nonzero()[:, 0]
    mixed = _dot(v["weights"][query][seen_by], v["v"][seen_by, 0])
    lines.append(f"mix of {looks}, column 1 = weights · v = {mixed} = {float(v['mix'][query, 0]):.4g}")
    if "output" in v:
        out = _dot(v["mix"][query], v["Wo"][:, 0])
        lines.append(f"output of {looks}, column 1 = mix · Wo = {out} = {float(v['output'][query, 0]):.4g}")
    return tuple(lines)


def _projected(v: Mapping[str, Tensor], name: str, place: int, token: str) -> list[str]:
    """q or k of one token, its first columns: all when there are two, else one; then the rotation."""
    plain = v.get(f"{name} unturned", v[name])
    bias, lines = v.get(f"b{name}"), []
    for column in range(plain.shape[1] if plain.shape[1] <= 2 else 1):
        added = "" if bias is None else f" + {_factor(float(bias[0, column]))}"
        products = _dot(v["x"][place], v[f"W{name}"][:, column])
        lines.append(f"{name} of {token}, column {column + 1} = {products}{added} = {float(plain[place, column]):.4g}")
    if "cos" in v:
        half = plain.shape[1] // 2
        a, b = float(plain[place, 0]), float(plain[place, half])
        cos, sin = float(v["cos"][place, 0]), float(v["sin"][place, 0])
        lines.append(
            f"{name} of {token} turned by its place {place}, column 1 (with column {half + 1}) = "
            f"{_factor(a)}·{_factor(cos)} - {_factor(b)}·{_factor(sin)} = {float(v[name][place, 0]):.4g}"
        )
    return lines


def _dot(a: Tensor, b: Tensor) -> str:
    """The products of a sum, the first few written out."""
    terms = [f"{_factor(x)}·{_factor(y)}" for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    more = len(terms) - MOST_TERMS
    return " + ".join(terms) if more <= 1 else " + ".join(terms[:MOST_TERMS]) + f" + … ({more} more)"


def _factor(x: float) -> str:
    return f"({x:.4g})" if x < 0 else f"{x:.4g}"

"""One attention head in the open: every matrix between x and the output, and the numbers put into the formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.inspect.attention import attention
from windtunnel.inspect.explain_head import Matrix, Weights, head_matrices, substituted, variances
from windtunnel.models import Model, Transformer, as_transformer
from windtunnel.models.block import Block
from windtunnel.nn.attention import distances, visible
from windtunnel.nn.mode import evaluating
from windtunnel.nn.positions import Rotation

ROW_TOKENS = ("he", "likes", "tea")
ROW_X = ((2.0, 5.0), (4.0, 1.0), (3.0, 3.0))
ROW_WQ = ((0.2, 0.9), (0.5, 0.5))
ROW_WK = ((0.7, 0.9), (0.1, 0.7))
ROW_WV = ((1.0, 0.0), (0.0, 1.0))
ROW_NOTE = (
    "row 002-4 gives the scores and the weights; x, Wq, Wk, Wv and the third word are ours, chosen so that exactly "
    "those scores come out (Wv is the identity, so the mix is a mean of the rows of x)"
)


@dataclass(frozen=True)
class Head:
    """A head's matrices in the order in which they are computed, and what they say.

    query, key: the entry (from 0) whose numbers `steps` substitutes.
    variances: of the visible scores, before and after the scaling; None when only one is visible.
    variance_ratio: the first over the second: d_head, whatever the numbers; None when they are all equal.
    max_difference: largest difference between these weights and the model's own; None when there is no model.
    """

    title: str
    tokens: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    query: int
    key: int
    steps: tuple[str, ...]
    variances: tuple[float, float] | None
    variance_ratio: float | None
    max_difference: float | None
    notes: tuple[str, ...]

    def matrix(self, name: str) -> Tensor:
        """The values of one matrix by its name."""
        return next(matrix.values for matrix in self.matrices if matrix.name == name)

    @property
    def d_head(self) -> int:
        """Width of the head."""
        return self.matrix("q").shape[1]

    @property
    def looks_at(self) -> tuple[int, ...]:
        """For each token, which one it gives its largest weight: the argmax of its row."""
        return tuple(self.matrix("weights").argmax(dim=1).tolist())

    @property
    def looked_at_by(self) -> tuple[int, ...]:
        """For each token, which one gives it the most: the argmax of its column."""
        return tuple(self.matrix("weights").argmax(dim=0).tolist())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and the page."""
        return {
            "title": self.title,
            "tokens": list(self.tokens),
            "matrices": [matrix.to_dict() for matrix in self.matrices],
            "query": self.query + 1,
            "key": self.key + 1,
            "steps": list(self.steps),
            "d_head": self.d_head,
            "variances": self.variances,
            "variance_ratio": self.variance_ratio,
            "looks_at": [i + 1 for i in self.looks_at],
            "looked_at_by": [i + 1 for i in self.looked_at_by],
            "max_difference": self.max_difference,
            "notes": list(self.notes),
        }


def explain_row(query: int | None = None, key: int | None = None) -> Head:
    """Row 002-4: three words, d_head 2, no mask, in float64; the entry is `he` looking at `likes` unless chosen."""
    x_TD, wq, wk, wv = (torch.tensor(m, dtype=torch.float64) for m in (ROW_X, ROW_WQ, ROW_WK, ROW_WV))
    if query is None and key is None:
        query, key = 1, 2
    matrices = head_matrices(x_TD, Weights(wq, wk, wv), torch.zeros(3, 3, dtype=torch.bool))
    grown = ", ".join(f"{variance_of_scores(d):.3g} at d_k {d}" for d in (2, 3, 8, 64))
    unscaled = next(matrix.values for matrix in matrices if matrix.name == "scores").softmax(dim=-1)
    notes = (
        ROW_NOTE,
        "no mask: every word sees every word",
        'that "he" attends most to "likes" holds down the column: nobody gives likes more; along its row he prefers he',
        f"without the scaling the row of he would be {', '.join(f'{x:.4f}' for x in unscaled[0].tolist())}, less even",
        "that the unscaled variance grows like d_k needs independent numbers in q and k: from N(0, 1) it is " + grown,
    )
    return _head("row 002-4", ROW_TOKENS, matrices, 1 if query is None else query, key, None, notes)


def variance_of_scores(d_head: int, n: int = 500, seed: int = 0) -> float:
    """Variance of the unscaled scores of n queries and n keys drawn from N(0, 1); d_head is expected."""
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, n, d_head, dtype=torch.float64, generator=generator)
    return float((q @ k.T).var())


def explain_head(
    model: Model,
    ids: Sequence[int],
    tokens: Sequence[str],
    layer: int = 1,
    head: int = 1,
    query: int | None = None,
    key: int | None = None,
    title: str = "",
) -> Head:
    """A head of a trained model on ids (T,), recomputed from its weights and held to the model's own attention.

    Args:
        tokens: the text of each id.
        layer, head, query, key: from 1; the query is the last token unless chosen, the key what it looks at most.

    Raises:
        ConfigError: for a model without attention, or a layer, head or place that is not there.
        DataError: for no ids, or more than the context.
    """
    model = as_transformer(model, "explain attention")
    if model.config.qk_norm != "none":
        raise ConfigError(f"model.qk_norm={model.config.qk_norm} is a step that is not written out here; use look")
    config = model.config
    _within("layer", layer, config.n_layers, "the model")
    _within("head", head, config.n_heads, "the model")
    own_TS = torch.from_numpy(attention(model, ids).weights[layer - 1, head - 1])
    x_TD, rotary, slopes_H = _inputs(model, layer - 1, ids)
    hidden_TS = ~visible(distances(len(ids), len(ids)), config.windows[layer - 1], config.causal)
    slope = None if slopes_H is None else float(slopes_H[head - 1])
    matrices = head_matrices(x_TD, _weights(model, layer - 1, head - 1), hidden_TS, rotary, slope)
    weights_TS = next(matrix.values for matrix in matrices if matrix.name == "weights")
    difference = float((weights_TS - own_TS).abs().max())
    notes = _notes(model, layer, head)
    return _head(
        f"{title}layer {layer}, head {head}",
        tokens,
        matrices,
        len(ids) if query is None else query,
        key,
        difference,
        notes,
    )


def _head(
    title: str,
    tokens: Sequence[str],
    matrices: tuple[Matrix, ...],
    query: int,
    key: int | None,
    difference: float | None,
    notes: tuple[str, ...],
) -> Head:
    values = {matrix.name: matrix.values for matrix in matrices}
    _within("query", query, len(tokens), "the text")
    if key is None:
        key = int(values["weights"][query - 1].argmax()) + 1
    _within("key", key, len(tokens), "the text")
    found = variances(values["scores"], values.get("masked", values["scaled"]).isfinite(), values["q"].shape[1])
    return Head(
        title=title,
        tokens=tuple(tokens),
        matrices=matrices,
        query=query - 1,
        key=key - 1,
        steps=substituted(values, tokens, query - 1, key - 1),
        variances=found,
        variance_ratio=found[0] / found[1] if found and found[1] else None,
        max_difference=difference,
        notes=notes,
    )


def _within(name: str, given: int, most: int, of: str) -> None:
    if not 1 <= given <= most:
        raise ConfigError(f"there is no {name} {given}; {of} has 1 to {most}")


def _inputs(model: Transformer, layer: int, ids: Sequence[int]) -> tuple[Tensor, Rotation | None, Tensor | None]:
    """What the attention of a layer was called with: x (T, D), the rotation and the slopes."""
    called: list[tuple[Any, ...]] = []
    block = model.blocks[layer]
    assert isinstance(block, Block)
    handle = block.attention.register_forward_pre_hook(lambda module, given: called.append(given))
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.tensor([list(ids)], device=model.embedding.weight.device))
    finally:
        handle.remove()
    x_BTD, shared = called[0]
    rotary = shared.rotary and (shared.rotary[0].cpu(), shared.rotary[1].cpu())
    return x_BTD[0].float().cpu(), rotary, shared.mask.slopes_H


def _weights(model: Transformer, layer: int, head: int) -> Weights:
    """The part of the packed matrices that belongs to a query head and to the key head that it reads."""
    config, block = model.config, model.blocks[layer]
    assert isinstance(block, Block)
    module = block.attention
    width, group = config.head_width, head // (config.n_heads // config.kv_heads)
    parts = [head, config.n_heads + group, config.n_heads + config.kv_heads + group]
    rows = [slice(part * width, (part + 1) * width) for part in parts]
    qkv = module.qkv.weight.detach().float().cpu()
    out = module.out.weight.detach().float().cpu() if isinstance(module.out, nn.Linear) else torch.eye(config.d_model)
    biases = [None] * 3 if module.qkv.bias is None else [module.qkv.bias.detach().float().cpu()[row] for row in rows]
    q, k, v = (qkv[row].T for row in rows)
    return Weights(q, k, v, out[:, rows[0]].T, *biases)


def _notes(model: Transformer, layer: int, head: int) -> tuple[str, ...]:
    config = model.config
    x = "norm_1 of the residual stream" if config.norm_position == "pre" else "the residual stream"
    where = {
        "learned": "learned positions were added to the embeddings before layer 1, so x holds them already",
        "sinusoidal": "sinusoidal positions were added to the embeddings before layer 1, so x holds them already",
        "rope": "positions turn q and k, so that a score depends on how far apart two tokens are",
        "alibi": "positions lower the scores of distant keys, in each head with another slope",
        "none": "the model has no positions but what the mask tells",
    }[config.position]
    notes = [
        f"x is {x}",
        where,
        "the output is this head's part: the block adds all heads and the bias of the projection",
    ]
    if config.kv_heads < config.n_heads:
        group = (head - 1) // (config.n_heads // config.kv_heads) + 1
        notes.append(f"query head {head} reads key head {group} of {config.kv_heads} (grouped queries)")
    return tuple(notes)

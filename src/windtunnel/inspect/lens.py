"""What a transformer would say after each layer, and which of its parts speak for a token.

The logit lens puts the residual stream after each block through the final norm and the head (nostalgebraist 2020).
Direct logit attribution splits one logit into what each part has written into the stream: with the scale of the final
norm held as it was, a logit is linear in the stream, and the stream is the sum of what was written (Elhage et al. 2021,
"A Mathematical Framework for Transformer Circuits").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.inspect.sites import recorded, tapped
from windtunnel.models import Model, Transformer, as_transformer
from windtunnel.models.block import Attention, Block
from windtunnel.nn.mode import evaluating
from windtunnel.nn.norms import LayerNorm, RMSNorm


def lens(model: Model, ids: Sequence[int]) -> Tensor:
    """The logits (n_layers + 1, T, V) that the final norm and the head make of the stream before the first block, and
    after each block; the last are the model's own.

    Raises:
        ConfigError: for a model that is no transformer.
    """
    model = as_transformer(model, "the lens")
    sites = ["blocks.0.in", *(f"blocks.{i}.resid" for i in range(len(model.blocks)))]
    with torch.no_grad(), evaluating(model), recorded(model, sites) as seen:
        model(_row(model, ids))
        return torch.cat([model.logits(model.norm(seen[site])) for site in sites])


def _row(model: Model, ids: Sequence[int]) -> Tensor:
    return torch.tensor([list(ids)], device=next(model.parameters()).device)


@dataclass(frozen=True)
class Attribution:
    """What each part of a model adds to one logit; the values sum to the logit, but for rounding.

    parts: `embedding` (with the positions), `blocks.N.attention.heads.H`, `blocks.N.attention` (what the heads of the
    layer do not have alone, its bias; all of it where its norm follows it), `blocks.N.feed_forward`, `bias` of final
    norm and head.
    """

    id: int
    logit: float
    parts: dict[str, float]

    def __repr__(self) -> str:
        most = sorted(self.parts.items(), key=lambda one: -abs(one[1]))[:3]
        return f"Attribution(logit {self.logit:.4f}: {', '.join(f'{name} {value:+.4f}' for name, value in most)}, ...)"


def attribution(model: Model, ids: Sequence[int], id: int | None = None, position: int = -1) -> Attribution:
    """Split the logit of the token `id` after the ids up to `position` into what each part adds to it.

    Args:
        id: None is the most probable token there.
        position: of the token whose next one is judged; -1 is the last.

    Raises:
        ConfigError: for a model that is no transformer, or whose norms stand after the sums, so that none stays.
    """
    model = as_transformer(model, "attribution")
    config = model.config
    if config.norm_position == "post":
        raise ConfigError("attribution needs a stream that is a sum, and model.norm_position=post norms every sum")
    own = config.norm_position == "branch"
    written = {
        f"blocks.{i}.{part}": f"blocks.{i}.{norm if own else part}"
        for i in range(config.n_layers)
        for part, norm in (("attention", "norm_1"), ("feed_forward", "norm_2"))
    }
    heads = [] if own else [f"blocks.{i}.attention.heads" for i in range(config.n_layers)]
    sites = ["blocks.0.in", "norm.in", *written.values(), *heads]
    with torch.no_grad(), evaluating(model), recorded(model, sites) as seen:
        logits_V = model(_row(model, ids))[0, position]
        parts = {"embedding": seen["blocks.0.in"][0, position]}
        parts |= {name: seen[site][0, position] for name, site in written.items()}
        for block, site in zip(model.blocks, heads, strict=False):  # no heads where a norm follows them
            assert isinstance(block, Block)
            each_HD, whole = _of_heads(block.attention, seen[site][0, :, position]), site.removesuffix(".heads")
            parts |= {f"{site}.{head}": alone_D for head, alone_D in enumerate(each_HD)}
            parts[whole] = parts[whole] - each_HD.sum(dim=0)
        chosen = int(logits_V.argmax()) if id is None else id
        reader_D, bias = _reader(model, chosen, seen["norm.in"][0, position])
        values = {name: float(part_D @ reader_D) for name, part_D in parts.items()}
    return Attribution(chosen, float(logits_V[chosen]), {**values, "bias": bias})


def _of_heads(attention: Attention, heads_HK: Tensor) -> Tensor:
    """What each head of an attention writes into the stream, (H, D), without the bias."""
    n_heads = len(heads_HK)
    alone_HN = (torch.eye(n_heads, device=heads_HK.device)[:, :, None] * heads_HK).flatten(1)
    return alone_HN if isinstance(attention.out, nn.Identity) else alone_HN @ attention.out.weight.T


def _reader(model: Transformer, id: int, stream_D: Tensor) -> tuple[Tensor, float]:
    """The vector (D,) and the number that make a token's logit of the stream, the final norm's scale held as it is."""
    norm, row_D = model.norm, (model.embedding if model.head is None else model.head).weight[id]
    bias = 0.0 if model.head is None or model.head.bias is None else float(model.head.bias[id])
    if isinstance(norm, LayerNorm):
        bias += 0.0 if norm.bias is None else float(norm.bias @ row_D)
        row_D = row_D * norm.weight / (stream_D.var(unbiased=False) + norm.epsilon).sqrt()
        row_D = row_D - row_D.mean()  # as the norm takes off the mean of what it reads
    elif isinstance(norm, RMSNorm):
        row_D = row_D * norm.weight / (stream_D.square().mean() + norm.epsilon).sqrt()
    return row_D, bias


def gradients(model: Model, ids: Sequence[int]) -> Tensor:
    """The gradient (T, D) of the text's summed loss in nats by the vector that each token enters the first block with.

    Raises:
        ConfigError: for a model that is no transformer.
    """
    model = as_transformer(model, "gradients")
    entered: list[Tensor] = []

    def enter(value: Tensor) -> Tensor:
        entered.append(value.detach().requires_grad_())
        return entered[-1]

    row = _row(model, ids)
    with torch.enable_grad(), evaluating(model), tapped(model, {"blocks.0.in": enter}):
        logits = model(row)[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum")
        [found] = torch.autograd.grad(loss, entered)
    return found[0]

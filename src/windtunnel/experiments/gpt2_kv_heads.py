"""000-T2b: GPT-2 with fewer key and value heads than query heads (Ainslie et al. 2023, arXiv 2305.13245)."""

from __future__ import annotations

import torch
from torch import Tensor

from windtunnel.experiments.altered import altered, small_gpt2
from windtunnel.experiments.frame import Claim, Findings, Row, Setting, interval, text
from windtunnel.experiments.speed import Seconds, at_lengths
from windtunnel.experiments.training import AS_GOOD
from windtunnel.models import Transformer, TransformerConfig, build
from windtunnel.models.pretrained.alter import to_grouped_queries
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import mean_interval

ROW = Row("000-T2b")
PUBLISHED = {1: 111_446_784, 2: 112_627_968, 4: 114_990_336, 6: 117_352_704, 12: 124_439_808}
"""Parameters of GPT-2 small, learned positions and all, by its number of key and value heads."""
CACHE = {1: 3072, 4: 12_288, 12: 36_864}
"""Bytes of its cache a token in half precision."""
HALF = 2
"""Bytes of a number in half precision."""


def gpt2_kv_heads(at: Setting) -> Findings:
    """Grouped queries: fewer key and value heads.

    The same small GPT-2 with 8 query heads was trained with 8, 4, 2 and 1 key and value heads, on paired seeds.
    Training and decoding were timed in a wider model at several lengths of the context.
    """
    yield from sizes()
    yield from equalities()
    groups = at.size((8, 4, 2, 1), quick=(8, 1))
    arms = [Arm(f"n_kv_heads={g}", small_gpt2(at, n_heads=8, n_kv_heads=None if g == 8 else g)) for g in groups]
    says = {f"n_kv_heads={g}": (f"{g} of 8: no loss that matters", AS_GOOD) for g in groups}
    yield from altered(at, ROW, "key and value heads", arms, says)
    seconds = yield from at_lengths(at, {f"n_kv_heads={g}": {"n_kv_heads": g} for g in groups})
    yield faster(seconds)


def sizes() -> Findings:
    """Parameters and cache of GPT-2 small."""
    configs = {g: TransformerConfig(n_kv_heads=g) for g in PUBLISHED}
    counted = {g: config.n_parameters() for g, config in configs.items()}
    cache = {g: HALF * config.cache_elements_per_token() for g, config in configs.items()}
    yield ROW.same("parameters of GPT-2 small by key and value heads", counted, PUBLISHED)
    yield ROW.shows("bytes of its cache a token in half precision", CACHE.items() <= cache.items(), text(cache),
                    text(CACHE), bytes=cache)  # fmt: skip


def equalities() -> Findings:
    """Grouped queries are multi-head attention whose groups share keys and values, and nothing else."""
    config = TransformerConfig(vocab_size=50, context_length=24, n_layers=2, n_heads=8, d_model=64, dropout=0.0)
    grouped, ids = config.replace(n_kv_heads=2), torch.arange(48).view(2, 24)
    model, other = build(grouped, 0).eval(), build(config, 0).eval()
    with torch.no_grad():
        logits, full = model(ids), other(ids)
        other.load_state_dict(repeated(model))
        apart = float((other(ids) - logits).abs().max())
        explicit = float((build(config.replace(n_kv_heads=8), 0).eval()(ids) - full).abs().max())
    _, pooled = to_grouped_queries(config, other.state_dict(), 2)
    back = max(float((pooled[name] - tensor).abs().max()) for name, tensor in model.state_dict().items())
    yield ROW.equal("2 of 8 heads are 8 with repeated keys and values: logits", apart, printed="0.0")
    yield ROW.equal("as many as query heads is multi-head attention: logits", explicit, printed="0.0")
    yield ROW.equal("mean-pooling the repeated heads gives the grouped weights back", back)


def repeated(model: Transformer) -> dict[str, Tensor]:
    """The weights of a model with grouped queries as those of one where every query head has its own copy."""
    c, weights = model.config, dict(model.state_dict())
    sizes = [c.n_heads * c.head_width, *[c.kv_heads * c.head_width] * 2]
    for name in [name for name in weights if ".attention.qkv." in name]:
        q, k, v = weights[name].split(sizes)
        heads = (x.unflatten(0, (c.kv_heads, -1)) for x in (k, v))
        k, v = (x.repeat_interleave(c.n_heads // c.kv_heads, 0).flatten(0, 1) for x in heads)
        weights[name] = torch.cat((q, k, v))
    return weights


def faster(seconds: Seconds) -> Claim:
    """Decoding at the longest context with one key head against one for each query head, turn by turn."""
    length, models = max(seconds["decoding"].items())
    ratio = mean_interval([a / b for a, b in zip(models["n_kv_heads=8"], models["n_kv_heads=1"], strict=True)])
    statement = f"after {length:,} tokens a model with one key head writes faster than with 8"
    return ROW.within(statement, ratio, low=1, shown=f"{interval(ratio, '.2f')} times as fast")

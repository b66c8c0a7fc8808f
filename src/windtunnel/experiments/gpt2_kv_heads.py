"""000-T2b: GPT-2 with fewer key and value heads than query heads (Ainslie et al. 2023, arXiv 2305.13245)."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, equal, exactly, signature, within
from windtunnel.stats.intervals import mean_interval

if TYPE_CHECKING:
    from torch import Tensor

    from windtunnel.experiments.speed import Seconds
    from windtunnel.models import Transformer

PUBLISHED = {1: 111_446_784, 2: 112_627_968, 4: 114_990_336, 6: 117_352_704, 12: 124_439_808}
"""Parameters of GPT-2 small, learned positions and all, by its number of key and value heads."""
HALF = 2
"""Bytes of a number in the cache in half precision, as the row counts it."""


def gpt2_kv_heads(setting: Setting) -> Generator[Progress, None, Outcome]:
    """What do fewer key and value heads cost in loss, and what do they save?"""
    from windtunnel.experiments.altered import (
        arms_table,
        as_good_claims,
        n_seeds,
        settings_of,
        small_gpt2,
    )
    from windtunnel.experiments.speed import at_lengths, rates_figure, rates_table
    from windtunnel.experiments.training import compared
    from windtunnel.report.comparison_figure import comparison_figure
    from windtunnel.runs.arms import Arm, vary

    base = small_gpt2(setting, n_heads=8)
    arms = [Arm("n_kv_heads=8", base), *vary(base, ["model.n_kv_heads=" + ("1" if setting.quick else "4,2,1")])]
    found = yield from compared("key and value heads", arms, n_seeds(setting), setting)
    groups = (8, 1) if setting.quick else (8, 4, 2, 1)
    seconds = yield from at_lengths({f"n_kv_heads={g}": {"n_kv_heads": g} for g in groups}, setting)
    as_good = as_good_claims("000-T2b", found, arms, lambda model: f"{model.kv_heads} of 8")
    return Outcome(
        title="Grouped queries: fewer key and value heads",
        what="The same small GPT-2 with 8 query heads was trained with 8, 4, 2 and 1 key and value heads, on paired "
        "seeds. Training and decoding were timed in a wider model at several lengths of the context.",
        settings={**settings_of(base, setting), "timed": "2 layers x 256, 8 heads, rotary positions, random weights"},
        tables=(arms_table(found, arms, 3 if setting.quick else 15), rates_table(seconds)),
        figures={"loss": comparison_figure(found), "speed": rates_figure(seconds)},
        claims=(*size_claims(), *equality_claims(), *as_good, faster_claim(seconds)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def size_claims() -> tuple[Claim, Claim]:
    """Parameters and cache of GPT-2 small."""
    from windtunnel.experiments.altered import n_parameters
    from windtunnel.models import TransformerConfig
    from windtunnel.models.cost import cache_elements_per_token

    configs = {g: TransformerConfig(n_kv_heads=g) for g in PUBLISHED}
    sizes = {g: n_parameters(config) for g, config in configs.items()}
    cache = {g: HALF * cache_elements_per_token(config) for g, config in configs.items()}

    def listed(numbers: Mapping[int, int]) -> str:
        return ", ".join(f"{g}: {n:,}" for g, n in numbers.items())

    published = {1: 3072, 4: 12_288, 12: 36_864}
    return (
        Claim(
            "000-T2b", "parameters of GPT-2 small by key and value heads", listed(PUBLISHED), listed(sizes),
            exactly(sizes == PUBLISHED), {"parameters": sizes},
        ),
        Claim(
            "000-T2b", "bytes of its cache a token in half precision", listed(published), listed(cache),
            exactly(published.items() <= cache.items()), {"bytes": cache},
        ),
    )  # fmt: skip


def equality_claims() -> tuple[Claim, ...]:
    """Grouped queries are multi-head attention whose groups share keys and values, and nothing else."""
    import torch

    from windtunnel.models import TransformerConfig, build
    from windtunnel.models.pretrained.alter import to_grouped_queries

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
    return (
        equal("000-T2b", "2 of 8 heads are 8 with repeated keys and values: logits", "0.0", [apart]),
        equal("000-T2b", "as many as query heads is multi-head attention: logits", "0.0", [explicit]),
        equal("000-T2b", "mean-pooling the repeated heads gives the grouped weights back", "", [back]),
    )


def repeated(model: Transformer) -> dict[str, Tensor]:
    """The weights of a model with grouped queries as those of one where every query head has its own copy."""
    import torch

    c, weights = model.config, dict(model.state_dict())
    sizes = [c.n_heads * c.head_width, *[c.kv_heads * c.head_width] * 2]
    for name in [name for name in weights if ".attention.qkv." in name]:
        q, k, v = weights[name].split(sizes)
        k, v = (
            x.unflatten(0, (c.kv_heads, -1)).repeat_interleave(c.n_heads // c.kv_heads, 0).flatten(0, 1) for x in (k, v)
        )
        weights[name] = torch.cat((q, k, v))
    return weights


def faster_claim(seconds: Seconds) -> Claim:
    """Decoding at the longest context with one key head against one for each query head, turn by turn."""
    length, models = max(seconds["decoding"].items())
    times = [many / one for many, one in zip(models["n_kv_heads=8"], models["n_kv_heads=1"], strict=True)]
    found = mean_interval(times)
    statement = f"after {length:,} tokens a model with one key head writes faster than with 8"
    shown = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}] times as fast"
    return Claim("000-T2b", statement, "", shown, within(found, 1, math.inf), {"times": found})

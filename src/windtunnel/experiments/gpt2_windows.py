"""000-T2c: GPT-2 that sees only the last w tokens (sliding windows, Beltagy et al. 2020, arXiv 2004.05150)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature, within
from windtunnel.report.charts import QUIET, drawing
from windtunnel.stats.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from windtunnel.comparison.comparison import Comparison

WINDOWS = (64, 32, 16, 8)
MASKED = "window 64 by a mask of T x T"
WAYS = {"full": None, MASKED: 64, "window 64": 64, "window 256": 256}
TOKENS = (1024, 2048, 4096, 8192)

Measured = Mapping[str, Mapping[int, Sequence[float]]]
"""Of each way to attend, at each number of tokens, the seconds of every turn or the bytes held."""


def gpt2_windows(setting: Setting) -> Generator[Progress, None, Outcome]:
    """What does a sliding window cost in loss, and do time and memory grow with T·w?"""
    from windtunnel.experiments.altered_before import (
        arms_table,
        as_good_claims,
        n_seeds,
        settings_of,
        small_gpt2,
    )
    from windtunnel.experiments.speed_before import at_lengths, rates_figure, rates_table
    from windtunnel.experiments.training_before import compared
    from windtunnel.runs.arms import Arm, vary

    base, windows = small_gpt2(setting), WINDOWS[-1:] if setting.quick else WINDOWS
    arms = [Arm("full", base), *vary(base, [f"model.window={','.join(map(str, windows))}"])]
    found = yield from compared("windows", arms, n_seeds(setting), setting)
    rates = yield from at_lengths({"full": {}, **{f"window {w}": {"window": w} for w in (256, 64)}}, setting)
    seconds, held = yield from attention_costs(setting)
    as_good = as_good_claims("000-T2c", found, arms, lambda model: f"window {model.window}")
    return Outcome(
        title="Sliding windows",
        what="The same small GPT-2 was trained with full attention and with windows of the last w bytes, on paired "
        "seeds. Attention alone was timed forward and backward at lengths up to 8,192 tokens, its memory counted.",
        settings={**settings_of(base, setting), "attention timed": "1 sequence, 4 heads x 32, float32"},
        tables=(arms_table(found, arms, 3 if setting.quick else 15), cost_table(seconds, held), rates_table(rates)),
        figures={"loss": loss_figure(found), "cost": cost_figure(seconds, held), "speed": rates_figure(rates)},
        claims=(
            *equality_claims(),
            receptive_field_claim(),
            *as_good,
            *growth_claims(seconds, held),
        ),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def equality_claims() -> tuple[Claim, ...]:
    """A window changes what is seen and nothing else, however it is computed."""
    import torch

    from windtunnel.models import TransformerConfig, build
    from windtunnel.nn.attention import attend, attend_reference

    config = TransformerConfig(vocab_size=50, context_length=24, n_layers=2, n_heads=4, d_model=64, dropout=0.0)
    ids = torch.arange(24)[None]
    q, k, v = torch.randn(3, 1, 4, 1000, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        full = build(config, 0).eval()(ids)
        wide = [float((build(config.replace(window=w), 0).eval()(ids) - full).abs().max()) for w in (24, 25, 1000)]
        model = build(config.replace(window=5), 0).eval()
        cache = model.new_cache(1, 24)
        steps = torch.cat([model(ids[:, i : i + 1], cache) for i in range(24)], dim=1)
        cached = float((steps - model(ids)).abs().max())
        blocks = float((attend(q, k, v, window=64) - attend_reference(q, k, v, window=64)[0]).abs().max())
    return (
        equal("000-T2c", "a window of all tokens or more is full attention: logits", "0.0", wide),
        equal("000-T2c", "decoding with a cache equals the full pass, window 5: logits", "", [cached], 1e-5),
        equal("000-T2c", "attention in blocks equals attention under a mask, window 64 of 1,000", "", [blocks], 1e-5),
    )


def receptive_field_claim(n_layers: int = 3, window: int = 3, length: int = 12) -> Claim:
    """Which tokens the last logits depend on, by their gradient: n_layers (w - 1) + 1 of them."""
    import torch

    from windtunnel.models import TransformerConfig, build

    config = TransformerConfig(
        vocab_size=length, context_length=length, n_layers=n_layers, n_heads=2, d_model=16, window=window, dropout=0.0
    )
    model = build(config, 0).eval()
    model(torch.arange(length)[None])[0, -1].sum().backward()
    moved = dict(model.named_parameters())["position.embedding.weight"].grad
    assert moved is not None
    seen = [i for i, gradient in enumerate(moved.abs().sum(dim=1).tolist()) if gradient > 0]
    expected = list(range(length - n_layers * (window - 1) - 1, length))
    shown = f"{seen[0]}..{seen[-1]}, {len(seen)} of {length}"
    statement = f"{n_layers} layers with window {window} see n_layers (w - 1) + 1 = {len(expected)} tokens, by gradient"
    return Claim("000-T2c", statement, "5..11 of 12", shown, exactly(seen == expected), {"seen": seen})


def attention_costs(setting: Setting) -> Generator[Progress, None, tuple[Measured, Measured]]:
    """Seconds and bytes of one call forward and backward, by way and number of tokens; the ways take turns."""
    from windtunnel.experiments.speed_before import peak_bytes, take_turns

    seconds: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    held: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    tokens = (512, 1024) if setting.quick else TOKENS
    for i, n in enumerate(tokens):
        yield Progress("attention alone", i, len(tokens))
        calls = {way: forward_and_backward(way, n) for way in WAYS}
        for way, turns in take_turns(calls, 2 if setting.quick else 7).items():
            seconds[way][n] = turns
            held[way][n] = [float(peak_bytes(calls[way]))]
    yield Progress("attention alone", len(tokens), len(tokens))
    return seconds, held


def forward_and_backward(way: str, n_tokens: int) -> Callable[[], object]:
    """One call of attention with 4 heads of 32 on random vectors, and its gradient."""
    import torch
    import torch.nn.functional as F

    from windtunnel.nn.attention import attend, score_bias

    generator, window = torch.Generator().manual_seed(0), WAYS[way]
    q, k, v = (torch.randn(1, 4, n_tokens, 32, generator=generator, requires_grad=True) for _ in range(3))

    def call() -> object:
        if way == MASKED:
            mask_TT = score_bias(n_tokens, n_tokens, window, None, q)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TT)
        else:
            mixed = attend(q, k, v, window=window)
        return torch.autograd.grad(mixed.sum(), (q, k, v))

    return call


def growth_claims(seconds: Measured, held: Measured) -> list[Claim]:
    """With which power of the number of tokens time and memory grow at a window of 64, and full attention's time."""
    from windtunnel.experiments.speed_before import exponent

    def power(measured: Measured, way: str) -> list[float]:
        tokens, turns = list(measured[way]), zip(*measured[way].values(), strict=True)
        return [exponent(tokens, turn) for turn in turns]

    time, full, masked = (mean_interval(power(seconds, way)) for way in ("window 64", "full", MASKED))
    memory, masked_memory = power(held, "window 64")[0], power(held, MASKED)[0]
    return [
        Claim(
            "000-T2c", "window 64: time grows like T, not T²", "T·w", f"T^{time.estimate:.2f} [{time.low:.2f}, "
            f"{time.high:.2f}]; full T^{full.estimate:.2f}, by a mask T^{masked.estimate:.2f}",
            within(time, 0.75, 1.25), {"window": time, "full": full, "mask": masked},
        ),
        Claim(
            "000-T2c", "window 64: memory grows like T, not T²", "T·w",
            f"T^{memory:.2f}; by a mask T^{masked_memory:.2f}",
            exactly(abs(memory - 1) < 0.1), {"window": memory, "mask": masked_memory},
        ),
    ]  # fmt: skip


def cost_table(seconds: Measured, held: Measured) -> Table:
    """Milliseconds and megabytes by way and number of tokens."""
    rows = tuple(
        (way, *(f"{1e3 * median(turns):,.1f} ms, {held[way][n][0] / 1e6:,.1f} MB" for n, turns in seconds[way].items()))
        for way in seconds
    )
    heads = ("attention", *(f"{n:,} tokens" for n in next(iter(seconds.values()))))
    return Table("Attention alone, forward and backward: median time, and most bytes held at once", heads, rows)


def loss_figure(found: Comparison) -> Figure:
    """Loss against the window with 95 % intervals over the seeds, each seed a thin line; full attention as a band."""
    full, arms = found.baseline, found.arms[1:]
    windows = [arm.settings["model.window"] for arm in arms]
    with drawing(6.4, 3.8) as figure:
        axes = figure.subplots()
        for runs in zip(*(arm.seeds for arm in arms), strict=True):
            axes.plot(windows, [run.loss for run in runs], color=QUIET, linewidth=0.6, alpha=0.5)
        for arm, window in zip(arms, windows, strict=True):
            assert arm.loss is not None
            axes.errorbar(window, arm.loss.estimate, yerr=arm.loss.high - arm.loss.estimate, fmt="o", color="#0072b2",
                          capsize=4, label="mean, 95 % t interval" if arm is arms[0] else None)  # fmt: skip
        assert full.loss is not None
        axes.axhspan(full.loss.low, full.loss.high, color="#d55e00", alpha=0.2, linewidth=0)
        axes.axhline(full.loss.estimate, color="#d55e00", label="full attention")
        axes.set(xscale="log", xlabel="window w, bytes", ylabel=f"dev loss, {found.unit}")
        axes.set_xticks(windows, list(map(str, windows)))
        axes.minorticks_off()
        axes.legend()
    return figure


def cost_figure(seconds: Measured, held: Measured) -> Figure:
    """Time and memory of attention alone against the number of tokens, on log scales."""
    with drawing(9.0, 3.9) as figure:
        time, memory = figure.subplots(1, 2)
        _draw_costs(time, {way: {n: 1e3 * median(t) for n, t in own.items()} for way, own in seconds.items()})
        _draw_costs(memory, {way: {n: held[way][n][0] / 1e6 for n in own} for way, own in held.items()})
        time.set(title="time, forward and backward", ylabel="milliseconds")
        memory.set(title="most memory held at once", ylabel="megabytes")
        figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_costs(axes: Axes, measured: Mapping[str, Mapping[int, float]]) -> None:
    from windtunnel.experiments.speed_before import LOOKS

    for (way, own), (colour, marker) in zip(measured.items(), LOOKS, strict=False):
        axes.plot(list(own), list(own.values()), color=colour, marker=marker, label=way)
    tokens = list(next(iter(measured.values())))
    axes.set(xscale="log", yscale="log", xlabel="tokens T")
    axes.set_xticks(tokens, [f"{n:,}" for n in tokens])
    axes.minorticks_off()

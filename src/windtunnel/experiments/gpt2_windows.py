"""000-T2c: GPT-2 that sees only the last w tokens (sliding windows, Beltagy et al. 2020, arXiv 2004.05150)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from windtunnel.experiments.altered import altered, small_gpt2
from windtunnel.experiments.frame import Claim, Findings, Given, Progress, Row, Setting, Steps, draw, interval, table
from windtunnel.experiments.speed import at_lengths, exponent
from windtunnel.experiments.training import AS_GOOD
from windtunnel.inspect.speed import peak_bytes, take_turns
from windtunnel.models import TransformerConfig, build
from windtunnel.nn.attention import Mask, attend, attend_reference, score_bias
from windtunnel.report.charts import lines
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import mean_interval

ROW = Row("000-T2c")
WINDOWS = (64, 32, 16, 8)
MASKED = "window 64 by a mask of T x T"
WAYS = {"full": None, MASKED: 64, "window 64": 64, "window 256": 256}
TOKENS = (1024, 2048, 4096, 8192)

Measured = Mapping[str, Mapping[int, Sequence[float]]]
"""Of each way to attend, at each number of tokens, the seconds of every turn or the bytes held."""


def gpt2_windows(at: Setting) -> Findings:
    """Sliding windows.

    The same small GPT-2 was trained with full attention and with windows of the last w bytes, on paired seeds.
    Attention alone was timed forward and backward at lengths up to 8,192 tokens, its memory counted.
    """
    yield from equalities()
    yield receptive_field()
    windows = at.size(WINDOWS, quick=WINDOWS[-1:])
    arms = [Arm("full", small_gpt2(at)), *(Arm(f"window={w}", small_gpt2(at, window=w)) for w in windows)]
    says = {f"window={w}": (f"window {w}: no loss that matters", AS_GOOD) for w in windows}
    found = yield from altered(at, ROW, "windows", arms, says)
    full, *means = (arm.loss for arm in found.arms)
    labels: dict[str, Any] = {"xlabel": "window w, bytes", "ylabel": f"dev loss, {found.unit}", "log": "x"}
    curve, across = {"mean, 95 % t interval": (windows, means)}, {"full attention": full and full.estimate}
    yield draw("windows", lines(curve, across, ticks=windows, **labels))
    yield from at_lengths(at, {"full": {}, **{f"window {w}": {"window": w} for w in (256, 64)}})
    seconds, held = yield from attention_costs(at)
    yield Given({"attention timed": "1 sequence, 4 heads x 32, float32"})
    yield from growth(seconds, held)
    yield from costs(seconds, held)


def equalities() -> Findings:
    """A window changes what is seen and nothing else, however it is computed."""
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
        blocks = float((attend(q, k, v, Mask(window=64)) - attend_reference(q, k, v, Mask(window=64))).abs().max())
    yield ROW.equal("a window of all tokens or more is full attention: logits", wide, printed="0.0")
    yield ROW.equal("decoding with a cache equals the full pass, window 5: logits", cached, 1e-5)
    yield ROW.equal("attention in blocks equals attention under a mask, window 64 of 1,000", blocks, 1e-5)


def receptive_field(n_layers: int = 3, window: int = 3, length: int = 12) -> Claim:
    """Which tokens the last logits depend on, by their gradient: n_layers (w - 1) + 1 of them."""
    shape = {"n_layers": n_layers, "n_heads": 2, "d_model": 16, "window": window, "dropout": 0.0}
    model = build(TransformerConfig(vocab_size=length, context_length=length, **shape), 0).eval()
    model(torch.arange(length)[None])[0, -1].sum().backward()
    moved = model.get_parameter("position.embedding.weight").grad
    assert moved is not None
    seen = [i for i, gradient in enumerate(moved.abs().sum(dim=1).tolist()) if gradient > 0]
    expected = list(range(length - n_layers * (window - 1) - 1, length))
    statement = f"{n_layers} layers with window {window} see n_layers (w - 1) + 1 = {len(expected)} tokens, by gradient"
    shown = f"{seen[0]}..{seen[-1]}, {len(seen)} of {length}"
    return ROW.shows(statement, seen == expected, shown, "5..11 of 12", seen=seen)


def attention_costs(at: Setting) -> Steps[tuple[Measured, Measured]]:
    """Seconds and bytes of one call forward and backward, by way and number of tokens; the ways take turns."""
    seconds: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    held: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    tokens = at.size(TOKENS, quick=(512, 1024))
    for i, n in enumerate(tokens):
        yield Progress("attention alone", i, len(tokens))
        calls = {way: forward_and_backward(way, n) for way in WAYS}
        for way, turns in take_turns(calls, at.size(7, quick=2)).items():
            seconds[way][n] = turns
            held[way][n] = [float(peak_bytes(calls[way]))]
    return seconds, held


def forward_and_backward(way: str, n_tokens: int) -> Callable[[], object]:
    """One call of attention with 4 heads of 32 on random vectors, and its gradient."""
    generator, window = torch.Generator().manual_seed(0), WAYS[way]
    q, k, v = (torch.randn(1, 4, n_tokens, 32, generator=generator, requires_grad=True) for _ in range(3))

    def call() -> object:
        if way == MASKED:
            mask_TT = score_bias(n_tokens, n_tokens, Mask(window=window), q)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TT)
        else:
            mixed = attend(q, k, v, Mask(window=window))
        return torch.autograd.grad(mixed.sum(), (q, k, v))

    return call


def growth(seconds: Measured, held: Measured) -> Findings:
    """With which power of the number of tokens time and memory grow at a window of 64, and full attention's time."""

    def powers(measured: Measured, way: str) -> list[float]:
        return [exponent([*measured[way]], turn) for turn in zip(*measured[way].values(), strict=True)]

    time, full, masked = (mean_interval(powers(seconds, way)) for way in ("window 64", "full", MASKED))
    memory, masked_memory = powers(held, "window 64")[0], powers(held, MASKED)[0]
    shown = f"T^{interval(time, '.2f')}; full T^{full.estimate:.2f}, by a mask T^{masked.estimate:.2f}"
    yield ROW.within("window 64: time grows like T, not T²", time, 0.75, 1.25, "T·w", shown)
    shown = f"T^{memory:.2f}; by a mask T^{masked_memory:.2f}"
    linear = abs(memory - 1) < 0.1
    yield ROW.shows("window 64: memory grows like T, not T²", linear, shown, "T·w", window=memory, mask=masked_memory)


def costs(seconds: Measured, held: Measured) -> Findings:
    """Time and memory of attention alone by way and number of tokens: a table, and a figure on log scales."""
    time = {way: {n: 1e3 * median(turns) for n, turns in own.items()} for way, own in seconds.items()}
    memory = {way: {n: bytes / 1e6 for n, [bytes] in own.items()} for way, own in held.items()}
    tokens = [*time["full"]]
    rows = ((way, *(f"{time[way][n]:,.1f} ms, {memory[way][n]:,.1f} MB" for n in tokens)) for way in time)
    title = "Attention alone, forward and backward: median time, and most bytes held at once"
    yield table(title, ("attention", *(f"{n:,} tokens" for n in tokens)), rows)
    panels = [
        lines({way: ([*own], [*own.values()]) for way, own in found.items()}, ticks=tokens, log="xy", title=title,
              xlabel="tokens T", ylabel=unit)
        for found, title, unit in ((time, "time, forward and backward", "milliseconds"),
                                   (memory, "most memory held at once", "megabytes"))
    ]  # fmt: skip
    yield draw("cost", *panels)

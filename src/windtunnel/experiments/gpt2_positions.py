"""000-T2a: rotary positions instead of GPT-2's learned ones, beside sinusoidal, ALiBi and none.

The paper of rotary positions is Su et al. 2021, arXiv 2104.09864; of ALiBi, Press et al. 2022, arXiv 2108.12409.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from windtunnel.errors import DataError
from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature, within
from windtunnel.report.charts import drawing
from windtunnel.stats.intervals import mean_interval, paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.comparison.comparison import Comparison
    from windtunnel.experiments.altered_before import Says

KINDS = ("learned", "sinusoidal", "rope", "alibi", "none")
TIMES = (1, 2, 4)
"""How many times the context of training the windows are, in which the trained models read the dev split."""
ROTARY_ROUNDING = 1e-4
"""Angles are float32: at position 1,000 they are right to about 6e-5 radians."""

Losses = Mapping[str, Mapping[int, list[float]]]
"""Of each arm, at each number of contexts, the dev loss of every seed; none where it cannot read so far."""


def gpt2_positions(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Do rotary positions replace learned ones, and which positions reach past the training context?"""
    from windtunnel.experiments.altered_before import arms_table, judged_claims, n_seeds, settings_of, small_gpt2
    from windtunnel.experiments.training_before import compared
    from windtunnel.report.comparison_figure import comparison_figure
    from windtunnel.runs.arms import vary

    base, kinds = small_gpt2(setting), ("learned", "rope", "none") if setting.quick else KINDS
    arms = vary(base, [f"model.position={','.join(kinds)}"])
    found = yield from compared("positions", arms, n_seeds(setting), setting)
    losses = yield from at_longer_windows(found, base.model.context_length)
    says: Says = {f"position={kind}": (f"{kind}: a lower loss than learned positions", ["better"]) for kind in KINDS}
    says["position=none"] = ("none: a higher loss than learned positions", ["worse"])
    return Outcome(
        title="Positions: learned, sinusoidal, rotary, ALiBi, none",
        what="The same small GPT-2 was trained with five ways to tell a token where it stands, on paired seeds. Then "
        "it read the held-out files again in windows longer than those of its training.",
        settings=settings_of(base, setting),
        tables=(arms_table(found, arms, 3 if setting.quick else 15), window_table(losses)),
        figures={"loss": comparison_figure(found), "longer-windows": window_figure(losses)},
        claims=(
            parameter_claim(),
            *rotary_claims(),
            *judged_claims("000-T2a", found, says),
            *window_claims(losses, found.rule.margin),
        ),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def parameter_claim() -> Claim:
    """GPT-2 small without its table of positions."""
    from windtunnel.experiments.altered_before import n_parameters
    from windtunnel.models import TransformerConfig

    n, before = n_parameters(TransformerConfig(position="rope")), n_parameters(TransformerConfig())
    measured = f"{n:,}, which is {before - n:,} fewer"
    return Claim(
        "000-T2a", "parameters of GPT-2 small with rotary positions", "123,653,376", measured,
        exactly(n == 123_653_376), {"rope": n, "learned": before},
    )  # fmt: skip


def rotary_claims(d_head: int = 64, n: int = 1000) -> tuple[Claim, ...]:
    """What rotating queries and keys does, on random vectors at positions below n."""
    import torch

    from windtunnel.nn.positions import rotate, rotation

    q, k = torch.randn(2, d_head, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = (rotate(x.expand(1, 1, n, d_head), rotation(torch.arange(n), d_head))[0, 0] for x in (q, k))
    products = turned_q @ turned_k.T / (q.norm() * k.norm())  # of every m with every n
    spread = [float(row.max() - row.min()) for row in (products.diagonal(gap) for gap in range(-n + 2, n - 1))]
    lengths = [float((turned_q.norm(dim=1) / q.norm() - 1).abs().max())]
    shown = "cosines, float32 angles"
    return (
        equal("000-T2a", "q(m)·k(n) depends on m - n only", "1.2e-13", [max(spread)], ROTARY_ROUNDING, shown),
        equal("000-T2a", "a rotation keeps the length", "0.0", lengths),
        equal("000-T2a", "at position 0 it is the identity", "identity", [float((turned_q[0] - q).abs().max())]),
    )


def at_longer_windows(found: Comparison, context_length: int) -> Generator[Progress, None, Losses]:
    """Each trained model reads the dev split again with `TIMES` as much before a token as in training."""
    from pathlib import Path

    from windtunnel.training.evaluate import evaluate
    from windtunnel.training.run import load

    losses: dict[str, dict[int, list[float]]] = {}
    store, runs = None, [(arm, run) for arm in found.arms for run in arm.seeds]
    for i, (arm, run) in enumerate(runs):
        yield Progress("longer windows", i, len(runs))
        own = losses.setdefault(arm.name.removeprefix("position="), {times: [] for times in TIMES})
        trained = load(Path(run.folder))
        store = store or trained.run.store()
        for times in TIMES:
            try:
                own[times].append(evaluate(trained.model, store, "dev", times * context_length, trained.step).loss)
            except DataError:  # learned positions end
                continue
    yield Progress("longer windows", len(runs), len(runs))
    return losses


def window_claims(losses: Losses, margin: float) -> list[Claim]:
    """Who can read past the context of training, and at what loss."""
    unreadable = [times for times in TIMES if not losses["learned"][times]]
    refused = ", ".join(f"{times} contexts" for times in unreadable)
    cannot = Claim(
        "000-T2a", "learned: positions past the training context cannot be read", "", f"refused: {refused or 0}",
        exactly(unreadable == list(TIMES[1:])), {"refused": unreadable},
    )  # fmt: skip
    claims = [cannot]
    for kind, own in losses.items():
        for times in TIMES[1:] if own[TIMES[-1]] else ():
            rise = paired_difference(own[1], own[times])
            statement = f"{kind}: at {times} contexts the loss is no higher than at one"
            shown = f"{rise.estimate:+.4f} [{rise.low:+.4f}, {rise.high:+.4f}] nats a token"
            verdict = within(rise, -math.inf, margin)
            claims.append(Claim("000-T2a", statement, "", shown, verdict, {"rise": rise, "margin": margin}))
    return claims


def window_table(losses: Losses) -> Table:
    """The loss of every arm at every length of the windows."""
    heads = ("position", *(f"{times} context{'s' * (times > 1)}" for times in TIMES))
    rows = tuple((kind, *(_cell(own[times]) for times in TIMES)) for kind, own in losses.items())
    return Table("Dev loss in windows longer than those of training, nats a token", heads, rows)


def _cell(values: list[float]) -> str:
    if not values:
        return "cannot"
    found = mean_interval(values)
    return f"{found.estimate:.4f} [{found.low:.4f}, {found.high:.4f}]"


def window_figure(losses: Losses) -> Figure:
    """Loss against the length of the windows, with 95 % intervals over the seeds."""
    from windtunnel.experiments.speed_before import LOOKS

    with drawing(6.8, 3.8) as figure:
        axes = figure.subplots()
        for (kind, own), (colour, marker) in zip(losses.items(), LOOKS, strict=False):
            read = {times: mean_interval(values) for times, values in own.items() if values}
            means = [found.estimate for found in read.values()]
            spans = [[found.estimate - found.low for found in read.values()]] * 2  # a t interval is symmetric
            name = kind if TIMES[-1] in read else f"{kind} (cannot read more)"
            axes.errorbar(list(read), means, yerr=spans, color=colour, marker=marker, capsize=3, label=name)
        axes.set(xscale="log", xlabel="length of the windows, in contexts of training", ylabel="dev loss, nats a token")
        axes.set_xticks(TIMES, [str(times) for times in TIMES])
        axes.minorticks_off()
        figure.legend(loc="outside right center")
    return figure

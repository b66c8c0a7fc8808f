"""000-T2a: rotary positions instead of GPT-2's learned ones, beside sinusoidal, ALiBi and none.

The paper of rotary positions is Su et al. 2021, arXiv 2104.09864; of ALiBi, Press et al. 2022, arXiv 2108.12409.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from windtunnel.comparison.comparison import Comparison
from windtunnel.errors import DataError
from windtunnel.experiments.altered import altered, small_gpt2
from windtunnel.experiments.frame import Claim, Findings, Progress, Row, Setting, Steps, draw, interval, table
from windtunnel.models import TransformerConfig
from windtunnel.nn import positions
from windtunnel.report.charts import lines
from windtunnel.runs.arms import vary
from windtunnel.stats.intervals import mean_interval, paired_difference
from windtunnel.tasks import Language
from windtunnel.training.evaluate import evaluate
from windtunnel.training.run import load

ROW = Row("000-T2a")
KINDS = ("learned", "sinusoidal", "rope", "alibi", "none")
TIMES = (1, 2, 4)
"""How many times the context of training the windows are, in which the trained models read the dev split."""
ROTARY_ROUNDING = 1e-4
"""Angles are float32: at position 1,000 they are right to about 6e-5 radians."""

Losses = Mapping[str, Mapping[int, list[float]]]
"""Of each arm, at each number of contexts, the dev loss of every seed; none where it cannot read so far."""


def gpt2_positions(at: Setting) -> Findings:
    """Positions: learned, sinusoidal, rotary, ALiBi, none.

    The same small GPT-2 was trained with five ways to tell a token where it stands, on paired seeds. Then it read the
    held-out files again in windows longer than those of its training.
    """
    yield parameters()
    yield from rotations()
    base, kinds = small_gpt2(at), at.size(KINDS, quick=("learned", "rope", "none"))
    arms = vary(base, [f"model.position={','.join(kinds)}"])
    says = {f"position={kind}": (f"{kind}: a lower loss than learned positions", ["better"]) for kind in KINDS}
    says["position=none"] = ("none: a higher loss than learned positions", ["worse"])
    found = yield from altered(at, ROW, "positions", arms, says)
    losses = yield from at_longer_windows(found, base.model.context_length)
    yield from longer_windows(losses, found.rule.margin)


def parameters() -> Claim:
    """GPT-2 small without its table of positions."""
    n, before = TransformerConfig(position="rope").n_parameters(), TransformerConfig().n_parameters()
    statement, shown = "parameters of GPT-2 small with rotary positions", f"{{}}, which is {before - n:,} fewer"
    return ROW.same(statement, n, 123_653_376, shown)


def rotations(d_head: int = 64, n: int = 1000) -> Findings:
    """What rotating queries and keys does, on random vectors at positions below n."""
    q, k = torch.randn(2, d_head, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    angles = positions.rotation(torch.arange(n), d_head)
    turned_q, turned_k = (positions.rotate(x.expand(1, 1, n, d_head), angles)[0, 0] for x in (q, k))
    products = turned_q @ turned_k.T / (q.norm() * k.norm())  # of every m with every n
    spread = max(float(row.max() - row.min()) for row in (products.diagonal(gap) for gap in range(-n + 2, n - 1)))
    length = float((turned_q.norm(dim=1) / q.norm() - 1).abs().max())
    shown = "cosines, float32 angles"
    yield ROW.equal("q(m)·k(n) depends on m - n only", spread, ROTARY_ROUNDING, "1.2e-13", shown)
    yield ROW.equal("a rotation keeps the length", length, printed="0.0")
    yield ROW.equal("at position 0 it is the identity", float((turned_q[0] - q).abs().max()), printed="identity")


def at_longer_windows(found: Comparison, context_length: int) -> Steps[Losses]:
    """Each trained model reads the dev split again with `TIMES` as much before a token as in training."""
    losses: dict[str, dict[int, list[float]]] = {}
    store, runs = None, [(arm, run) for arm in found.arms for run in arm.seeds]
    for i, (arm, run) in enumerate(runs):
        yield Progress("longer windows", i, len(runs))
        own = losses.setdefault(arm.name.removeprefix("position="), {times: [] for times in TIMES})
        loaded = load(Path(run.folder))
        store = store or loaded.run.store()
        for times in TIMES:
            task = Language(store, loaded.run.config.model.replace(context_length=times * context_length))
            try:
                own[times].append(evaluate(loaded.model, task, "dev", loaded.step).loss)
            except DataError:  # learned positions end
                continue
    return losses


def longer_windows(losses: Losses, margin: float) -> Findings:
    """Who can read past the context of training, and at what loss."""
    refused = [times for times in TIMES if not losses["learned"][times]]
    shown = f"refused: {', '.join(f'{times} contexts' for times in refused) or 0}"
    statement = "learned: positions past the training context cannot be read"
    yield ROW.shows(statement, refused == list(TIMES[1:]), shown, refused=refused)
    for kind, own in losses.items():
        for times in TIMES[1:] if own[TIMES[-1]] else ():
            rise = paired_difference(own[1], own[times])
            statement = f"{kind}: at {times} contexts the loss is no higher than at one"
            yield ROW.within(statement, rise, high=margin, shown=f"{interval(rise, '+.4f')} nats per token")
    means = {kind: {n: mean_interval(x) for n, x in own.items() if x} for kind, own in losses.items()}
    heads = ("position", *(f"{times} context{'s' * (times > 1)}" for times in TIMES))
    rows = ((kind, *(own.get(times, "cannot") for times in TIMES)) for kind, own in means.items())
    yield table("Dev loss in windows longer than those of training, nats per token", heads, rows)
    curves = {kind if TIMES[-1] in own else f"{kind} (cannot read more)": ([*own], [*own.values()])
              for kind, own in means.items()}  # fmt: skip
    xlabel, ylabel = "length of the windows, in contexts of training", "dev loss, nats per token"
    yield draw("longer-windows", lines(curves, ticks=TIMES, log="x", xlabel=xlabel, ylabel=ylabel))

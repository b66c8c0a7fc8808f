"""002-4: the attention weights of three words by hand, and what dividing by √d_k does to the variance of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.inspect.explain_attention import Head, explain_row, variance_of_scores
from windtunnel.inspect.explain_head import variances
from windtunnel.report.charts import heat, lines
from windtunnel.stats.intervals import mean_interval

ROW, E17 = Row("002-4"), Row("E17")
ROWS = ((0.5047, 0.1876, 0.3077), (0.6624, 0.0915, 0.2461), (0.5874, 0.1331, 0.2796))
SCORES = ((28.3, 26.9, 27.6), (24.2, 21.4, 22.8), (26.25, 24.15, 25.2))
UNSCALED = (0.5737, 0.1415, 0.2849)
WIDTHS = {2: 1.99, 3: 3.04, 8: 8.16, 64: 63.3}
"""d_k and the variance of the unscaled scores that was measured once for it."""


def attention_by_hand(at: Setting) -> Findings:
    """Attention by hand.

    The scores, their scaling and the softmax of row 002-4 were computed in float64; then the variance of scores before
    and after the scaling, for data that is not random, and for independent q and k.
    """
    n_seeds = at.size(40, quick=8)
    yield Given({"data seeds": n_seeds, "d_k": list(WIDTHS), "queries and keys": 500})
    head = explain_row()
    yield from weights(head)
    yield from ratios(head)
    grown = []
    for i in range(n_seeds):
        yield Progress("random scores", i, n_seeds)
        grown.append([variance_of_scores(d, seed=1000 * at.seed + i) for d in WIDTHS])
    yield from growth(np.array(grown))


def weights(head: Head) -> Findings:
    """002-4: scores, weights, and who attends to whom."""
    scores, weights = head.matrix("scores"), head.matrix("weights").tolist()
    unscaled = scores.softmax(dim=-1)
    first = unscaled[:1].tolist()
    yield ROW.equal("the scores q kᵀ", gaps(scores.tolist(), SCORES), 1e-9, str(SCORES), shown(scores.tolist(), ".4g"))
    yield ROW.equal("the weights, row by row", gaps(weights, ROWS), 5e-5, str(ROWS), shown(weights, ".4f"))
    yield ROW.equal("row 1 without the scaling", gaps(first, [UNSCALED]), 5e-5, str(UNSCALED), shown(first, ".4f"))
    he, likes, _ = head.tokens
    looks, looked_at = head.looks_at[0], head.looked_at_by[1]
    said = f'its largest weight, {max(weights[0]):.4f}, is on "{head.tokens[looks]}"; '
    said += f'"{likes}" gets its smallest, {weights[0][1]:.4f}'
    statement, printed = f'"{he}" attends most to "{likes}"', f'"{he}" to "{likes}"'
    yield ROW.shows(f"{statement}: its row", looks == 1, said, printed, row=weights[0])
    column = [row[1] for row in weights]
    said = f'nobody gives "{likes}" more than "{head.tokens[looked_at]}": {", ".join(f"{x:.4f}" for x in column)}'
    yield ROW.shows(f'{statement}: the column of "{likes}"', looked_at == 0, said, printed, column=column)
    asks, answers = head.tokens[head.query], head.tokens[head.key]
    steps = ((str(i), step) for i, step in enumerate(head.steps, start=1))
    yield table(f'One weight step by step: "{asks}" looking at "{answers}"', ("step", "numbers"), steps)
    labels: dict[str, str] = {"xlabel": "looked at", "ylabel": "who looks"}
    maps = (("softmax(scores / √d_k)", weights), ("softmax(scores), unscaled", unscaled))
    yield draw("weights", *(heat(own, head.tokens, title=title, **labels) for title, own in maps))


def ratios(head: Head) -> Findings:
    """E17: what the scaling does to the variance of any scores."""
    assert head.variances is not None
    assert head.variance_ratio is not None
    before, after = head.variances
    said = f"{before:.4f} / {after:.4f} = {head.variance_ratio:.4f}"
    statement = "scaling divides the variance by about 2"
    yield ROW.equal(statement, abs(head.variance_ratio - 2), 1e-9, "2", said)
    found = any_data()
    said = "; ".join(f"{name}: {ratio:.4f}" for name, (ratio, _) in found.items())
    far = [abs(ratio / d - 1) for ratio, d in found.values()]
    yield E17.equal("not about, but exactly d_k, whatever the data", far, 1e-9, "approximately 2", said)


def growth(grown: np.ndarray) -> Findings:
    """E17: the variance itself (seeds, widths) for independent data, and for data that is not."""
    for (d, once), own in zip(WIDTHS.items(), grown.T, strict=True):
        over = mean_interval((own / d).tolist())
        statement = f"independent q and k: the unscaled variance is d_k = {d}"
        yield E17.within(statement, over, 0.95, 1.05, f"{once}", f"{own.mean():.4g}; over d_k {{}}")
    alike = alike_data()
    holds = all(abs(variance / d - 1) < 0.05 for variance, d in alike.values())
    said = "; ".join(f"{name}: {variance:.4g} at d_k {d}" for name, (variance, d) in alike.items())
    variance = {name: variance for name, (variance, _) in alike.items()}
    yield E17.shows("the unscaled variance grows like d_k for any data", holds, said, variance=variance)
    widths = np.array([*WIDTHS])
    curves = {"d_k": (widths, widths), "scores": (widths, grown), "scores / √d_k": (widths, grown / widths)}
    yield draw("variance", lines(curves, ticks=[*WIDTHS], joined=["d_k"], log="xy", xlabel="d_k", ylabel="variance"))


def any_data() -> dict[str, tuple[float, int]]:
    """Variance before over variance after the scaling, for scores that are nothing like normal or independent."""
    places = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    data = {
        ("counting up", 3): torch.arange(25.0, dtype=torch.float64).reshape(5, 5),
        ("one large", 8): torch.eye(6, dtype=torch.float64) * 1e3,
        ("Cauchy", 64): torch.tan(torch.pi * (places - 0.5)).reshape(9, 11),  # has no variance at all
    }
    found = {}
    for (name, d), scores in data.items():
        both = variances(scores, torch.ones(scores.shape, dtype=torch.bool), d)
        assert both is not None
        found[f"{name}, d_k {d}"] = (both[0] / both[1], d)
    return found


def alike_data() -> dict[str, tuple[float, int]]:
    """Unscaled variance where the components of q and k are copies of one another: d_k squared, not d_k."""
    found = {}
    for d in (8, 64):
        q, k = torch.randn(2, 500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(2, 500, d)
        found[f"all components equal, d_k {d}"] = (float((q @ k.T).var()), d)
    return found


def gaps(found: Any, published: Sequence[Sequence[float]]) -> list[float]:
    """How far each number lies from the printed one."""
    return np.abs(np.array(found) - np.array(published)).ravel().tolist()


def shown(rows: Sequence[Sequence[float]], form: str) -> str:
    """Numbers in rows, on one line."""
    return " / ".join(" ".join(f"{x:{form}}" for x in row) for row in rows)

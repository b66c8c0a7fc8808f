"""002-4: the attention weights of three words by hand, and what dividing by √d_k does to the variance of the scores."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature, within
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.stats.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.inspect.explain_attention import Head

ROWS = ((0.5047, 0.1876, 0.3077), (0.6624, 0.0915, 0.2461), (0.5874, 0.1331, 0.2796))
SCORES = ((28.3, 26.9, 27.6), (24.2, 21.4, 22.8), (26.25, 24.15, 25.2))
UNSCALED = (0.5737, 0.1415, 0.2849)
WIDTHS = {2: 1.99, 3: 3.04, 8: 8.16, 64: 63.3}
"""d_k and the variance of the unscaled scores that was measured once for it."""


def attention_by_hand(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Do the weights come out by hand, and is the ratio of variances d_k?"""
    from windtunnel.inspect.explain_attention import explain_row, variance_of_scores

    n_seeds = 8 if setting.quick else 40
    head, grown = explain_row(), []
    for i in range(n_seeds):
        yield Progress("random scores", i, n_seeds)
        grown.append([variance_of_scores(d, seed=1000 * setting.seed + i) for d in WIDTHS])
    yield Progress("random scores", n_seeds, n_seeds)
    return Outcome(
        title="Attention by hand",
        what="The scores, their scaling and the softmax of row 002-4 were computed in float64; then the variance of "
        "scores before and after the scaling, for data that is not random, and for independent q and k.",
        settings={"data seeds": n_seeds, "d_k": list(WIDTHS), "queries and keys": 500},
        tables=(step_table(head),),
        figures={"weights": weight_figure(head), "variance": variance_figure(np.array(grown))},
        claims=(*weight_claims(head), *variance_claims(head, np.array(grown))),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def weight_claims(head: Head) -> list[Claim]:
    """002-4: scores, weights, and who attends to whom."""
    scores, weights = head.matrix("scores").tolist(), head.matrix("weights").tolist()
    unscaled = head.matrix("scores").softmax(dim=-1)[0].tolist()
    he, likes, _ = head.tokens
    return [
        equal("002-4", "the scores q kᵀ", str(SCORES), gaps(scores, SCORES), 1e-9, shown=shown(scores, ".4g")),
        equal("002-4", "the weights, row by row", str(ROWS), gaps(weights, ROWS), 5e-5, shown=shown(weights, ".4f")),
        equal(
            "002-4", "row 1 without the scaling", str(UNSCALED), gaps([unscaled], [UNSCALED]), 5e-5,
            shown=shown([unscaled], ".4f"),
        ),
        Claim(
            "002-4", f'"{he}" attends most to "{likes}": its row', f'"{he}" to "{likes}"',
            f'its largest weight, {max(weights[0]):.4f}, is on "{head.tokens[head.looks_at[0]]}"; '
            f'"{likes}" gets its smallest, {weights[0][1]:.4f}',
            exactly(head.looks_at[0] == 1), {"row": weights[0], "argmax": head.looks_at[0]},
        ),
        Claim(
            "002-4", f'"{he}" attends most to "{likes}": the column of "{likes}"', f'"{he}" to "{likes}"',
            f'nobody gives "{likes}" more than "{head.tokens[head.looked_at_by[1]]}": '
            f"{', '.join(f'{row[1]:.4f}' for row in weights)}",
            exactly(head.looked_at_by[1] == 0), {"column": [row[1] for row in weights]},
        ),
    ]  # fmt: skip


def variance_claims(head: Head, grown: np.ndarray) -> list[Claim]:
    """E17: the ratio for any data, and the variance itself (seeds, widths) for independent data."""
    assert head.variances is not None
    assert head.variance_ratio is not None
    before, after = head.variances
    ratios = any_data()
    claims = [
        equal(
            "002-4", "scaling divides the variance by about 2", "2", [abs(head.variance_ratio - 2)], 1e-9,
            shown=f"{before:.4f} / {after:.4f} = {head.variance_ratio:.4f}",
        ),
        equal(
            "E17", "not about, but exactly d_k, whatever the data", "approximately 2",
            [abs(ratio / d - 1) for ratio, d in ratios.values()], 1e-9,
            shown="; ".join(f"{name}: {ratio:.4f}" for name, (ratio, _) in ratios.items()),
        ),
    ]  # fmt: skip
    for column, (d, once) in enumerate(WIDTHS.items()):
        found = mean_interval((grown[:, column] / d).tolist())
        claims.append(Claim(
            "E17", f"independent q and k: the unscaled variance is d_k = {d}", f"{once}",
            f"{grown[:, column].mean():.4g}; over d_k {found}", within(found, 0.95, 1.05), {"over_d": found},
        ))  # fmt: skip
    alike = alike_data()
    claims.append(Claim(
        "E17", "the unscaled variance grows like d_k for any data", "",
        "; ".join(f"{name}: {variance:.4g} at d_k {d}" for name, (variance, d) in alike.items()),
        exactly(all(abs(variance / d - 1) < 0.05 for variance, d in alike.values())),
        {name: variance for name, (variance, _) in alike.items()},
    ))  # fmt: skip
    return claims


def any_data() -> dict[str, tuple[float, int]]:
    """Variance before over variance after the scaling, for scores that are nothing like normal or independent."""
    import torch

    from windtunnel.inspect.explain_head import variances

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
    import torch

    found = {}
    for d in (8, 64):
        q, k = torch.randn(2, 500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(2, 500, d)
        found[f"all components equal, d_k {d}"] = (float((q @ k.T).var()), d)
    return found


def gaps(found: Sequence[Sequence[float]], published: Sequence[Sequence[float]]) -> list[float]:
    """How far each number lies from the printed one."""
    return np.abs(np.array(found) - np.array(published)).ravel().tolist()


def shown(rows: Sequence[Sequence[float]], form: str) -> str:
    return " / ".join(" ".join(f"{x:{form}}" for x in row) for row in rows)


def step_table(head: Head) -> Table:
    """The numbers put into the formulas, for one entry."""
    rows = tuple((str(i), step) for i, step in enumerate(head.steps, start=1))
    asks, answers = head.tokens[head.query], head.tokens[head.key]
    return Table(f'One weight step by step: "{asks}" looking at "{answers}"', ("step", "numbers"), rows)


def weight_figure(head: Head) -> Figure:
    """The weights with and without the scaling: one row for each word that looks."""
    weights = {
        "softmax(scores / √d_k)": head.matrix("weights"),
        "softmax(scores), unscaled": head.matrix("scores").softmax(dim=-1),
    }
    with drawing(7.6, 3.4) as figure:
        for axes, (title, values) in zip(figure.subplots(1, 2), weights.items(), strict=True):
            axes.pcolormesh(values.numpy(), cmap="Blues", vmin=0, vmax=1)
            for i, row in enumerate(values.tolist()):
                for j, weight in enumerate(row):
                    axes.text(j + 0.5, i + 0.5, f"{weight:.4f}", ha="center", va="center",
                              color="white" if weight > 0.65 else "black")  # fmt: skip
            axes.set_xticks([0.5, 1.5, 2.5], head.tokens)
            axes.set_yticks([0.5, 1.5, 2.5], head.tokens)
            axes.set(xlabel="looked at", title=title, ylim=(3, 0), aspect="equal")
            axes.tick_params(length=0)
            axes.grid(False)
        figure.axes[0].set_ylabel("who looks")
    return figure


def variance_figure(grown: np.ndarray) -> Figure:
    """Variance of the scores against d_k, before and after the scaling, over the data seeds."""
    widths = list(WIDTHS)
    with drawing(6.0, 3.8) as figure:
        axes = figure.subplots()
        axes.plot(widths, widths, color=QUIET, linestyle="--", linewidth=1, label="d_k")
        for values, colour, marker, name in (
            (grown, TRAIN, "o", "scores"),
            (grown / np.array(widths), DEV, "s", "scores / √d_k"),
        ):
            axes.errorbar(widths, values.mean(axis=0), yerr=2 * values.std(axis=0), fmt=marker, color=colour,
                          capsize=3, label=f"{name}, ± 2 deviations of the seeds")  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set(xlabel="d_k", ylabel="variance, independent N(0, 1) in q and k")
        axes.legend(loc="upper left", fontsize=9)
    return figure

"""000-Q4: which of three ways to choose stories to train on is best, at the source's own reading and over a grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from windtunnel.comparison.verdict import Rule, judge
from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.labelling.stories import D, Dials, World, accuracies
from windtunnel.report.charts import PALETTE, Panel, dots
from windtunnel.stats.intervals import Estimate, mean_interval, paired_difference
from windtunnel.text.features import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Q4, E4 = Row("000-Q4"), Row("E4")
SOURCE = "2 > 3 > 1"
MARGIN = 0.01
"""A difference below a point of accuracy does not matter."""
MODELS = {
    "linear rule": ("linear", "linear", 1.0),
    "linear rule, hardly penalised": ("linear", "linear", 1e-4),
    "curved rule, linear model": ("curved", "linear", 1.0),
    "curved rule, quadratic model": ("curved", "quadratic", 1.0),
}
"""The world's rule, V2's model and the L2 penalty on its weights."""
SHIFTS, WRONG = (0.0, 1.0, 2.0), (0.0, 0.05, 0.2)
SIZES = {"1 % chosen": (500, 0.5), "5 % chosen": (2500, 0.5), "1 % chosen, a tenth positive": (500, 0.1)}
"""How many stories of the pool are chosen, and the share of positive ones."""
POOL = 50_000
KEPT = {False: "V1's stories left out", True: "V1's stories kept"}

Key = tuple[str, str, float, float, bool]
"""Model, size, shift, share of wrong labels, and whether V1's stories are kept."""
Grid = Mapping[Key, Floats]
"""Accuracy of V1 and of V2 by ways 1, 2 and 3, a row a seed: (S, 4)."""
Words = Mapping[tuple[int, int], str]
"""For each two ways, in both orders, how the first is against the second."""
MIRRORED = {"better": "worse", "worse": "better"}


def what_to_label(at: Setting) -> Findings:
    """Three ways to choose the stories that a second version is trained on.

    V1 was trained on one source of 1,000. V2 is trained on stories of a pool of all sources: (1) those nearest to V1's
    decision boundary, (2) random ones, (3) those that V1 gets wrong with the most confidence. Stories are made-up
    numbers; V2 is judged on 20,000 more with right labels. Every setting has the same stories for all three ways.
    """
    pool, chosen = at.size((1_000_000, 10_000), quick=(100_000, 1000))
    seeds, grid_seeds = at.seeds(16, quick=4), at.seeds(16, quick=4)
    models = at.size([*MODELS], quick=["linear rule", "curved rule, linear model"])
    sizes, shifts = at.size([*SIZES], quick=["1 % chosen"]), at.size(SHIFTS, quick=(0.0, 2.0))
    yield Given({
        "sources": 1000, "numbers a story": D, "margin": MARGIN, "seeds": len(seeds),
        "own reading": f"{pool:,} stories, {chosen:,} chosen, shift 1, curved rule, linear model",
        "grid": {"models": models, "sizes": sizes, "shifts": shifts, "wrong labels": WRONG, "pool": POOL},
    })  # fmt: skip
    yield from own_reading(seeds, pool, chosen)
    found: dict[Key, list[list[float]]] = {}
    for i, seed in enumerate(grid_seeds):
        yield Progress("settings of the grid, seeds", i, len(grid_seeds))
        for key, row in one_seed(models, sizes, shifts, seed):
            found.setdefault(key, []).append(row)
    yield from over_the_grid({key: np.array(rows) for key, rows in found.items()})


def own_reading(seeds: Sequence[int], pool: int, chosen: int) -> Findings:
    """1,000 sources, 10,000 of a million stories: the source's numbers; what it leaves open is tried both ways."""
    dials = [Dials(wrong=wrong, kept=kept, chosen=chosen) for kept in KEPT for wrong in (0.0, 0.05)]
    rows = []
    for i, seed in enumerate(seeds):
        yield Progress("the source's own reading, seeds", i, len(seeds))
        rows.append(accuracies(World(), dials, pool, seed))
    found = {
        f"{KEPT[d.kept]}, {100 * d.wrong:g} % wrong": own
        for d, own in zip(dials, np.array(rows).swapaxes(0, 1), strict=True)
    }
    orders = {name: order(own, words(own)) for name, own in found.items()}
    for name, own in found.items():
        for a, b in ((2, 3), (3, 1)):
            yield Q4.within(f"{name}: way {a} beats way {b}", difference(own, a, b), 0.0, printed=SOURCE,
                            shown=f"{orders[name]}; {a} minus {b}: {{}}")  # fmt: skip
    heads = ("setting", "order", "V1", *(f"V2, way {way}" for way in (1, 2, 3)))
    means = {name: [mean_interval(column.tolist()) for column in own.T] for name, own in found.items()}
    yield table("Accuracy at the source's own reading", heads, ((n, orders[n], *e) for n, e in means.items()))
    series = {f"way {way}": {name: own[way] for name, own in means.items()} for way in (1, 2, 3)}
    yield draw("own-reading", dots(series, [*found], xlabel="accuracy, 95 % intervals"), size=(9.0, 4.4))


def one_seed(
    models: Iterable[str], sizes: Iterable[str], shifts: Iterable[float], seed: int
) -> Iterable[tuple[Key, list[float]]]:  # fmt: skip
    """One row of accuracies for each setting of the grid."""
    for shift, size, model in product(shifts, sizes, models):
        rule, kind, penalty = MODELS[model]
        chosen, positive = SIZES[size]
        dials = [Dials(kind, penalty, wrong, kept, chosen) for wrong, kept in product(WRONG, KEPT)]
        rows = accuracies(World(rule, shift, positive), dials, POOL, seed)
        yield from (((model, size, shift, d.wrong, d.kept), row) for d, row in zip(dials, rows, strict=True))


def difference(own: Floats, a: int, b: int) -> Estimate:
    """Way a minus way b over paired seeds; accuracies (S, 4)."""
    return paired_difference(own[:, b].tolist(), own[:, a].tolist())


def words(own: Floats) -> Words:
    """For each two ways whether the first is better, worse, no different by a point, or undecided.

    Judged as arms of a comparison are, with Holm's correction for the three pairs; accuracies (S, 4).
    """
    pairs = ((1, 2), (2, 3), (1, 3))
    judged = judge({f"{i}{j}": (own[:, i] - own[:, j]).tolist() for i, j in pairs}, Rule(MARGIN, better="higher"))
    found = {pair: verdict.word for pair, verdict in zip(pairs, judged, strict=True)}
    return {**found, **{(j, i): MIRRORED.get(word, word) for (i, j), word in found.items()}}


def order(own: Floats, found: Words) -> str:
    """The ways from best to worst by their means; > where neighbours are shown to differ, = where by less than a point.

    And ? where the seeds do not decide.
    """
    first, second, third = (int(way) for way in 1 + np.argsort(-own[:, 1:].mean(axis=0)))
    marks = {"better": ">", "no difference that matters": "="}
    between = [marks.get(found[pair], "?") for pair in ((first, second), (second, third))]
    return f"{first} {between[0]} {second} {between[1]} {third}"


def contradicts(found: Words) -> bool:
    """Whether a pair is shown to be the other way round than in the published order."""
    return any(found[pair] == "worse" for pair in ((2, 3), (2, 1), (3, 1)))


def last(found: Words) -> bool:
    """Whether way 3 is shown to be worse than both others."""
    return found[3, 1] == found[3, 2] == "worse"


def said(key: Key, own: Floats, order: str) -> dict[str, Any]:
    """A setting with its order and the differences behind it, for programs."""
    model, size, shift, wrong, kept = key
    pairs = {f"{a} minus {b}": difference(own, a, b) for a, b in ((1, 2), (2, 3), (3, 1))}
    return {"model": model, "size": size, "shift": shift, "wrong": wrong, "kept": kept, "order": order, **pairs}


def over_the_grid(grid: Grid) -> Findings:
    """Which order comes out where, and what follows for the published one."""
    found = {key: words(own) for key, own in grid.items()}
    orders = {key: order(own, found[key]) for key, own in grid.items()}
    n, counted = len(orders), Counter(orders.values())
    shown = ", ".join(f"{name}: {k}" for name, k in counted.most_common())
    once, against = counted[SOURCE], sum(map(contradicts, found.values()))
    statement = f"{SOURCE} in every setting of the grid"
    measured = f"{once} of {n}, {against} contradict it; {shown}"
    settings = [said(key, own, orders[key]) for key, own in grid.items()]
    yield E4.shows(statement, once == n, measured, SOURCE, orders=dict(counted), settings=settings)
    yield E4.shows(f"{SOURCE} in no setting of the grid", once == 0, f"{once} of {n}", settings=once)
    worst = sum(map(last, found.values()))
    yield E4.shows("way 3 is shown to be last in every setting", worst == n, f"{worst} of {n}", settings=worst)
    clean, noisy = (grid["linear rule", "1 % chosen", 0.0, wrong, True] for wrong in WRONG[:2])
    fallen = paired_difference(clean[:, 3].tolist(), noisy[:, 3].tolist())
    statement = "5 % wrong labels cost way 3 at least 20 points (linear rule, no shift, V1's stories kept)"
    yield E4.within(statement, fallen, high=-0.2)
    for kept, title in KEPT.items():
        own = Counter(name for key, name in orders.items() if key[-1] == kept)
        yield table(f"How often each order comes out: {title}", ("order", "settings"), own.most_common())
    for size in dict.fromkeys(key[1] for key in grid):
        yield draw(
            f"map-{size.split(' %')[0]}-percent{'-rare' if 'tenth' in size else ''}", *maps(orders, size), columns=2
        )


def maps(orders: Mapping[Key, str], size: str) -> list[Panel]:
    """A panel for each model, with and without V1's stories: the order for each shift and share of wrong labels."""
    panels = []
    for model, kept in product(dict.fromkeys(key[0] for key in orders), KEPT):
        shifts = sorted({key[2] for key in orders})
        cells = [[orders[model, size, shift, wrong, kept] for shift in shifts] for wrong in WRONG]
        panels.append(order_map(cells, [f"{s:g}" for s in shifts], f"{model};\n{size}, {KEPT[kept]}"))
    return panels


def order_map(cells: Sequence[Sequence[str]], shifts: Sequence[str], title: str) -> Panel:
    """A cell a setting: its order, on the colour of the way that comes first, paler where it may be another."""

    def panel(axes: Axes) -> None:
        for i, row in enumerate(cells):
            for j, name in enumerate(row):
                look = {"color": PALETTE[int(name[0]) - 1], "alpha": 0.4 if name[2] == ">" else 0.15}
                axes.fill([j, j + 1, j + 1, j], [i, i, i + 1, i + 1], linewidth=0, **look)
                axes.text(j + 0.5, i + 0.5, name, ha="center", va="center")
        axes.set_xticks([j + 0.5 for j in range(len(shifts))], shifts)
        axes.set_yticks([i + 0.5 for i in range(len(cells))], [f"{100 * wrong:g} %" for wrong in WRONG])
        axes.grid(visible=False)
        axes.set(xlim=(0, len(shifts)), ylim=(len(cells), 0), xlabel="shift between sources", ylabel="wrong labels")
        axes.set_title(title, fontsize=9)

    return panel

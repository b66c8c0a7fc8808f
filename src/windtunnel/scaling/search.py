"""The sizes of a budget: those around the expected best, and further ones until the best is between others."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.scaling.design import SIZES, Design, Size
from windtunnel.scaling.notes import MOST_EPOCHS
from windtunnel.scaling.runner import News, Runner

MOST_ADDED = 8
"""Sizes that are added at one budget."""
EXPONENT, BOUNDS = 0.5, (0.25, 0.75)
"""Of the best size with the budget, as long as no two budgets tell it, and within which it is believed."""


@dataclass(frozen=True)
class Searched:
    """What was trained at a budget.

    losses: of each size by seed; sizes that are far from the best have the first seed alone.
    sizes: the neighbours of the best, of which there are all seeds; these are fitted.
    bracketed: whether the best lies between others; `why` not.
    """

    budget: float
    losses: Mapping[Size, Mapping[int, float]]
    sizes: tuple[Size, ...]
    bracketed: bool
    why: str = ""

    @property
    def said(self) -> str:
        """Where the best is, in a sentence."""
        where = "between the sizes trained" if self.bracketed else f"not bracketed ({self.why})"
        return f"{self.budget:.1e} FLOPs: the best is near {self.best:,.0f} parameters, {where}"

    @property
    def best(self) -> float:
        """The parameters at the parabola's lowest point, or of the best size where it has none between others."""
        means = [_mean(self.losses[size]) for size in self.sizes]
        logs = np.log([size.parameters for size in self.sizes])
        at = float(logs[int(np.argmin(means))])
        finite = np.isfinite(means)
        if finite.sum() >= 3:
            curve, slope, _ = np.polyfit(logs[finite] - at, np.array(means)[finite], 2)
            vertex = at - slope / (2 * curve) if curve > 0 else at
            at = vertex if logs[0] <= vertex <= logs[-1] else at
        return math.exp(at)


def search(
    design: Design, budget: float, center: float, seeds: Sequence[int], runner: Runner, repeat_data: bool
) -> Generator[News, None, Searched]:
    """Train the sizes around `center` parameters with the first seed, add sizes at the side of the best until it has
    neighbours at both, and train those next to it with all seeds."""
    sizes, losses = first_sizes(design, budget, center, repeat_data), {}  # type: list[Size], dict[Size, dict[int, float]]
    for some in dict.fromkeys((tuple(seeds[:1]), tuple(seeds))):
        while True:
            near = sizes if len(some) == 1 else _window(sizes, losses)
            arms = {size: design.arm(size, budget) for size in near if len(losses.get(size, {})) < len(some)}
            found = yield from runner.losses(list(arms.values()), some)
            losses |= {size: {seed: found[arm.name, seed] for seed in some} for size, arm in arms.items()}
            best = min(near, key=lambda size: _mean(losses[size]))
            added, why = _next(design, budget, sizes, best, repeat_data)
            if added is not None:
                sizes = sorted([*sizes, added], key=lambda size: size.parameters)
                yield f"{budget:.1e} FLOPs: the best size is at the edge; {added.parameters:,} parameters are added"
            elif not arms:
                break
    return Searched(budget, losses, tuple(_window(sizes, losses)), best not in (sizes[0], sizes[-1]), why)


def next_center(found: Sequence[Searched], budget: float) -> float:
    """The best size that the budgets before let expect."""
    last, power = found[-1], EXPONENT
    if len(found) > 1:
        seen = math.log(last.best / found[0].best) / math.log(last.budget / found[0].budget)
        power = min(max(seen, BOUNDS[0]), BOUNDS[1])
    return last.best * (budget / last.budget) ** power


def _mean(losses: Mapping[int, float]) -> float:
    return sum(losses.values()) / len(losses)


def _window(sizes: Sequence[Size], losses: Mapping[Size, Mapping[int, float]]) -> list[Size]:
    """The SIZES sizes next to the best; far from it the loss is no parabola."""
    at = min(range(len(sizes)), key=lambda i: _mean(losses[sizes[i]]) if sizes[i] in losses else math.inf)
    start = min(max(0, at - SIZES // 2), max(0, len(sizes) - SIZES))
    return list(sizes[start : start + SIZES])


def first_sizes(design: Design, budget: float, center: float, repeat_data: bool) -> list[Size]:
    """The sizes around `center` that have their steps and do not repeat their text too much, and others beside them."""
    sizes = [size for size in design.around(center) if not _why_not(design, budget, size, repeat_data)]
    sizes = sizes or [_nearest_allowed(design, budget, center, repeat_data)]
    while len(sizes) < SIZES:
        smaller, larger = design.smaller(sizes[0]), design.larger(sizes[-1])
        if not _why_not(design, budget, larger, repeat_data):
            sizes.append(larger)
        elif smaller is not None and not _why_not(design, budget, smaller, repeat_data):
            sizes.insert(0, smaller)
        else:
            break
    return sizes


def _nearest_allowed(design: Design, budget: float, center: float, repeat_data: bool) -> Size:
    size = design.nearest(center)
    shrink = not design.has_steps(size, budget)
    while _why_not(design, budget, size, repeat_data):
        following = design.smaller(size) if shrink else design.larger(size)
        if following is None or not (shrink or design.has_steps(following, budget)):
            raise ConfigError(f"no size fits {budget:.2g} FLOPs: {_why_not(design, budget, size, repeat_data)}")
        size = following
    return size


def _why_not(design: Design, budget: float, size: Size, repeat_data: bool) -> str:
    """Why a size cannot be trained at a budget; nothing where it can."""
    if not design.has_steps(size, budget):
        return f"a larger size would have fewer than {design.fewest_steps} steps"
    if design.epochs(size, budget) > MOST_EPOCHS and not repeat_data:
        return f"a smaller size would read its text {design.epochs(size, budget):.1f} times (--repeat-data)"
    return ""


def _next(
    design: Design, budget: float, sizes: Sequence[Size], best: Size, repeat_data: bool
) -> tuple[Size | None, str]:
    """The size that is to be added, or why there is none where one is wanted."""
    if best not in (sizes[0], sizes[-1]):
        return None, ""
    if len(sizes) >= SIZES + MOST_ADDED:
        return None, f"{MOST_ADDED} sizes were added already"
    added = design.larger(best) if best == sizes[-1] else design.smaller(best)
    if added is None:
        return None, "there is no smaller size on the dial"
    why = _why_not(design, budget, added, repeat_data)
    return (None, why) if why else (added, "")

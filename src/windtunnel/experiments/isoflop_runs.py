"""What `isoflop-translators` trains: decoders of several widths, to a budget or past it, on few words or new ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from random import Random

import numpy as np

from windtunnel.experiments.frame import Setting, Steps
from windtunnel.experiments.training import train
from windtunnel.experiments.translators import COURSE, translating
from windtunnel.models import TransformerConfig
from windtunnel.runs.arms import Arm, resolve_grid
from windtunnel.runs.grid import Grid, make_grid
from windtunnel.scaling.curves import Curve, Reading, points_of_curves
from windtunnel.scaling.points import Points
from windtunnel.text.corpora.pig_latin import N_SMALL, PART, pig_latin, words
from windtunnel.training.disk import saving
from windtunnel.training.events import Evaluation
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run import open_run
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import ScheduleConfig

CORPUS = "pig-latin-small"
BATCH, SEEDS = 16, 3
THEIR_BATCH, THEIR_LR, EPOCH_KEEPS = 64, 5e-4, 0.99
"""The source's batch and learning rate, and what each epoch leaves of the rate."""
EVALUATIONS = 20
"""Of a run that passes the budgets."""

Rates = Callable[[int, float], float]
"""(width, budget in FLOPs) -> peak learning rate."""
Place = tuple[int, float]
"""Width and budget in FLOPs."""
Ends = Mapping[tuple[Place, int], Curve]
"""Runs that end at their budgets, by place and seed."""


@dataclass(frozen=True)
class Kind:
    """How runs are made: the corpus, the batch, the rates, and whether optimizer and schedule are the source's."""

    corpus: str
    batch: int
    rates: Rates
    decays: bool = True
    """Whether the rate falls to a tenth at the run's end; else by a hundredth an epoch, as the source's."""


@dataclass(frozen=True)
class Cost:
    """Of a width on a corpus: N without embeddings; FLOPs and tokens of an average example; examples to train on."""

    parameters: int
    flops: float
    tokens: float
    examples: int


def cost_of(at: Setting, corpus: str, h: int) -> Cost:
    """What an example costs."""
    (arm,) = resolve_grid([Arm("one", config_of(at, (h, 1.0), 1, Kind(corpus, 1, lambda *_: 1e-3)))])
    task = arm.task
    examples = len(task.examples("train"))
    tokens = task.totals("train")["ids"] / examples
    return Cost(arm.config.model.n_parameters(embeddings=False), arm.step_cost()[1], tokens, examples)


def config_of(
    at: Setting, place: Place, steps: int, kind: Kind, epochs: float = 0.0, evaluations: int = 1
) -> RunConfig:
    """A run of the course's decoder, four layers x h."""
    h, _ = place
    model = TransformerConfig(n_layers=4, d_model=h, **COURSE)
    every = {"eval_every": max(1, steps // evaluations), "batch_size": kind.batch, "threads": 1}
    config = translating(at, kind.corpus, model, steps, kind.rates(*place), **every)
    if kind.decays:
        return config
    kept = ScheduleConfig(curve="linear", warmup=config.schedule.warmup, final_fraction=EPOCH_KEEPS**epochs)
    return config.replace(schedule=kept)


def ending(at: Setting, place: Place, cost: Cost, kind: Kind, name: str = "") -> Arm:
    """A run that ends at its budget, or as little below as its steps allow."""
    h, budget = place
    steps = max(1, int(budget / (kind.batch * cost.flops)))
    epochs = steps * kind.batch / cost.examples
    return Arm(name or f"h {h}, {budget:.2g}", config_of(at, place, steps, kind, epochs))


def passing(at: Setting, place: Place, cost: Cost, kind: Kind, source: bool = False) -> Arm:
    """A run that passes all budgets up to this one, evaluated on its way; with the source's optimizer if asked for."""
    steps = math.ceil(place[1] / (kind.batch * cost.flops))
    config = config_of(at, place, steps, kind, steps * kind.batch / cost.examples, EVALUATIONS)
    if source:
        config = config.replace(
            optimizer=OptimizerConfig(lr=config.optimizer.lr, beta_2=0.999, weight_decay=0.0),
            schedule=config.schedule.replace(warmup=0),
        )
    return Arm(f"h {place[0]}", config)


def curve_of(folder: Path, seed: int, cost: Cost) -> Curve | None:
    """The course of a run's held-out loss; None of one that diverged before any."""
    run = open_run(folder)
    found = {e.step: e.loss for e in run.events() if isinstance(e, Evaluation) and e.step}
    if not found:
        return None
    examples = np.array([*found], dtype=float) * run.config.train.batch_size
    return Curve(
        cost.parameters, examples * cost.flops, examples * cost.tokens, np.array([*found.values()]), seed,
        epochs_at_end=float(examples[-1]) / cost.examples,
    )  # fmt: skip


def points_at_ends(runs: Ends, losses: Sequence[float] | None = None) -> Points:
    """The ends of runs as points.

    Args:
        losses: of the runs, to stand for those of their own held-out words.
    """
    each = list(runs.values())
    own = [float(curve.loss[-1]) for curve in each] if losses is None else losses
    return Points(
        np.array([c.parameters for c in each]),
        np.array([c.tokens[-1] for c in each]),
        np.array([c.flops[-1] for c in each]),
        np.array(own),
        np.array([seed for _, seed in runs]),
        budget=np.array([budget for (_, budget), _ in runs]),
        epochs=np.array([c.epochs_at_end for c in each], dtype=float),
    )


@dataclass(frozen=True)
class Design:
    """Budgets in FLOPs with their widths, and what an example costs each width."""

    at: Setting
    sizes: Mapping[float, Sequence[int]]
    costs: Mapping[int, Cost]

    @property
    def places(self) -> list[Place]:
        return [(h, budget) for budget, widths in self.sizes.items() for h in widths]

    @property
    def widths(self) -> list[int]:
        return sorted({h for h, _ in self.places})

    @property
    def most(self) -> float:
        return max(self.sizes)

    @property
    def least(self) -> float:
        return min(self.sizes)

    @property
    def batch(self) -> int:
        return self.at.size(BATCH, quick=8)


def run(design: Design, what: str, arms: Sequence[Arm]) -> Steps[Grid]:
    """Train these arms with all seeds."""
    grid = make_grid(list(arms), design.at.seeds(SEEDS), design.at.out / "runs")
    yield from train(design.at, what, grid)
    return grid


def ends(design: Design, kind: Kind, what: str) -> Steps[tuple[Ends, dict[tuple[Place, int], Path]]]:
    """Runs of all places, each to its end; those that diverged are left out."""
    arms = {place: ending(design.at, place, design.costs[place[0]], kind) for place in design.places}
    grid = yield from run(design, what, list(arms.values()))
    found = {(place, seed): curve_of(grid.folders[arm.name, seed], seed, design.costs[place[0]])
             for place, arm in arms.items() for seed in grid.seeds}  # fmt: skip
    ended = {key: curve for key, curve in found.items() if curve is not None}
    return ended, {key: grid.folders[arms[key[0]].name, key[1]] for key in ended}


def courses(design: Design, kind: Kind, what: str, source: bool) -> Steps[dict[int, list[Curve]]]:
    """Long runs of all widths, seed by seed, each to the largest budget that its width has."""
    arms = {h: passing(design.at, (h, max(b for own, b in design.places if own == h)), design.costs[h], kind, source)
            for h in design.widths}  # fmt: skip
    grid = yield from run(design, what, list(arms.values()))
    found = {h: [curve_of(grid.folders[arm.name, seed], seed, design.costs[h]) for seed in grid.seeds]
             for h, arm in arms.items()}  # fmt: skip
    return {h: [curve for curve in each if curve is not None] for h, each in found.items()}


def read_off(design: Design, curves: Mapping[int, Sequence[Curve]], how: Reading = "polynomial") -> Points:
    """The points of long runs at the budgets that their widths have."""
    points = points_of_curves([c for each in curves.values() for c in each], list(design.sizes), how)
    wanted = {(float(design.costs[h].parameters), budget) for h, budget in design.places}
    places = zip(points.parameters.tolist(), points.nominal.tolist(), strict=True)
    return points.where(np.array([place in wanted for place in places]) & (points.loss > 0))


# --------------------------------------------------------------------------------------------------------- fresh words


def fresh_words(n: int) -> Iterator[str]:
    """Made-up words, all different and none of them a bundled one; always the same.

    Each is a word that the small corpus lacks with the beginnings of its parts taken from other ones; words are drawn
    so that their lengths are those of the small corpus.
    """
    real, random = list(words()), Random("fresh words")
    few, others = real[:N_SMALL], real[N_SMALL:]
    wanted, had = Counter(map(len, few)), Counter(map(len, others))
    begins = [match["moved"] for word in others for part in word.split("-") if (match := PART.fullmatch(part))]
    weights = list(accumulate(wanted[len(word)] / had[len(word)] for word in others))
    known = set(real)

    def made() -> Iterator[str]:
        while True:
            (drawn,) = random.choices(others, cum_weights=weights)
            cut = [PART.fullmatch(part) for part in drawn.split("-")]
            word = "-".join(random.choice(begins) + match["rest"] for match in cut if match)
            if word not in known and len(word) > 1:
                known.add(word)
                yield word

    return islice(made(), n)


def write_fresh(path: Path, n: int) -> None:
    """Pairs of so many fresh words as a corpus, where it is not there."""
    if path.exists():
        return
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{word}\t{pig_latin(word)}\n" for word in fresh_words(n))
        path.write_text(f"source\ttarget\n{rows}", encoding="utf-8")

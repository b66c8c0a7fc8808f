"""The next round: what to label, why, and what to look at again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import ConfigError, DataError
from windtunnel.labelling.agreement import Agreement, agreement
from windtunnel.labelling.examples import Example
from windtunnel.labelling.features import out_of_fold, scaled, vectors
from windtunnel.labelling.simulation import FEWEST, Simulation, design, encoded, simulate
from windtunnel.labelling.strategies import RANDOM, STRATEGIES, Pool, reason
from windtunnel.labelling.suspects import PLANTED, Suspect, precision_on_planted, suspects
from windtunnel.stats.intervals import Estimate
from windtunnel.text.features import Floats, Ints, Kind, fit, kind_of_features

AUTO = "auto"
FEWEST_FOR_ERRORS = 50
"""Labels below which none is called suspect: a classifier of fewer knows too little."""
MANY = 50
"""Different labels from which on there must be two texts for each."""
Shown = Callable[[int, int], None]


@dataclass(frozen=True)
class Data:
    """Texts as vectors (N, F), with the labels of those that have one.

    kind: what they are vectors of: words, characters, or the name of a model.
    known: their indices (L,). labels: (L,), numbers of `classes`.
    """

    examples: tuple[Example, ...]
    features: Floats
    kind: str
    known: Ints
    labels: Ints
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A text to label, and why."""

    example: Example
    reason: str


@dataclass(frozen=True)
class Suspicion:
    """A label to check again, in words."""

    example: Example
    given: str
    likely: str
    believed: float
    other: float


@dataclass(frozen=True)
class Round:
    """What to do next. Where planted errors are not shown to be found more often than by chance, no label is suspected.

    why: why this strategy. choices: none where every text has an answer. simulation: what `auto` rests on.
    precision: see `precision_on_planted`; None where there are too few labels to suspect any.
    """

    strategy: str
    why: str
    choices: tuple[Choice, ...]
    simulation: Simulation | None
    suspicions: tuple[Suspicion, ...]
    precision: Estimate | None
    agreement: Agreement | None


def prepare(
    examples: Sequence[Example],
    kind: Kind | None = None,
    model: tuple[str, Callable[[Sequence[str]], Floats]] | None = None,
) -> Data:
    """The vectors and labels of the texts. A text whose annotators are at a draw counts as unlabelled.

    Args:
        kind: words or characters, whose n-grams are counted; None is what fits.
        model: the name of a model and its vectors of texts (N, D), such as `text_vectors`, instead.

    Raises:
        DataError: so many different labels that they are none, or texts without words; see `vectors`.
    """
    texts = [example.text for example in examples]
    known = np.array([i for i, example in enumerate(examples) if example.label is not None], dtype=np.int64)
    labels, classes = encoded([examples[i].label or "" for i in known])
    if len(classes) > max(MANY, len(known) // 2):
        raise DataError(
            f"{len(classes):,} different labels for {len(known):,} texts ({classes[0]!r}, {classes[1]!r} ...); "
            "expected labels that texts share; name their column: --label COLUMN"
        )
    if model is not None:
        return Data(tuple(examples), scaled(model[1](texts)), model[0], known, labels, classes)
    kind = kind or kind_of_features(texts)
    return Data(tuple(examples), vectors(texts, kind), kind, known, labels, classes)


def simulated(
    data: Data, seeds: int, rounds: int, budget: int | None = None, margin: float = 0.01, first: int = 0,
    shown: Shown = lambda done, total: None,
) -> Simulation:  # fmt: skip
    """`simulate` on the labelled texts.

    Raises:
        ConfigError: too few labels, or a single one; see `design`.
    """
    if len(data.classes) < 2:
        raise ConfigError(
            f"a simulation needs two different labels at least, given {', '.join(data.classes) or 'none'}"
        )
    planned = design(len(data.known), seeds, rounds, budget, margin, first)
    return simulate(data.features[data.known], data.labels, planned, shown=shown)


def next_round(
    data: Data, budget: int, strategy: str = AUTO, seeds: int = 10, rounds: int = 8, margin: float = 0.01,
    seed: int = 0, shown: Shown = lambda done, total: None,
) -> Round:  # fmt: skip
    """What to label next, and which labels look wrong.

    Args:
        budget: how many texts; fewer where fewer are unlabelled.
        strategy: of `STRATEGIES`, or `auto`: the one that a simulation on the labelled texts shows to be better than
            random, and random where it shows none.

    Raises:
        ConfigError: an unknown strategy, or one that needs labels where there are none.
    """
    if strategy not in (AUTO, *STRATEGIES):
        raise ConfigError(f"there is no strategy {strategy!r}; expected {', '.join((AUTO, *STRATEGIES))}")
    asked = np.array([i for i, example in enumerate(data.examples) if not example.answers], dtype=np.int64)
    doubts, precision = _doubts(data)
    agreed = agreement(data.examples)
    if not len(asked):
        return Round("none", "every text has an answer", (), None, doubts, precision, agreed)
    strategy, why, found = _strategy(data, strategy, seeds, rounds, margin, seed, shown)
    p = fit(data.features[data.known], data.labels, max(1, len(data.classes)))(data.features[asked])
    pool = Pool(p, data.features[asked], data.features[data.known])
    rows, scores = STRATEGIES[strategy](pool, budget, np.random.default_rng([seed, 3]))
    choices = [
        Choice(data.examples[asked[i]], reason(strategy, p[i], float(score), data.classes))
        for i, score in zip(rows, scores, strict=True)
    ]
    return Round(strategy, why, tuple(choices), found, doubts, precision, agreed)


def _strategy(
    data: Data, strategy: str, seeds: int, rounds: int, margin: float, seed: int, shown: Shown
) -> tuple[str, str, Simulation | None]:
    """The strategy, why it is this one, and the simulation that says so."""
    n = len(data.known)
    if strategy != AUTO:
        if len(data.classes) < 2 and strategy not in (RANDOM, "diverse"):
            raise ConfigError(f"{strategy} asks a classifier, which needs texts of two different labels; take random "
                              "or diverse for the first round")  # fmt: skip
        return strategy, "as asked for", None
    if len(data.classes) < 2 or n < max(FEWEST, 3 * (rounds + 1)):
        few = f"{n:,} labels are too few for a simulation (it needs {max(FEWEST, 3 * (rounds + 1))}, of two kinds)"
        return RANDOM, few, None
    found = simulated(data, seeds, rounds, margin=margin, first=seed, shown=shown)
    said = f"a simulation on the {n:,} labelled texts, {seeds} seeds"
    if found.best == RANDOM:
        return RANDOM, f"nothing is shown to beat it in {said}", found
    return found.best, f"it gains most of those that are shown to beat random in {said}", found


def _doubts(data: Data) -> tuple[tuple[Suspicion, ...], Estimate | None]:
    if len(data.classes) < 2 or len(data.known) < FEWEST_FOR_ERRORS:
        return (), None
    features = data.features[data.known]
    precision = precision_on_planted(features, data.labels)
    if precision.low <= PLANTED:
        return (), precision
    found = suspects(out_of_fold(features, data.labels, len(data.classes)), data.labels)
    return tuple(_suspicion(data, one) for one in found), precision


def _suspicion(data: Data, one: Suspect) -> Suspicion:
    example, (given, likely) = data.examples[data.known[one.index]], (data.classes[i] for i in (one.given, one.likely))
    return Suspicion(example, given, likely, one.believed, one.other)

"""A model that finds pictures by captions, and what it is worth: shared by the rows on pictures and captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from windtunnel.config import override
from windtunnel.experiments.frame import Claim, Findings, Given, Row, Setting, Steps, draw, table
from windtunnel.experiments.training import train
from windtunnel.inspect.captions import known_words, main_captions, words
from windtunnel.inspect.clip_vectors import clip_of, pictures_of
from windtunnel.inspect.closed_form import (
    KERNEL,
    RIDGE,
    RIDGE_STAGES,
    Seen,
    Solved,
    frozen_vectors,
    places_of,
    read,
    solved_forms,
)
from windtunnel.inspect.retrieval import AT, by_letters, retrieval_of, similarities
from windtunnel.models.pretrained.catalogue import LITE0, MINILM
from windtunnel.report.charts import dots
from windtunnel.runs.arms import Arm, resolve_grid
from windtunnel.runs.grid import Grid
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import compare_proportions
from windtunnel.tasks import Contrastive
from windtunnel.text.corpora import open_corpus
from windtunnel.text.features import Floats, Ints
from windtunnel.training.recipes import recipe
from windtunnel.training.run import TrainedModel, load
from windtunnel.training.run_config import RunConfig

MODEL, TEXT_ONLY, BY_WORDS = "two towers, trained", "text only, MiniLM", "text only, by letters"
SPLIT_BY_PICTURE = {"emoji": "emoji-by-picture"}
"""Of a corpus whose split is grouped the same one that is split by picture."""
MANY_CAPTIONS = {"emoji": "emoji-captions"}
"""Of a corpus the same one with further captions of each picture."""
LANGUAGES = 5
"""In so many further languages a picture has a name there, behind the names in English."""
MORE = 1e-9
"""The least difference that is one."""


@dataclass(frozen=True)
class Held:
    """The held-out pictures of a corpus, and the trained models of some seeds.

    solved: baselines in closed form; none where a frozen net has not been fetched, and `missing` says which.
    """

    trained: tuple[TrainedModel, ...]
    task: Contrastive
    solved: tuple[Solved, ...]
    missing: str

    @cached_property
    def texts(self) -> list[str]:
        """The main caption of each picture."""
        return main_captions(self.task, "test")

    @cached_property
    def names(self) -> list[str]:
        """The name of each picture."""
        return [self.task.store.pictures[place] for place in self.task.examples("test").places]

    @cached_property
    def cosines(self) -> list[Floats]:
        """Of each seed, of each caption (row) and each picture (column): (n, n)."""
        return [similarities(one, self.task, "test") / clip_of(one).scale.item() for one in self.trained]

    @cached_property
    def seen(self) -> list[Floats]:
        """What the model of each seed makes of the pictures, of length 1: (n, D)."""
        return [pictures_of(one, self.task, "test") for one in self.trained]

    @cached_property
    def frozen(self) -> Seen:
        """What the frozen nets make of the pictures and their captions. Raises DataError where they are missing."""
        return frozen_vectors(self.task, "test")

    @cached_property
    def baselines(self) -> dict[str, Floats]:
        """The scores (n, n) of each baseline in closed form."""
        return {one.name: one.scores(self.frozen) for one in self.solved}

    @cached_property
    def known(self) -> np.ndarray:
        """Whether training had every word of a caption, (n,)."""
        known = known_words(self.task.store)
        return np.array([known.issuperset(words(text)) for text in self.texts])

    @cached_property
    def aliases(self) -> dict[int, str]:
        """One further caption of a picture, by its place; fixed beforehand, see `aliases_of`."""
        place = {name: i for i, name in enumerate(self.names)}
        corpus = self.task.store.corpus.name
        found = aliases_of(MANY_CAPTIONS.get(corpus, corpus), self.task)
        return {place[name]: text for name, text in found.items() if name in place}

    @property
    def credit(self) -> str:
        """Whose pictures they are, shown wherever one is shown."""
        pictures = self.task.store.corpus.pictures
        return pictures.credit if pictures and pictures.credit else "the user's own"

    def draw(self, place: int, size: int = 96) -> np.ndarray:
        """A picture, (size, size, 3) uint8."""
        pictures = self.task.store.corpus.pictures
        assert pictures is not None
        return pictures.draw(self.names[place], size)


def held_out(at: Setting) -> Steps[tuple[Held, Held | None]]:
    """Train a model on a corpus for some seeds, and on the same corpus that is split by picture, where there is one.

    Frozen nets read the pictures and the captions where both are on this machine, else small ones are trained from
    scratch.
    """
    corpus = at.corpus or "emoji"
    frozen = LITE0.path.exists() and MINILM.path.exists()
    other = SPLIT_BY_PICTURE.get(corpus)
    arms = [Arm(name, _config(at, name, frozen)) for name in (corpus, other) if name]
    grid = Grid(tuple(resolve_grid(arms)), tuple(at.seeds(5, quick=1)), at.out / "runs")
    yield from train(at, "pictures and captions", grid)
    both = [_opened([grid.folders[arm.name, seed] for seed in grid.seeds], frozen) for arm in arms]
    yield Given({
        "corpus": corpus, "pictures": {name: both[0].task.n_units(name) for name in ("train", "dev", "test")},
        "recipe": "clip-frozen" if frozen else "clip", "seeds": len(grid.seeds),
        "pictures by": both[0].credit,
    })  # fmt: skip
    return both[0], both[1] if other else None


def _config(at: Setting, corpus: str, frozen: bool) -> RunConfig:
    settings = [f"seed={at.seed}", "train.threads=1", "train.precision=fp32"]
    if at.quick:
        settings += ["train.steps=20", "train.eval_every=20", "train.save_every=20", "schedule.warmup=2"]
        settings += [] if frozen else ["text.tokenizer=bpe", "model.picture.size=16", "model.picture.widths=[16, 32]"]
    return override(recipe("clip-frozen" if frozen else "clip", corpus), settings)


def _opened(folders: Sequence[Path], frozen: bool) -> Held:
    trained = tuple(load(folder) for folder in folders)
    task = retrieval_of(trained[0])
    missing = "" if frozen else f"{LITE0.name} or {MINILM.name} is not on this machine; windtunnel models get NAME"
    return Held(trained, task, tuple(solved_forms(task)) if frozen else (), missing)


def aliases_of(corpus: str, task: Contrastive) -> dict[str, str]:
    """The second caption of each picture that has one, by the picture's name.

    Of emoji those with more captions than one in English and five languages: their second is English.
    """
    read_from = task.store.corpus if corpus == task.store.corpus.name else open_corpus(corpus)
    captions: dict[str, list[str]] = {}
    for document in read_from.read():
        name, caption, *_ = read_from.split(document)
        captions.setdefault(name, []).append(caption)
    least = 2 + LANGUAGES if corpus in MANY_CAPTIONS.values() else 2
    return {name: own[1] for name, own in captions.items() if len(own) >= least}


def shares(scores: Sequence[Floats], k: int) -> Floats:
    """The share of seeds that find the diagonal of each row among the first k, (n,)."""
    return np.mean([places_of(one) <= k for one in scores], axis=0)


# ------------------------------------------------------------------------------------------------------------ evidence


def evidence(row: Row, held: Held, by_picture: Held | None) -> Findings:
    """The model beside its baselines, kinds of captions and splits, and what is claimed of them."""
    found = {MODEL: held.cosines, **{name: [scores] for name, scores in held.baselines.items()}}
    rows, shown = list[tuple[object, ...]](), dict[str, dict[str, Estimate]]()
    for name, scores in found.items():
        _add(rows, shown, name, [places_of(one) for one in scores])
    for name, asked, targets in text_only(held):
        _add(rows, shown, name, [places_of(asked, targets)])
    kinds = {"every word was in training": held.known, "a word was not in training": ~held.known}
    for name, which in kinds.items():
        if which.any():
            _add(rows, shown, f"{MODEL}: {name}", [places_of(one)[which] for one in held.cosines])
    if by_picture:
        for name, scores in {MODEL: by_picture.cosines, RIDGE: [by_picture.baselines[RIDGE]]
                             if by_picture.solved else []}.items():  # fmt: skip
            if scores:
                _add(rows, shown, f"{name}: split by picture", [places_of(one) for one in scores])
    heads = ("", "captions", *(f"recall@{k}" for k in AT), "median rank")
    yield table(f"Captions that find their picture among {len(held.names):,} that training did not have", heads, rows)
    for what, missing in ((RIDGE, held.missing), (TEXT_ONLY, "" if held.aliases else "no picture has two captions")):
        if missing:
            yield Given({f"not computed: {what}": missing})
    yield Given({"penalties, chosen on dev": {one.name: one.penalty for one in held.solved}} if held.solved else {})
    series = {f"at {k}": shown[f"at {k}"] for k in (1, 5)}
    yield draw("recall", dots(series, list(shown["at 1"]), xlabel="recall, 95 % intervals over pictures"),
               size=(9.0, 0.6 + 0.5 * len(rows)))  # fmt: skip
    yield from _claims(row, held, by_picture)


def _add(rows: list[tuple[object, ...]], shown: dict[str, dict[str, Estimate]], name: str, ranks: list[Ints]) -> None:
    """A row of the table: each picture is the mean over seeds, and the intervals are over pictures."""
    recall = {k: bca_interval(np.mean([one <= k for one in ranks], axis=0)) for k in AT}
    rows.append((name, len(ranks[0]), *recall.values(), float(np.mean([np.median(one) for one in ranks]))))
    for k, one in recall.items():
        shown.setdefault(f"at {k}", {})[name] = one


def text_only(held: Held) -> Iterator[tuple[str, Floats, Ints]]:
    """Searches that see no picture: the further captions (m) of pictures among the main captions of all (n)."""
    if not held.aliases:
        return
    targets, asked = np.array([*held.aliases]), [*held.aliases.values()]
    if held.solved:
        yield TEXT_ONLY, read(asked) @ read(held.texts).T, targets
    yield BY_WORDS, by_letters(asked, held.texts), targets


def _claims(row: Row, held: Held, by_picture: Held | None) -> Findings:
    n = len(held.names)
    own = {k: shares(held.cosines, k) for k in AT}
    statement = "a caption finds its picture at the first place more often than by chance"
    yield row.within(statement, bca_interval(own[1]), 1 / n + MORE, shown=f"{{}}; by chance {1 / n:.4f}")
    other = {name: {k: shares([scores], k) for k in AT} for name, scores in held.baselines.items()}
    if other:
        pairs: tuple[tuple[str, Mapping[int, Floats], Mapping[int, Floats]], ...] = (
            ("the trained towers find more than ridge regression", own, other[RIDGE]),
            ("the contrastive loss finds more than kernel ridge regression in closed form on the same vectors", own,
             other[KERNEL]),
            ("a kernel of the frozen vectors finds more than a linear map of the same ones, both in closed form",
             other[KERNEL], other[RIDGE_STAGES]),
        )  # fmt: skip
        for statement, one, two in pairs:
            yield more(row, statement, one, two)
    known, new = own[1][held.known], own[1][~held.known]
    if len(known) and len(new):
        statement = "captions all of whose words training had find their picture more often than the others"
        yield row.within(statement, _apart(new, known), MORE, shown=f"{{}}; {len(known)} and {len(new)} captions")
    if by_picture:
        there = shares(by_picture.cosines, 1)
        statement = "a split by picture flatters: it finds more at the first place than the grouped one"
        fives = _apart(own[5], shares(by_picture.cosines, 5))
        shown = f"{{}}; among the first five {fives}; {len(there)} and {n} pictures"
        yield row.within(statement, _apart(own[1], there), MORE, shown=shown)


def more(row: Row, statement: str, one: Mapping[int, Floats], other: Mapping[int, Floats]) -> Claim:
    """Whether one finds more at the first place, over the same captions; what is at five decides nothing."""
    difference = {k: bca_interval(one[k] - other[k]) for k in (1, 5)}
    shown = f"{{}}; among the first five, which decides nothing, {difference[5]}"
    shown += "" if difference[1].low > 0 or difference[1].high < 0 else "; at the first place not shown"
    return row.within(f"{statement}, at the first place", difference[1], MORE, shown=shown)


def _apart(one: Floats, other: Floats) -> Estimate:
    """How much more the other finds, on other captions: Newcombe's interval of the counts, seeds averaged."""
    counts = [(round(float(x.sum())), len(x)) for x in (one, other)]
    return compare_proportions(*counts[0], *counts[1]).newcombe

"""How well a run finds pictures by their captions, beside baselines: ranks, recall, paired tests, kinds of captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.inspect.captions import known_words, main_captions, words
from windtunnel.inspect.clip_vectors import pictures_of, vectors_of
from windtunnel.inspect.closed_form import RIDGE, frozen_vectors, places_of, solved_forms
from windtunnel.inspect.zero_shot import ZeroShot, judge_zero_shot
from windtunnel.nn.mode import evaluating
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.stats.paired import mcnemar, paired_table
from windtunnel.stats.proportions import paired_proportions, wilson
from windtunnel.tasks import Contrastive
from windtunnel.text.features import Floats, Ints, weigh, weigher
from windtunnel.text.store import TokenStore
from windtunnel.training.change import Named
from windtunnel.training.data import check_split, open_task
from windtunnel.training.run import TrainedModel, load

AT = (1, 5, 10)
"""Recall is counted among so many that are found first."""
TESTED = 5
"""Among so many a model is compared with a baseline: more captions find something there than at the first place."""
TEXTS, SECOND = "text only", "its second caption finds it"


@dataclass(frozen=True)
class Ranks:
    """At which place each of n queries finds its own, 1 is the first; one that is as near counts as nearer.

    recall: at 1, 5 and 10, with Wilson's interval. mean: with a bootstrap interval over queries.
    """

    ranks: Ints
    recall: dict[int, Estimate]
    mean: Estimate
    median: float


@dataclass(frozen=True)
class Against:
    """A baseline on the same captions; `ranks` is None where it cannot be had, and `how` says why.

    difference: recall at TESTED of the model minus the baseline's. Text only answers other captions: it has none.
    """

    name: str
    how: str
    ranks: Ranks | None
    difference: Estimate | None = None
    p: float | None = None


@dataclass(frozen=True)
class JudgedRetrieval:
    """A run that finds pictures, on a split: the main captions as queries, all pictures of the split to be found.

    by_caption, by_picture: pictures found by captions, and captions by pictures.
    kinds: of the captions with and without a word that training never had; and of second captions, where there are any.
    zero_shot: classes by words; None where the captions have no two.
    seeds: recall at TESTED of each run; all else is of the first.
    """

    run: str
    step: int
    corpus: str
    split: str
    n: int
    by_caption: Ranks
    by_picture: Ranks
    against: tuple[Against, ...]
    kinds: dict[str, Ranks]
    zero_shot: ZeroShot | None
    seeds: tuple[float, ...]

    @property
    def over_seeds(self) -> Estimate:
        """The mean of the runs' recall."""
        return mean_interval(self.seeds)


def judge_retrieval(
    folders: Sequence[Path], split: str = "test", store: TokenStore | None = None, change: Named | None = None
) -> JudgedRetrieval:
    """The runs of some seeds on a split, the first beside its baselines.

    Args:
        store: of another corpus, in the tokens of these runs; None is their own.
        change: what the runs were begun with, where their model is altered.

    Raises:
        ConfigError: for a run that finds no pictures, and for a split without any.
        DataError: for a split of one picture.
        ArtifactError: for a damaged run.
    """
    trained = load(folders[0], change)
    own = retrieval_of(trained)
    task = own if store is None else open_task(trained.run.config, store)
    assert isinstance(task, Contrastive)
    check_split(folders[0], task.store, split)
    scores = similarities(trained, task, split)
    found, seen = ranks_of(scores), pictures_of(trained, task, split)
    others = [places_of(similarities(load(folder, change), task, split)) for folder in folders[1:]]
    return JudgedRetrieval(
        run=str(trained.run.folder),
        step=trained.step,
        corpus=task.store.corpus.name,
        split=split,
        n=len(scores),
        by_caption=found,
        by_picture=ranks_of(scores.T),
        against=tuple(against(found, *one) for one in baselines(own, task, split)),
        kinds=_kinds(own, task, split, found.ranks) | _second(trained, task, split, seen),
        zero_shot=judge_zero_shot(trained, own, task, split, seen),
        seeds=tuple(float((ranks <= TESTED).mean()) for ranks in (found.ranks, *others)),
    )


def retrieval_of(trained: TrainedModel) -> Contrastive:
    """The task of a run that finds pictures. Raises ConfigError for another."""
    task = open_task(trained.run.config, trained.run.store())
    if not isinstance(task, Contrastive):
        raise ConfigError(
            f"{trained.run.folder} was trained for {trained.run.config.task.kind}, and finds no pictures; train one "
            "that does: windtunnel train emoji --recipe clip"
        )
    return task


def similarities(trained: TrainedModel, task: Contrastive, split: str) -> Floats:
    """How near each main caption (row) of a split is to each picture (column), (n, n)."""
    device = next(trained.model.parameters()).device
    (batch,) = task.examples(split).sweep(task.rows)
    with evaluating(trained.model), torch.no_grad():
        logits: Floats = trained.model(**batch.to(device).inputs)[:, 0].double().cpu().numpy()
    return logits


def ranks_of(scores: Floats) -> Ranks:
    """The rank of the diagonal in each row of (n, n)."""
    return summarised(places_of(scores))


def summarised(ranks: Ints) -> Ranks:
    """Ranks with what they say together."""
    recall = {k: wilson(int((ranks <= k).sum()), len(ranks)) for k in AT}
    return Ranks(ranks, recall, bca_interval(ranks.astype(float)), float(np.median(ranks)))


def against(own: Ranks, name: str, how: str, scores: Floats | None, paired: bool) -> Against:
    """A baseline beside a model: McNemar's exact test of recall at TESTED, and Newcombe's interval for pairs."""
    if scores is None:
        return Against(name, how, None)
    other = ranks_of(scores)
    if not paired:
        return Against(name, how, other)
    counts = paired_table(own.ranks <= TESTED, other.ranks <= TESTED)
    return Against(name, how, other, paired_proportions(*counts), mcnemar(counts[1], counts[2]).p)


def baselines(own: Contrastive, task: Contrastive, split: str) -> Iterator[tuple[str, str, Floats | None, bool]]:
    """(name, how it came about, its similarities (n, n), whether its queries are those of the model) of each."""
    try:
        forms, held = list(solved_forms(own)), frozen_vectors(task, split)
        for form in forms:
            how = f"EfficientNet-Lite0 to MiniLM, penalty {form.penalty:g}" + " chosen on dev" * (
                own.n_units("dev") > 1
            )
            yield form.name, how, form.scores(held), True
    except DataError as error:  # a net that has not been fetched
        yield RIDGE, f"not computed, {error}", None, True
    _, first, second = _second_captions(task, split)
    if len(second) < 2:
        yield TEXTS, "not computed, no picture has a second caption to ask with", None, False
        return
    scores = by_letters(second, first)
    yield TEXTS, f"{len(second):,} second captions among first ones, which it reads: no picture is seen", scores, False


def by_letters(asked: Sequence[str], gallery: Sequence[str]) -> Floats:
    """How alike texts (m) are to others (n) by the n-grams of their letters: (m, n)."""
    counter = weigher("characters", 0, 5)
    others = weigh(counter, gallery)
    return np.asarray((counter.transform(asked) @ others.T).toarray())


def _second_captions(task: Contrastive, split: str) -> tuple[Ints, list[str], list[str]]:
    """The pictures of a split that have two captions: their places, their main captions, their second ones."""
    examples, texts = task.examples(split), list(task.store.documents(split))
    places = np.flatnonzero(np.diff(examples.starts) > 1)
    at = examples.starts[places]
    first, second = ([texts[i] for i in examples.captions[some]] for some in (at, at + 1))
    return places, first, second


def _second(trained: TrainedModel, task: Contrastive, split: str, seen: Floats) -> dict[str, Ranks]:
    """The ranks of second captions among all pictures of a split; nothing where no picture has one."""
    places, _, second = _second_captions(task, split)
    if not second:
        return {}
    scores = vectors_of(trained, second) @ seen.T
    return {SECOND: summarised(places_of(scores, places))}


def _kinds(own: Contrastive, task: Contrastive, split: str, ranks: Ints) -> dict[str, Ranks]:
    """The ranks of main captions all of whose words training had, and of the others; a kind without any is left out."""
    known = known_words(own.store)
    new = np.array([not known.issuperset(words(text)) for text in main_captions(task, split)])
    kinds: Mapping[str, Ints] = {"every word was in training": ~new, "a word was not in training": new}
    return {name: summarised(ranks[which]) for name, which in kinds.items() if which.any()}

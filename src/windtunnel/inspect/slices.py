"""A run that translates, judged source by source and by slices: kinds of sources that may be hard.

Every source of a split is translated greedily. A source with several right targets is right with any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.translate import Translated, translate_all
from windtunnel.inspect.answers import Answers, Score, compare_answers
from windtunnel.inspect.library_scores import LibraryScore, library_scores
from windtunnel.stats.proportions import fisher_exact
from windtunnel.tasks.translation import TURN
from windtunnel.text.corpora.corpus import Judging, right_answers
from windtunnel.text.store import Split, TokenStore
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.data import check_split, open_task
from windtunnel.training.evaluate import unit_sums
from windtunnel.training.run import TrainedModel

Chosen = Mapping[str, npt.NDArray[np.bool_]]
"""The sources of each slice, (n,) bool by its name."""
MADE = 300
"""Made-up sources of each slice."""
STRESS = "stress"
"""The name of the split that they are."""


@dataclass(frozen=True)
class Wrong:
    """A source whose target is wrong. complete: whether what was written ended before the context did."""

    source: str
    written: str
    expected: tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class FreeTest:
    """What the loss's own pass counts as right, all targets given, beside what greedy decoding writes: of n pairs.

    They are equal, pair by pair, unless something is wrong, or a tokenizer has two ways to write one text.
    """

    n: int
    teacher_forced: int
    greedy: int
    differ: int


@dataclass(frozen=True)
class Worst:
    """The slice with the lowest exact match, of equal ones the first.

    p: Fisher's, against all other sources, times the number of slices.
    """

    name: str
    p: float


@dataclass(frozen=True)
class Sliced:
    """A run on a split. scores: all sources, first by any right target, then other readings; baselines beside them.

    token: what `tokens` of a score counts. wrong: the first ones of `n_wrong`.
    """

    run: str
    step: int
    split: str
    n_pairs: int
    token: str
    scores: tuple[Score, ...]
    baselines: tuple[Score, ...]
    slices: tuple[Score, ...]
    worst: Worst | None
    library: tuple[LibraryScore, ...]
    free_test: FreeTest
    n_wrong: int
    wrong: tuple[Wrong, ...]
    remarks: tuple[str, ...]


def evaluate_slices(trained: TrainedModel, split: str = "dev", n_wrong: int = 10) -> Sliced:
    """Translate every source of a split, and judge what was written: all of it, and by slice.

    Args:
        n_wrong: how many of the wrong ones are listed.

    Raises:
        ConfigError: for a run that was not trained to translate, or a split that there is not or that holds nothing.
    """
    store = _pairs_of(trained)
    check_split(trained.run.folder, store, split)
    return _judge(trained, store, split, right_answers(store.corpus), n_wrong)


def evaluate_stress(trained: TrainedModel, n: int = MADE, n_wrong: int = 10) -> Sliced:
    """The same for made-up sources, `n` of each slice, none of which is in the corpus: a split may hold few of a slice.

    Raises:
        ConfigError: for a run that was not trained to translate, or whose corpus has no rule to make sources by.
    """
    store = _pairs_of(trained)
    sources = made_sources(store, trained.model.config.context_length, n)
    rule = store.corpus.judging.rule
    assert rule is not None  # or made_sources had refused
    documents = [f"{source}{TURN}{rule(source)}" for source in sources]
    ids, lengths = store.tokenizer.encode_documents(documents)
    split = Split(ids, np.concatenate([[0], np.cumsum(lengths)]), sum(len(d.encode()) + 1 for d in documents))
    made = replace(store, splits={**store.splits, STRESS: split})
    return _judge(trained, made, STRESS, {source: (rule(source),) for source in sources}, n_wrong)


def made_sources(store: TokenStore, context_length: int, n: int = MADE) -> list[str]:
    """Made-up sources that fit into the context, `n` of each slice or all that could be made; always the same.

    Raises:
        ConfigError: when the corpus has no rule to make them by.
    """
    judging, rule = store.corpus.judging, store.corpus.judging.rule
    if judging.made is None or rule is None:
        raise ConfigError(
            f"--stress makes words by a rule, and {store.corpus.name} has none; leave it out, or use a run on pig-latin"
        )
    found: dict[str, None] = {}
    for name in judging.slices:
        pairs = ((source, f"{source}{TURN}{rule(source)}") for source in judging.made(name))
        fitting = (source for source, pair in pairs if _fits(pair, store.tokenizer, context_length))
        found |= dict.fromkeys(islice(fitting, n))
    return list(found)


def _fits(pair: str, tokenizer: Tokenizer, context_length: int) -> bool:
    try:
        return len(tokenizer.encode(pair)) < context_length
    except DataError:  # a character that the training text did not have
        return False


def _pairs_of(trained: TrainedModel) -> TokenStore:
    config = trained.run.config
    if config.task.kind != "translation":
        raise ConfigError(
            f"--slices judges what a run translates, and {trained.run.folder} was trained for {config.task.kind}; "
            "leave it out, or train one with: windtunnel train pig-latin"
        )
    return trained.run.store()


def _judge(
    trained: TrainedModel, store: TokenStore, split: str, right: Mapping[str, Sequence[str]], n_wrong: int
) -> Sliced:
    pairs, judging = _documents(store, split), store.corpus.judging
    sources = list(dict.fromkeys(source for source, _ in pairs))
    answers = [tuple(right[source]) for source in sources]
    written = translate_all(trained, sources)
    found = compare_answers([one.target for one in written], answers, [one.complete for one in written])
    token = judging.token or ("word" if any(" " in t for targets in answers for t in targets) else "")
    sums = unit_sums(trained.model, open_task(trained.run.config, store), split)
    slices = _slice_scores(found, sources, pairs, sums, judging, bool(token))
    readings = _readings(written, answers, judging, bool(token))
    whole = found.score("any right target", np.ones(len(sources), bool), bool(token))
    wrong = [i for i, exact in enumerate(found.exact) if not exact]
    library, remarks = library_scores([one.target for one in written], answers)
    return Sliced(
        run=str(trained.run.folder),
        step=trained.step,
        split=split,
        n_pairs=len(pairs),
        token=token,
        scores=(replace(whole, loss=float(sums["nats"].sum() / sums["targets"].sum())), *readings),
        baselines=_baselines(sources, answers, judging, bool(token)),
        slices=slices,
        worst=_worst(slices, found),
        library=library,
        free_test=_free_test(written, pairs, sums["exact"]),
        n_wrong=len(wrong),
        wrong=tuple(Wrong(sources[i], written[i].target, answers[i], written[i].complete) for i in wrong[:n_wrong]),
        remarks=remarks,
    )


def _documents(store: TokenStore, split: str) -> list[tuple[str, ...]]:
    """The source and target of each pair of a split, in its order."""
    return [store.corpus.split(document) for document in store.documents(split)]


def _readings(
    written: Sequence[Translated], answers: Sequence[Sequence[str]], judging: Judging, in_tokens: bool
) -> list[Score]:
    """Other scores of the same targets: by the first right target alone, and by what counts in a less strict one."""
    rights = {"": answers}
    if max(map(len, answers)) > 1:
        rights["the first target only"] = [targets[:1] for targets in answers]
    texts, complete = [one.target for one in written], [one.complete for one in written]
    every = np.ones(len(texts), bool)
    counts: dict[str, Callable[[str], str]] = {"": str, **judging.coarse}
    scores = []
    for coarse, counted in counts.items():
        for which, right in rights.items():
            if name := ", ".join(filter(None, (coarse, which))):
                found = compare_answers(texts, right, complete, counted)
                scores.append(found.score(name, every, in_tokens))
    return scores


def _baselines(
    sources: Sequence[str], answers: Sequence[Sequence[str]], judging: Judging, in_tokens: bool
) -> tuple[Score, ...]:
    every = np.ones(len(sources), bool)
    rules: dict[str, Callable[[str], str]] = {**judging.shortcuts, "copy the source": str}
    return tuple(
        compare_answers([rule(source) for source in sources], answers).score(name, every, in_tokens)
        for name, rule in rules.items()
    )


def choose(sources: Sequence[str], judging: Judging) -> Chosen:
    """The sources of each slice: the corpus's own slices and the sources in none; else four by length in characters."""
    if judging.slices:
        own = {name: np.array([is_in(s) for s in sources], bool) for name, is_in in judging.slices.items()}
        chosen = {**own, "none of these": ~np.any(list(own.values()), axis=0)}
    else:
        lengths = np.array([len(source) for source in sources])
        edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="lower"))
        place = edges.searchsorted(lengths)
        groups = [place == i for i in np.unique(place)]
        chosen = {_span(int(lengths[g].min()), int(lengths[g].max())): g for g in groups}
    return {name: those for name, those in chosen.items() if those.any()}


def _span(low: int, high: int) -> str:
    return f"{low} to {high} characters" if low < high else f"of {low} character{'s' * (low > 1)}"


def pairs_by_slice(store: TokenStore, split: str) -> Chosen:
    """The pairs of each slice of a split, (n_pairs,) bool by its name: a pair is in the slices of its source."""
    pairs = _documents(store, split)
    sources = list(dict.fromkeys(source for source, _ in pairs))
    place = _places(sources, pairs)
    return {name: chosen[place] for name, chosen in choose(sources, store.corpus.judging).items()}


def _places(sources: Sequence[str], pairs: Sequence[tuple[str, ...]]) -> npt.NDArray[np.int64]:
    """Which of the sources each pair has, (n_pairs,)."""
    place = {source: i for i, source in enumerate(sources)}
    return np.array([place[source] for source, _ in pairs], np.int64)


def _slice_scores(
    found: Answers,
    sources: Sequence[str],
    pairs: Sequence[tuple[str, ...]],
    sums: Mapping[str, npt.NDArray[np.float64]],
    judging: Judging,
    in_tokens: bool,
) -> tuple[Score, ...]:
    source_of = _places(sources, pairs)
    scores = []
    for name, chosen in choose(sources, judging).items():
        those = chosen[source_of]
        loss = float(sums["nats"][those].sum() / sums["targets"][those].sum())
        scores.append(replace(found.score(name, chosen, in_tokens), loss=loss))
    return tuple(scores)


def _worst(slices: Sequence[Score], found: Answers) -> Worst | None:
    """Of the slices with enough sources; None where all of them, or the only one, have the same exact match."""
    judged = [score for score in slices if score.enough and score.n < len(found.exact)]
    if len({score.exact.estimate for score in judged}) < 2:
        return None
    worst = min(judged, key=lambda score: score.exact.estimate)
    hits = round(worst.exact.estimate * worst.n)
    others = len(found.exact) - worst.n
    p = fisher_exact(hits, worst.n, int(found.exact.sum()) - hits, others)
    return Worst(worst.name, min(1.0, p * len(judged)))


def _free_test(
    written: Sequence[Translated], pairs: Sequence[tuple[str, ...]], exact: npt.NDArray[np.float64]
) -> FreeTest:
    of_source: dict[str, Any] = {one.source: one.target if one.complete else None for one in written}
    greedy = np.array([of_source[source] == target for source, target in pairs])
    forced = exact > 0
    return FreeTest(len(pairs), int(forced.sum()), int(greedy.sum()), int((greedy != forced).sum()))

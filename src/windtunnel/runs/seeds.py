"""One config on several seeds: the folders of its runs, and what they say together."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from windtunnel.config import fingerprint, override, plain
from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained.catalogue import MODELS, find_model
from windtunnel.runs.begun import as_begun
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.tasks import MixedLanguage
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.mixes import corpora_in
from windtunnel.text.store import TokenStore, prepare
from windtunnel.training.change import Named, Trial
from windtunnel.training.checkpoint import newest_step
from windtunnel.training.data import check_split, open_store, open_task
from windtunnel.training.disk import is_locked
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation, Event, Stopped
from windtunnel.training.imports import import_run
from windtunnel.training.recipes import RECIPES, recipe
from windtunnel.training.run import Run, TrainedModel, create_run, is_run, load, open_run, resolve
from windtunnel.training.run_config import RunConfig
from windtunnel.training.trial import resolve_changed

RUNS = Path("runs")
LONGEST_LABEL = 80
"""Letters of the names of a mix in a folder's name, which may have 255."""
WHOLE = "all"
"""In place of a split's name: all of a corpus that is not the run's own."""


@dataclass(frozen=True)
class SeedResult:
    """How one seed ended, and the last loss on the dev split that it reached. The reason of a run whose folder cannot
    be read is "damaged", and the message says what is wrong; that of one which a process is at is "training"."""

    seed: int
    folder: str
    reason: str
    message: str
    step: int
    dev: Evaluation | None


@dataclass(frozen=True)
class Summary:
    """Several seeds of one config: the means of the dev scores of those that finished, and every seed's own.

    scores: by the name of the metric; none where no seed finished.
    """

    folder: str
    scores: dict[str, Estimate]
    seeds: tuple[SeedResult, ...]

    @property
    def loss(self) -> Estimate | None:
        """The mean of the dev losses, in nats per target."""
        return self.scores.get("loss")

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data; `--json` prints it. An interval that one seed cannot give is null."""
        return dict(plain(self))


@dataclass(frozen=True)
class SplitLoss:
    """The scores of every seed on one split, and their means by the name of the metric."""

    split: str
    scores: dict[str, Estimate]
    seeds: tuple[tuple[str, Evaluation], ...]
    """(run folder, its evaluation) in the order given."""
    warnings: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...] = ()
    """(run folder, what is wrong with it) of those that could not be evaluated."""
    parts: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """Of a mix the means of each corpus alone, by its name."""

    @property
    def loss(self) -> Estimate:
        """The mean loss, in nats per target."""
        return self.scores["loss"]

    @property
    def perplexity(self) -> Estimate:
        """e to the mean loss: among how many tokens, all as probable, a guess would be as hard."""
        loss = self.loss
        middle, low, high = (math.inf if x > 700 else math.exp(x) for x in (loss.estimate, loss.low, loss.high))
        return Estimate(middle, low, high, loss.n, f"e to the loss: {loss.method}")

    def to_dict(self) -> dict[str, Any]:
        """As plain data; an interval that one seed cannot give is null."""
        return dict(plain(self)) | {"perplexity": plain(self.perplexity)}

    def __repr__(self) -> str:
        return f"SplitLoss({self.split}: {', '.join(f'{name} {found}' for name, found in self.scores.items())})"


def evaluate_seeds(
    folders: Sequence[Path], split: str, partial: bool = False, change: str | None = None, corpus: str | None = None
) -> SplitLoss:
    """The loss of the newest model of each run on the whole of a split; this is what touches the test split.

    Args:
        split: train, dev or test; of another corpus also `all`, the whole of it.
        corpus: whose split it is; None is each run's own.
        partial: whether damaged runs are left out, and named in the result, as long as one is sound.
        change: what the runs were begun with, where their model is altered.

    Raises:
        ArtifactError: for a damaged run.
        ConfigError: for a split that there is not, or that holds nothing.
    """
    rows: list[tuple[str, Evaluation]] = []
    warnings: list[str] = []
    damaged: list[tuple[str, str]] = []
    parts: dict[str, list[Evaluation]] = {}
    for folder in folders:
        try:
            trained = load(folder, change)
            rows.append((str(folder), evaluate_on(trained, split, corpus)))
            for name, one in ({} if corpus else evaluate_parts(trained, split)).items():
                parts.setdefault(name, []).append(one)
        except ArtifactError as error:
            damaged.append((str(folder), str(error)))
            if not partial or len(damaged) == len(folders):
                raise
            continue
        warnings += trained.warnings
    of_parts = {name: _means(found) for name, found in parts.items()}
    return SplitLoss(split, _means([e for _, e in rows]), tuple(rows), tuple(warnings), tuple(damaged), of_parts)


def evaluate_on(trained: TrainedModel, split: str, corpus: str | None = None) -> Evaluation:
    """The scores of a model on the whole of a split of its own corpus, or of another one; see `evaluate_seeds`.

    Raises:
        ArtifactError: for a corpus of its own that has changed.
        ConfigError: for a split that there is not, or a run without a corpus.
    """
    config, whole = trained.run.config, corpus is not None and split == WHOLE
    store = trained.run.store() if corpus is None else other_store(trained, corpus, whole)
    read = "train" if whole else split
    check_split(trained.run.folder, store, read)
    if corpus is not None:
        config = _in_reach(config, store, read)
    return evaluate(trained.model, open_task(config, store), read, trained.step)


def evaluate_parts(trained: TrainedModel, split: str) -> dict[str, Evaluation]:
    """The scores of a model on a split of each corpus of its mix, by name; none of a run on one corpus."""
    config = trained.run.config
    if len(corpora_in(config.corpus)) == 1:
        return {}
    task = open_task(config, trained.run.store())
    assert isinstance(task, MixedLanguage)
    return {name: evaluate(trained.model, part, split, trained.step) for name, part in task.by_name(split).items()}


def other_store(trained: TrainedModel, corpus: str, whole: bool = False) -> TokenStore:
    """A corpus in a run's tokens, split as the run's own would be, or all of it in the split train.

    Raises:
        DataError: when it cannot be read as such.
    """
    text = trained.run.config.text.replace(unit="auto", columns=None)
    if whole:
        text = text.replace(dev_fraction=0.0, test_fraction=0.0)
    return prepare(open_corpus(corpus), text, tokenizer=trained.tokenizer)


def _in_reach(config: RunConfig, store: TokenStore, split: str) -> RunConfig:
    """The config with windows no longer than a running text: a page is shorter than the context of a large model."""
    part, model = store.splits[split], config.model
    if part.offsets is not None or not 2 < len(part.ids) <= model.context_length:
        return config
    return config.replace(model=model.replace(context_length=len(part.ids) - 1))


def _means(found: Sequence[Evaluation]) -> dict[str, Estimate]:
    """The mean of each metric over seeds."""
    names = found[0].scores if found else ()
    return {name: mean_interval([e.scores[name] for e in found]) for name in names}


def corpus_label(config: RunConfig) -> str:
    """The corpus as a part of a folder's name."""
    names = corpora_in(config.corpus)
    stems = "-".join(Path(name).stem for name in names)[: LONGEST_LABEL if len(names) > 1 else None]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stems).strip("-") or "run"


def config_folder(resolved: RunConfig) -> str:
    """The name of the folder that holds all seeds of a config: CORPUS-HASH."""
    return f"{corpus_label(resolved)}-{fingerprint(resolved, exclude=['seed'])[:6]}"


def folders_on_corpus(config: RunConfig, runs: Iterable[Path]) -> list[Path]:
    """The folders of seeds that these runs are in, as far as they are named after the config's corpus."""
    label = f"{corpus_label(config)}-"
    return list(dict.fromkeys(run.parent for run in runs if run.parent.name.startswith(label)))


class Resolved(NamedTuple):
    """A config with everything decided, the trial of its change, and its corpus as tokens."""

    config: RunConfig
    trial: Trial | None
    store: TokenStore


def create_seeds(
    config: RunConfig, seeds: Sequence[int], folder: Path | None = None, change: Named | None = None
) -> list[Path]:
    """Create, or find again, the run folder of each seed below one folder.

    Args:
        folder: where; None is runs/CORPUS-HASH, with a hash of the resolved config without its seed, so that the same
            command finds the same runs; see also `as_begun`.
        change: what alters them in Python; see `windtunnel.training.change`.
    """
    config, trial, store = resolve_seeds(config, len(seeds), change, folder)
    if folder is None:
        folder = RUNS / config_folder(config)
    return [create_run(folder / f"seed-{seed}", config.replace(seed=seed), store, trial).folder for seed in seeds]


def resolve_seeds(config: RunConfig, n_seeds: int, change: Named | None = None, folder: Path | None = None) -> Resolved:
    """The config that so many seeds are trained with, everything decided, its corpus, and what its change does.

    Args:
        folder: of the seeds, as `create_seeds` takes it.
    """
    store = open_store(config)
    resolved, trial = resolve_changed(config, store, change, side_by_side=n_seeds)
    if folder is not None:
        resolved = as_begun(config, resolved, [folder], n_seeds)
    elif not (RUNS / config_folder(resolved)).exists():
        resolved = as_begun(config, resolved, folders_on_corpus(resolved, find_runs()), n_seeds)
    return Resolved(resolved, trial, store)


def planned(name: str, corpus: str | None, assignments: Sequence[str]) -> RunConfig:
    """The config of a recipe, resolved for a corpus where one is given, or that of a run.

    Raises:
        ConfigError: when there is neither such a recipe nor such a run.
    """
    if name not in RECIPES:
        try:
            return override(open_run(find_run(name)).config, assignments)
        except ArtifactError:
            recipe(name, corpus or "")  # says which recipes there are
    config = override(recipe(name, corpus or ""), assignments)
    if corpus is None:
        return config
    return resolve(config, open_store(config))


def is_finished(run: Run) -> bool:
    """Whether a run's events end with its last step, and that step's checkpoint is whole."""
    events = run.events("stopped")
    ended = bool(events) and isinstance(events[-1], Stopped) and events[-1].reason == "finished"
    return ended and newest_step(run.folder) == run.config.train.steps


def unfinished(folders: Sequence[Path]) -> list[tuple[int, Run]]:
    """The runs that are to be trained, with their indices; damaged ones are left out, as long as one is sound.

    Raises:
        ArtifactError: when all are damaged, about the last.
    """
    found, n_damaged = [], 0
    for index, folder in enumerate(folders):
        try:
            run = open_run(folder)
            if not is_finished(run):
                found.append((index, run))
        except ArtifactError:
            n_damaged += 1
            if n_damaged == len(folders):
                raise
    return found


def summarise(folders: Sequence[Path], endings: dict[int, Stopped] | None = None) -> Summary:
    """What the runs in these folders say together, from their own records.

    Args:
        endings: how the runs ended, by index, where the caller saw it and the run folder may not know.

    Raises:
        ArtifactError: when all are damaged, about the first.
    """
    results = [_result(folder, (endings or {}).get(index)) for index, folder in enumerate(folders)]
    if all(result.reason == "damaged" for result in results):
        raise ArtifactError(results[0].message)
    finished = [r.dev for r in results if r.dev is not None and r.reason == "finished"]
    return Summary(str(folders[0].parent), _means(finished), tuple(results))


def _result(folder: Path, ended: Stopped | None) -> SeedResult:
    try:
        run = open_run(folder)
        return result_of(run, run.events(), ended)
    except ArtifactError as error:
        return SeedResult(_seed_in_name(folder), str(folder), "damaged", str(error), 0, None)


def result_of(run: Run, events: Sequence[Event], ended: Stopped | None = None) -> SeedResult:
    """How far a run is, or how it ended, from its events; of its steps the last is enough."""
    evaluations = [e for e in events if isinstance(e, Evaluation) and e.split == "dev"]
    stops = [e for e in events if isinstance(e, Stopped)]
    end = ended or (stops[-1] if stops else Stopped(0, "interrupted", "not finished yet"))
    busy = ended is None and end.reason != "finished" and is_locked(run.folder)
    reason, message = ("training", "a process is training it") if busy else (end.reason, end.message)
    dev = evaluations[-1] if evaluations else None
    step = max((e.step for e in events), default=0)
    return SeedResult(run.config.seed, str(run.folder), reason, message, step, dev)


def _seed(folder: Path) -> int:
    """The seed of a run; of a damaged one as its name has it."""
    try:
        return open_run(folder).config.seed
    except ArtifactError:
        return _seed_in_name(folder)


def _seed_in_name(folder: Path) -> int:
    match = re.search(r"([0-9]{1,18})$", folder.name)
    return int(match[1]) if match else 0


def find_runs(root: Path = RUNS) -> list[Path]:
    """All run folders at most two levels below `root`, the most recently changed first."""
    found = [p for pattern in ("*", "*/*") for p in root.glob(pattern) if _seems_run(p)]
    return sorted(found, key=lambda p: (-p.parent.stat().st_mtime, str(p)))


def _seems_run(folder: Path) -> bool:
    """Whether a folder is to be listed: one that nobody may look into too, for `open_run` says so."""
    try:
        return is_run(folder)
    except OSError:
        return True


def find_seeds(name: str, root: Path = RUNS) -> list[Path]:
    """The run folders that a user means: a run, all seeds of a folder, either below `root`, or `last`, the newest.

    Damaged ones are among them; whoever opens them is told.

    Raises:
        ArtifactError: when there is none, naming the nearest.
    """
    known = find_runs(root)
    if name == "last" and known:
        name = str(known[0].parent)
    for folder in (Path(name), root / name):
        if is_run(folder):
            return [folder]
        seeds = sorted((p for p in folder.glob("*") if _seems_run(p)), key=_seed)
        if seeds:
            return seeds
    names = list(dict.fromkeys(str(p.parent.relative_to(root)) for p in known if p.parent != root))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]}?" if near else "; `windtunnel runs` lists those there are"
    exists = "is not a run folder" if Path(name).exists() else "does not exist"
    raise ArtifactError(f"{name} {exists}{hint if known else '; train one first: windtunnel train names'}")


def find_run(name: str, root: Path = RUNS) -> Path:
    """Like `find_seeds`, but one run: the first seed of a folder."""
    return find_seeds(name, root)[0]


def find_start(name: str, root: Path = RUNS) -> Path:
    """A run to begin with: one of `find_run`, or a model of `windtunnel models`, imported below `root` unless it is.

    Raises:
        DataError: for such a model that has not been fetched.
    """
    if name not in MODELS or Path(name).exists() or (root / name).exists():
        return find_run(name, root)
    folder = root / f"import-{name}" / "seed-0"
    if not is_run(folder):
        import_run(find_model(name)[0], folder, proof=False)
    return folder

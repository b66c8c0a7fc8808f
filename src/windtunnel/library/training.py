"""Train one config on several seeds, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.comparison.ablation import judge_ablations
from windtunnel.comparison.comparison import Judgement
from windtunnel.errors import BusyError, NumericsError, WindtunnelError
from windtunnel.library.model import Model, load
from windtunnel.library.progress import showing_runs
from windtunnel.library.settings import PathLike, assignments, config_for
from windtunnel.report.training import save_curves, verdict_line
from windtunnel.runs.execute import execute, open_executor
from windtunnel.runs.seeds import SplitLoss, Summary, create_seeds, evaluate_seeds, summarise, unfinished
from windtunnel.stats.intervals import Estimate
from windtunnel.training.change import Named, change_for
from windtunnel.training.disk import is_locked
from windtunnel.training.events import Event, Stopped
from windtunnel.training.machine import cores
from windtunnel.training.run import Run, open_run


def train(
    corpus: PathLike,
    recipe: str = "auto",
    *,
    seeds: int = 1,
    steps: int | None = None,
    start: PathLike | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    out: PathLike | None = None,
    change: Named | None = None,
    progress: bool = True,
    **settings: object,
) -> Seeds:
    """Train a language model on a corpus, a translator on pairs, a classifier on labels, or CLIP on captions.

    The same call again goes on where it was stopped, or gives the result at once.

    Args:
        corpus: a name from `windtunnel corpora`, or a file, folder or glob.
        recipe: see `recipe`; "auto" is one that fits the corpus.
        seeds: how many seeds to train, side by side, from the setting `seed` on.
        steps: optimizer steps; None is the recipe's.
        start: the run, or the name of a pretrained model, whose weights training begins with.
        task: "language", "translation", "classification" or "contrastive"; None is what the corpus says.
        columns: of a table, by what they mean: {"text": "review", "label": "stars"}.
        out: folder for the runs; None is one below ./runs.
        change: a function that alters the model, the optimizer, the loss or the batches; see docs/ideas.md.
        progress: whether bars are shown, on stderr or in the notebook.
        settings: as for `recipe`: `model__n_layers=2`.

    Raises:
        ConfigError: for settings that are unknown or do not fit each other, before anything is trained.
        DataError: for a corpus that cannot be read.
        NumericsError: when every seed diverged; the runs keep the weights from before.
        WindtunnelError: when every seed failed.

    >>> seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, progress=False)
    >>> len(seeds), seeds.loss.n
    (2, 2)
    """
    config = config_for(str(corpus), recipe, start, assignments(settings), columns, task, steps)
    numbers = range(config.seed, config.seed + seeds)
    folders = create_seeds(config, numbers, Path(out) if out is not None else None, change)
    endings = {}
    with showing_runs(progress) as show:
        for index, event in train_seeds(unfinished(folders), change):
            show(folders[index].name, event)
            if isinstance(event, Stopped):
                endings[index] = event
    return _sound(Seeds(tuple(folders), summarise(folders, endings)))


PATIENCE = 10.0
"""Seconds in which a process ends whose command was killed."""


def train_seeds(
    missing: Sequence[tuple[int, Run]], change: Named | None = None, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Event]]:
    """Train runs, as of `unfinished`, side by side; yields (index, event).

    Raises:
        BusyError: when another process is training one of them, and does not end within `PATIENCE`.
    """
    if not missing:
        return
    deadline = time.monotonic() + PATIENCE
    while busy := [run.folder for _, run in missing if is_locked(run.folder)]:
        if time.monotonic() > deadline or should_stop():
            raise BusyError(
                f"{busy[0]} is being trained by another process; wait for it, or choose another folder with --out"
            )
        time.sleep(0.3)
    named = [found.where if (found := change_for(run.config, run.folder, change)) else "" for _, run in missing]
    at_once = max(1, cores() // (missing[0][1].config.train.threads or cores()))
    with open_executor("local", at_once) as executor:
        for place, event in execute([run.folder for _, run in missing], executor, should_stop, changes=named):
            yield missing[place][0], event


def _sound(seeds: Seeds) -> Seeds:
    ends = {one.reason: one.message for one in seeds.summary.seeds}
    if "finished" not in ends:
        reason, message = next(iter(ends.items()))
        kind = NumericsError if reason == "diverged" else WindtunnelError
        raise kind(f"no seed of {seeds.folder} finished; {reason}: {message}")
    return seeds


@dataclass(frozen=True, repr=False)
class Seeds:
    """The runs of one config on several seeds: a sequence of their models, and what they say together.

    >>> seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, progress=False)
    >>> seeds[0].step
    20
    """

    folders: tuple[Path, ...]
    summary: Summary

    @property
    def folder(self) -> Path:
        """What holds the run folders."""
        return Path(self.summary.folder)

    @property
    def loss(self) -> Estimate | None:
        """The mean dev loss of the seeds that finished, in nats per target, with its 95 % interval."""
        return self.summary.loss

    @property
    def scores(self) -> Mapping[str, Estimate]:
        """The mean of every dev score by its name, such as bits_per_byte or accuracy."""
        return self.summary.scores

    def evaluate(self, split: str = "dev", corpus: PathLike | None = None) -> SplitLoss:
        """The scores of every seed on the whole of a split, train, dev or test, and their means.

        >>> seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, progress=False)
        >>> seeds.evaluate("test").loss.n
        2
        """
        return evaluate_seeds(self.folders, split, corpus=None if corpus is None else str(corpus))

    def ablate(self, **ablations: str | Sequence[str]) -> tuple[Judgement, ...]:
        """Judge what the models lose on the dev split without some of their sites, each ablation an arm.

        Args:
            ablations: by a name of yours the sites, as in `Model.ablate`: `first=["blocks.0.attention.heads.0"]`.

        Raises:
            ConfigError: for a site that there is not.

        >>> seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, progress=False)
        >>> seeds.ablate(attention="blocks.0.attention")[0].verdict.word  # two seeds never decide
        'undecided'
        """
        sites = {name: [own] if isinstance(own, str) else list(own) for name, own in ablations.items()}
        return judge_ablations(self.folders, sites)

    def curves(self, path: PathLike | None = None) -> Path:
        """Draw the train and dev losses of all seeds into a PNG, by default curves.png beside the runs; its path.

        >>> seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, progress=False)
        >>> seeds.curves("losses.png").name
        'losses.png'
        """
        return save_curves([open_run(folder) for folder in self.folders], Path(path or self.folder / "curves.png"))

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Model:
        return load(self.folders[index])

    def __iter__(self) -> Iterator[Model]:
        return (load(folder) for folder in self.folders)

    def __repr__(self) -> str:
        noun = open_run(self.folders[0]).config.task.noun
        return f"Seeds({self.folder}: {verdict_line(self.summary, noun)})"

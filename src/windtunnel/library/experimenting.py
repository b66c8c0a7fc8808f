"""The built-in experiments."""

from __future__ import annotations

from pathlib import Path

from windtunnel.errors import ConfigError
from windtunnel.experiments import EXPERIMENTS, find_experiment
from windtunnel.experiments.frame import Experiment, Setting, collect
from windtunnel.library.settings import PathLike
from windtunnel.report import terminal
from windtunnel.report.outcome import Outcome
from windtunnel.report.outcome_page import save_outcome
from windtunnel.report.outcome_tables import say_claim, showing
from windtunnel.runs.seeds import RUNS


def list_experiments() -> dict[str, str]:
    """The built-in experiments: by name the question that each answers.

    >>> wt.list_experiments()["email-ab-test"]
    'Which of five e-mail templates differ from A at 95 %?'
    """
    return {one.name: one.question for one in EXPERIMENTS.values()}


def experiment(
    name: str,
    *,
    quick: bool = False,
    seed: int = 0,
    corpus: PathLike | None = None,
    out: PathLike | None = None,
    progress: bool = True,
) -> Outcome:
    """Run a built-in experiment: claims with a verdict each, tables, figures. Page and figures are written, too.

    Args:
        name: one of `list_experiments`, or a row such as "003-1.E01".
        quick: a smaller run, with rougher numbers.
        seed: where its random numbers start.
        corpus: for an experiment on any text.
        out: folder for page and figures; None is one below ./runs/experiments.

    Raises:
        ConfigError: for an unknown name, naming the nearest, or a corpus for an experiment that has its own data.

    >>> found = wt.experiment("email-ab-test", progress=False)
    >>> found.claims[0].verdict
    'holds'
    """
    folder, text = None if out is None else Path(out), None if corpus is None else str(corpus)
    return run_experiment(name, quick, seed, folder, text, terminal.console(quiet=not progress))[1]


def run_experiment(
    name: str, quick: bool, seed: int, out: Path | None, corpus: str | None, console: terminal.PlainConsole
) -> tuple[Experiment, Outcome, list[Path]]:
    """The experiment of a name, what it found, and the files that were written; its progress goes to the console."""
    chosen = find_experiment(name)
    if corpus is not None and not chosen.takes_corpus:
        able = ", ".join(one.name for one in EXPERIMENTS.values() if one.takes_corpus)
        raise ConfigError(
            f"{chosen.name} has its own data, given the corpus {corpus}; leave it out, or run one of {able}"
        )
    # A quick run does not take the place of a whole one.
    folder = out or RUNS / "experiments" / (chosen.name + ("-quick" if quick else ""))
    with showing(console) as show:
        outcome = collect(chosen, Setting(quick, seed, folder, corpus), show, lambda claim: say_claim(console, claim))
    return chosen, outcome, list(save_outcome(outcome, folder))

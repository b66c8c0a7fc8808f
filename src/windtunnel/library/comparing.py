"""Arms, paired over seeds, and the verdict on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from windtunnel.comparison.compare import save_comparison, train_arms
from windtunnel.comparison.comparison import Comparison
from windtunnel.comparison.plan import make_plan
from windtunnel.comparison.slices import check_slices, conclude_all
from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.library.progress import showing_runs
from windtunnel.library.settings import PathLike, assignments, config_for
from windtunnel.programs import judge as programs
from windtunnel.programs.arms import make_plan as make_judge_plan
from windtunnel.report.comparison import save_report
from windtunnel.report.terminal import console
from windtunnel.runs import arms as arms_of
from windtunnel.runs.arms import Arm
from windtunnel.runs.budget import parse_budget
from windtunnel.runs.execute import open_executor
from windtunnel.runs.grid import at_once
from windtunnel.runs.seeds import RUNS
from windtunnel.training.run_config import RunConfig

Arms = Mapping[str, RunConfig | Mapping[str, Any] | Callable[..., Any] | None]


def vary(base: RunConfig, zipped: bool = False, **settings: Sequence[Any]) -> list[Arm]:
    """The arms of a grid: `vary(base, model__position=["learned", "rope"])`; each is named by what makes it.

    Args:
        base: see `recipe`.
        zipped: whether several settings vary together, one value each, and not as a grid.
        settings: by path, as for `recipe`, with a list of values each.

    Raises:
        ConfigError: for an unknown setting, a wrong value, lists of different lengths, or more than 64 arms.

    >>> [arm.name for arm in wt.vary(wt.recipe("tiny", "names"), model__position=["learned", "rope"])]
    ['position=learned', 'position=rope']
    """
    return _grid(base, settings, zipped)


def _grid(base: RunConfig, settings: Mapping[str, Sequence[Any]], zipped: bool = False) -> list[Arm]:
    axes = []
    for name, values in settings.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ConfigError(f"{name}: expected a list of values, given {values!r}")
        texts = [assignments({name: value})[0].partition("=") for value in values]
        axes.append((texts[0][0], [text.strip('"') for _, _, text in texts]))
    return arms_of.grid(base, axes, zipped)


def compare(
    what: PathLike | Sequence[Arm],
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    arms: Arms | None = None,
    recipe: str = "auto",
    start: PathLike | None = None,
    steps: int | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    seeds: int = 6,
    baseline: str | None = None,
    budget: str | None = None,
    margin: float = 0.005,
    alpha: float = 0.05,
    correction: str = "holm",
    until_decided: bool = False,
    slices: bool = False,
    executor: Executor | None = None,
    out: PathLike | None = None,
    progress: bool = True,
    **settings: Any,
) -> Comparison:
    """Train arms on the same seeds, as far as their runs are not there yet, and say which differences hold.

    A figure, a page and comparison.json are written into the result's `folder`. The same call goes on where it stopped.

    Args:
        what: a corpus, whose arms `vary` and `arms` make; or the arms themselves, as of `wt.vary`.
        vary: lists of values by path, which make a grid: {"model.position": ["learned", "rope"]}.
        arms: further arms by name: None is the recipe as it is, a mapping changes settings of it, a function alters
            model, optimizer, loss or batches (see docs/ideas.md).
        recipe, start, steps, task, columns, settings: of every arm, as for `train`.
        seeds: paired seeds of each arm; with until_decided the most there may be.
        baseline: the arm that the others are judged against; None is the first.
        budget: the same for every run, such as "flops=1e12", "tokens=1e6", "steps=500" or "seconds=60".
        margin: the share of the baseline's score below which a difference does not matter.
        alpha: the chance of a wrong winner among all arms.
        correction: "holm", "dunnett", "bonferroni" or "none".
        slices: whether arms that translate are judged by kinds of sources as well; mixes always are, by corpus.
        executor: any of concurrent.futures whose workers see the same folders; None runs processes on this machine.
        out: where runs are found and made; None is ./runs.

    Raises:
        ConfigError: for arms that cannot be compared, or a rule that can decide nothing.

    >>> found = wt.compare("names", vary={"optimizer.lr": [1e-3, 1e-2]}, recipe="tiny", steps=20, seeds=4,
    ...                    model__n_layers=1, progress=False)
    >>> found.judgements[0].verdict.word
    'better'
    """
    made = _arms(what, vary, arms, recipe, start, steps, task, columns, settings)
    limit = parse_budget(budget) if budget else None
    root = Path(out) if out is not None else RUNS
    plan = make_plan(made, seeds, baseline, limit, margin, alpha, correction, until_decided, root)  # type: ignore[arg-type]
    if slices:
        check_slices(plan)
    with (
        nullcontext(executor) if executor else open_executor("local", at_once(plan.grid)) as workers,
        showing_runs(progress, brief=True) as show,
    ):
        for name, seed, event in train_arms(plan, workers):
            show(f"{name}, seed {seed}", event)
    found = conclude_all(plan, slices)
    save_comparison(found)
    save_report(found, plan.folder)
    return found


def _arms(
    what: PathLike | Sequence[Arm],
    varied: Mapping[str, Sequence[Any]] | None,
    named: Arms | None,
    recipe: str,
    start: PathLike | None,
    steps: int | None,
    task: str | None,
    columns: Mapping[str, str] | None,
    settings: Mapping[str, Any],
) -> list[Arm]:
    if not isinstance(what, str | Path):
        if varied or named or settings or start or steps or task or columns or recipe != "auto":
            raise ConfigError(
                "arms are given, which have all their settings; give vary, arms, recipe, start, steps, task, columns "
                "and settings with a corpus, or make the arms with wt.vary"
            )
        return list(what)
    base = config_for(str(what), recipe, start, assignments(settings), columns, task, steps)
    made = _grid(base, varied) if varied else []
    for name, own in (named or {}).items():
        made.append(_arm(name, base, own))
    return made


def _arm(name: str, base: RunConfig, own: RunConfig | Mapping[str, Any] | Callable[..., Any] | None) -> Arm:
    if own is None or callable(own):
        return Arm(name, base, own)
    return Arm(name, own if isinstance(own, RunConfig) else override(base, assignments(own)))


def judge(
    arms: Mapping[str, str | PathLike],
    metric: str,
    *,
    higher: bool = False,
    seeds: int = 6,
    out: PathLike | None = None,
    progress: bool = True,
    **settings: Any,
) -> Comparison:
    """Judge anybody's programs, or their results, paired over seeds; see docs/judge.md.

    Args:
        arms: by name a shell command with {seed}, or a Path to results that exist: CSV, JSONL, logs, TensorBoard.
        metric: a pattern such as "val loss ([0-9.]+)", a key of JSON lines, or a column.
        higher: whether more is better.
        settings: further ones of a plan, as in its TOML file: margin, alpha, jobs, time_limit, repeat, baseline...

    Raises:
        ConfigError: for a plan that can decide nothing.
        DataError: for results that cannot be read.

    >>> command = "python -c \\"print('loss', {offset} + {{seed}} % 3)\\""
    >>> found = wt.judge({"a": command.format(offset=2), "b": command.format(offset=1)}, "loss ([0-9.]+)",
    ...                  progress=False)
    >>> found.judgements[0].verdict.word
    'better'
    """
    commands = {name: own for name, own in arms.items() if isinstance(own, str)}
    results = {name: str(own) for name, own in arms.items() if not isinstance(own, str)}
    better = "higher" if higher else "lower"
    asked = {"arms": commands, "results": results, "metrics": [{"where": metric, "better": better}], "seeds": seeds}
    plan = make_judge_plan({**asked, **settings})
    judged, said = programs.prepare(plan, Path(out) if out is not None else RUNS), console(quiet=not progress)
    with open_executor("local", plan.jobs) as workers:
        for name, seed, told in programs.run_arms(judged, workers):
            said.print(f"{name}, seed {seed}: {told}", soft_wrap=True)
    found = programs.conclude(judged)
    save_comparison(found)
    save_report(found, judged.folder)
    return found

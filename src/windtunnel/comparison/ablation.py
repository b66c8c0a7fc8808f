"""What a trained model loses without a part of it: each ablation is an arm, the whole model the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from windtunnel.comparison.comparison import Judgement, SeedRun
from windtunnel.comparison.judging import Found, Paired, differences, judge_pairs, judgement, scores_of
from windtunnel.comparison.verdict import Rule, margin_of
from windtunnel.errors import ConfigError
from windtunnel.inspect.sites import ablated
from windtunnel.runs.measure import Measured
from windtunnel.tasks import Task
from windtunnel.training.data import check_split, open_task
from windtunnel.training.evaluate import unit_sums
from windtunnel.training.run import TrainedModel, load

WHOLE = "the whole model"


def judge_ablations(
    folders: Sequence[Path],
    ablations: Mapping[str, Sequence[str]],
    split: str = "dev",
    margin: float = 0.005,
    alpha: float = 0.05,
) -> tuple[Judgement, ...]:
    """Judge each ablation by what it does to the scores of every seed on a split, paired with the whole model's.

    The interval over documents speaks of these models alone; a verdict is over seeds, of which it needs four.

    Args:
        folders: the runs, one config on several seeds.
        ablations: the sites that are zero, by the name of the arm; see `windtunnel.inspect.sites.ablated`.
        margin: the share of the whole model's score below which a difference does not matter.
        alpha: the chance of a wrong winner among all ablations (Holm).

    Raises:
        ConfigError: for a site that there is not, or a split that holds nothing.
        ArtifactError: for a run that cannot be read.
    """
    if not ablations:
        raise ConfigError("expected at least one ablation, given none")
    found: dict[str, list[Found]] = {name: [] for name in (WHOLE, *ablations)}
    for folder in folders:
        trained = load(folder)
        store = trained.run.store()
        check_split(folder, store, split)
        task = open_task(trained.run.config, store)
        for name, own in found.items():
            with ablated(trained.model, ablations[name]) if name in ablations else nullcontext():
                own.append(_measured(trained, task, split))
    metric, totals, base = task.metrics[0], task.totals(split), [one.run for one in found[WHOLE]]
    level = margin_of(margin, [run.scores[metric.name] for run in base], None)
    rule = Rule(level, alpha, better=metric.better)
    pairs = {name: differences(base, [one.run for one in found[name]], metric.name) for name in ablations}
    paired = Paired(found, metric, totals, rule, pairs)
    return tuple(judgement(verdict, paired, WHOLE, task.metrics) for verdict in judge_pairs(pairs, rule))


def _measured(trained: TrainedModel, task: Task, split: str) -> Found:
    sums = Measured(unit_sums(trained.model, task, split), None)
    folder = trained.run.folder
    scores = scores_of(sums, task.metrics, task.totals(split), folder)
    run = SeedRun(trained.run.config.seed, str(folder), "finished", "", scores)
    return Found(run, sums, None, None, "")

"""A finished run that goes on: a new run with more steps, which begins with all that the old one has written.

The longer run is what its own settings say, `schedule.ends` among them: trained from the start with them, it would have
the same weights, so the old checkpoint saves work and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.files import write_file
from windtunnel.runs.seeds import RUNS, config_folder, is_finished
from windtunnel.training.checkpoint import Checkpoint, newest_checkpoint, newest_step, save_checkpoint
from windtunnel.training.disk import saving
from windtunnel.training.run import METRICS, Run, best_step, corpus_facts, is_run, open_run, write_run
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate


@dataclass(frozen=True)
class Extended:
    """The folder of a longer run, and what its schedule does where it goes on."""

    folder: Path
    said: str


def extend_seeds(folders: Sequence[Path], steps: int, root: Path = RUNS) -> list[Extended]:
    """Create, or find again, a run of so many steps for each of these finished runs; they are to be trained then.

    Raises:
        ConfigError: for a run that cannot go on, or fewer steps than it has.
        ArtifactError: for a damaged run, or a corpus that has changed.
        SaveError: when the disk refuses.
    """
    runs = [open_run(folder) for folder in folders]
    configs = [_longer(run, steps) for run in runs]  # all are refused before one is written
    return [_extend(run, config, root) for run, config in zip(runs, configs, strict=True)]


def _longer(run: Run, steps: int) -> RunConfig:
    """The settings of the longer run."""
    config, folder = run.config, run.folder
    done = config.train.steps
    if "made" in run.record or not done:
        raise ConfigError(f"{folder} was not trained step by step; go on with: windtunnel train CORPUS --from {folder}")
    if config.change or config.generator is not None:
        what = "was changed in Python" if config.change else f"replays a script, generator={config.generator}"
        raise ConfigError(f"{folder} {what}, so no longer run begins as it does; train a new one with --steps {steps}")
    if not is_finished(run):
        raise ConfigError(f"{folder} has not finished its {done} steps; first: windtunnel resume {folder}")
    if steps <= done:
        raise ConfigError(f"{folder} has {done} steps already, given --steps {steps}; give more")
    schedule = config.schedule.replace(ends=(*config.schedule.ends, done))
    return config.replace(train=config.train.replace(steps=steps), schedule=schedule)


def _extend(run: Run, config: RunConfig, root: Path) -> Extended:
    folder = root / config_folder(config) / f"seed-{config.seed}"
    found = Extended(folder, _said(run, config, folder))
    if is_run(folder) and newest_step(folder) is not None:
        return found
    checkpoint = newest_checkpoint(run.folder)
    if checkpoint is None or checkpoint.step != run.config.train.steps:
        raise ArtifactError(f"the last checkpoint of {run.folder} cannot be used, so the run cannot be extended")
    if is_run(folder):
        longer = open_run(folder)
    else:
        origin = {"run": str(run.folder.resolve()), "config_sha256": run.record["config_sha256"]}
        facts = {**corpus_facts(run.store()), "extends": {**origin, "steps": checkpoint.step}}
        longer = write_run(folder, config, run.tokenizer, facts)
    log = (run.folder / METRICS).read_bytes()[: checkpoint.facts["metrics_size"]]
    with saving(folder / METRICS):
        write_file(folder / METRICS, log)
    best = newest_checkpoint(run.folder, best_step(run))
    for one in (best, checkpoint) if best and best.step < checkpoint.step else (checkpoint,):
        _copy(one, longer)
    return found


def _copy(checkpoint: Checkpoint, run: Run) -> None:
    facts = {name: value for name, value in checkpoint.facts.items() if name not in ("files", "format", "sha256")}
    facts["config_sha256"] = run.record["config_sha256"]
    save_checkpoint(run.folder, checkpoint.step, checkpoint.weights, checkpoint.optimizer, facts)


def _said(run: Run, config: RunConfig, folder: Path) -> str:
    """Where the run goes on, and its learning rates there."""
    done, steps, peak = run.config.train.steps, config.train.steps, config.optimizer.lr
    before, first, last = (
        f"{learning_rate(step, steps, peak, config.schedule):.3g}" for step in (done - 1, done, steps - 1)
    )
    return (
        f"{run.folder}, {done} steps, stays as it is; {folder} goes on from it to step {steps}. The schedule "
        f"({config.schedule.curve}) is that of {steps} steps from here on: the learning rate was {before} at step "
        f"{done}, is {first} at step {done + 1}, and {last} at step {steps}"
    )

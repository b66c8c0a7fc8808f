"""The history of runs in the forms that other trackers read; the run folder stays the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from windtunnel.config import plain
from windtunnel.errors import ConfigError
from windtunnel.files import write_file, write_text
from windtunnel.programs.tfevents import scalars_file
from windtunnel.runs.history import Log, as_csv
from windtunnel.training.disk import saving
from windtunnel.training.events import Evaluation, Event, Step
from windtunnel.training.run import METRICS, Run

FORMATS = ("tensorboard", "csv", "json")
FOLDER = Path("tensorboard")


def export_history(runs: Sequence[Run], format: str, out: Path | None) -> str | list[Path]:
    """The text of csv or json where there is no `out`, else the files that were written.

    Args:
        out: a file; for tensorboard a folder, by default ./tensorboard, in which each run has its own.

    Raises:
        ConfigError: for another format.
        ArtifactError: for a log that was altered.
        SaveError: when the disk refuses.
    """
    if format not in FORMATS:
        raise ConfigError(f"--export {format}: expected one of {', '.join(FORMATS)}")
    if format == "tensorboard":
        return [_write_tensorboard(run, (out or FOLDER) / run.name) for run in runs]
    text = "".join(as_csv([(run.name, log_of(run)) for run in runs])) if format == "csv" else _as_json(runs)
    if out is None:
        return text
    with saving(out):
        write_text(out, text)
    return [out]


def log_of(run: Run) -> Log:
    """All numbers of a run."""
    log = Log()
    log.update(run)
    return log


def _as_json(runs: Sequence[Run]) -> str:
    found = [
        {
            "run": run.name,
            "config": run.config.model_dump(mode="json"),
            "events": [{"event": type(event).__name__.lower(), **plain(vars(event))} for event in run.events()],
        }
        for run in runs
    ]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _write_tensorboard(run: Run, folder: Path) -> Path:
    path = folder / "events.out.tfevents.0.windtunnel"  # one name, so that the next export takes its place
    data = scalars_file(_rows(run))
    with saving(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    return path


def _rows(run: Run) -> Iterator[tuple[float, int, dict[str, float]]]:
    """The numbers of each step; a log has no times of day, so its last step is when it was last written."""
    log = log_of(run)
    path = run.folder / METRICS
    end = path.stat().st_mtime if path.exists() else 0.0
    begin = end - sum(step.seconds for step in log.steps.values())
    for number in sorted({*log.steps, *log.dev}):
        step, dev = log.steps.get(number), log.dev.get(number)
        begin += step.seconds if step else 0.0
        yield begin, number, {**numbers_of(step), **numbers_of(dev)}


def numbers_of(event: Event | None) -> dict[str, float]:
    """What trackers draw of an event, by name; nothing of one that is neither a step nor an evaluation."""
    match event:
        case Step():
            return {"train/loss": event.loss, "train/lr": event.lr, "train/grad_norm": event.grad_norm}
        case Evaluation():
            return {f"{event.split}/{name}": value for name, value in event.scores.items()}
        case _:
            return {}

"""The runs below a folder in plain data, for `windtunnel runs`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.runs.seeds import result_of
from windtunnel.text.corpora.mixes import corpora_in
from windtunnel.training.run import open_run


def describe_all(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """`describe` of each; of one that cannot be read its folder and what is wrong, in the state "damaged"."""
    nothing = dict.fromkeys(("corpus", "seed", "step", "steps", "dev", "config", "record"))
    found = []
    for folder in folders:
        try:
            found.append(describe(folder))
        except ArtifactError as error:
            found.append({**nothing, "folder": str(folder), "state": "damaged", "message": str(error)})
    return found


def listed(found: Sequence[dict[str, Any]], sort: str = "time", corpus: str | None = None) -> list[dict[str, Any]]:
    """Of `describe_all` those on a corpus, in their order or by dev loss, the best first and those without one last.

    Raises:
        ConfigError: for another order.
    """
    if sort not in ("time", "loss"):
        raise ConfigError(f"--sort {sort}: expected loss or time")
    chosen = [one for one in found if corpus is None or _is_on(one["corpus"], corpus)]
    loss = lambda one: one["dev"]["scores"]["loss"] if one["dev"] else math.inf  # noqa: E731
    return sorted(chosen, key=loss) if sort == "loss" else chosen


def _is_on(corpus: str | None, asked: str) -> bool:
    """Whether a run's corpus, or one of its mix, is the one asked for: by name, file name or path."""
    parts = (corpus, *corpora_in(corpus)) if corpus else ()
    return any(asked in (part, Path(part).name) or str(Path(asked).resolve()) == part for part in parts)


def describe(folder: Path) -> dict[str, Any]:
    """A run in plain data: what it is, how far it is, and its loss."""
    run = open_run(folder)
    result = result_of(run, run.events())
    return {
        "folder": str(folder),
        "corpus": run.config.corpus,
        "seed": run.config.seed,
        "step": result.step,
        "steps": run.config.train.steps,
        "state": run.record.get("made", result.reason),
        "message": result.message,
        "dev": asdict(result.dev) if result.dev else None,
        "config": run.config.model_dump(mode="json"),
        "record": dict(run.record),
    }

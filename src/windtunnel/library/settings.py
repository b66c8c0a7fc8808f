"""The settings of a run: a recipe on a corpus, and what is changed of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from windtunnel.config import lay_over, override, read_settings, says_all
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.runs.seeds import find_run, find_start
from windtunnel.text.corpora import CORPORA
from windtunnel.training import recipes
from windtunnel.training.imports import continue_from
from windtunnel.training.run import Run, open_run
from windtunnel.training.run_config import RunConfig

TASK_RECIPES = {
    "language": "auto",
    "translation": "translate",
    "classification": "classify",
    "contrastive": "clip",
}
"""The recipe that a task is trained with where none is named."""

TASK = {"label": "classify", "source": "translate", "target": "translate", "picture": "clip"}
"""The recipe that a column makes a table one for."""

PathLike = str | Path


def recipe(name: str, corpus: PathLike, **settings: Any) -> RunConfig:
    """The settings of a recipe on a corpus, as `train` and `compare` take them.

    Args:
        name: "auto" is one that fits the corpus; the others are tiny, small, quick, medium, gpt2, llama, mlp, makemore,
            translate, classify, clip and clip-frozen.
        corpus: a name from `windtunnel corpora`, or a file, folder or glob, or a mix: `a.txt:0.7,b.txt:0.3`.
        settings: changes by path, `model__n_layers=2` for `model.n_layers`, or a part at once: `model={"n_layers": 2}`.

    Raises:
        ConfigError: for an unknown recipe or setting, naming the nearest one.

    >>> config = wt.recipe("tiny", "names", model__n_layers=2)
    >>> config.model.n_layers, config.optimizer.name
    (2, 'adamw')
    """
    return override(recipes.recipe(name, str(corpus)), assignments(settings))


def config_for(
    corpus: str,
    name: str = "auto",
    start: PathLike | None = None,
    changes: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    steps: int | None = None,
    file: Path | None = None,
) -> RunConfig:
    """The settings that `train`, `compare` and `check` are asked for.

    Args:
        name: of a recipe; "auto" is one that fits the task, the columns or the corpus.
        start: the run, or the name of a pretrained model, whose weights training begins with.
        changes: PATH=VALUE each.
        columns: of a table, by what they mean: source and target, or text and label.
        steps: short for the change train.steps=N.
        file: with settings, in .json or .toml, that are laid over those of the recipe; one that says all is taken as
            it is. An empty corpus is the file's own.
    """
    data = read_settings(file) if file else {}
    corpus = corpus or str(data.get("corpus", ""))
    if not corpus:
        cure = f", or give {file} a line: corpus = 'names'" if file else ", e.g. names, or a file of your own"
        raise ConfigError(f"no corpus is given; name one{cure}")
    if task not in (None, *TASK_RECIPES):
        raise ConfigError(f"there is no task {task!r}; expected {' or '.join(TASK_RECIPES)}")
    if name == "auto" and task is not None:
        name = TASK_RECIPES[task]
    named = name if columns is None or name != "auto" else next((TASK[one] for one in TASK if one in columns), "auto")
    if start:
        base = continue_from(find_start(str(start)), corpus, named if columns and "label" in columns else name, columns)
    else:
        base = recipes.recipe(named, corpus, columns)
    if file:
        try:
            base = _laid_over(base, {**data, "corpus": corpus})
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
    more = [f"text.columns={json.dumps(dict(columns))}"] if columns else []
    return override(base, [*changes, *more, *([] if steps is None else [f"train.steps={steps}"])])


def run_or_corpus(name: str, changes: Sequence[str] = ()) -> tuple[RunConfig, Run | None]:
    """The settings of a run, or those that a corpus is trained with; a corpus that has a name wins.

    Raises:
        ArtifactError: for a damaged run, which is no corpus.
    """
    folder = None
    with suppress(ArtifactError):
        folder = None if name in CORPORA else find_run(name)
    if folder is None:
        return config_for(name, changes=changes), None
    run = open_run(folder)
    return override(run.config, changes), run


def _laid_over(base: RunConfig, data: Mapping[str, Any]) -> RunConfig:
    """A recipe, or what goes on from a run, with the settings of a file; one that says all needs no recipe."""
    if base.start is None:
        with suppress(ConfigError):  # settings that fit the recipe only
            alone = lay_over(RunConfig(corpus=base.corpus), data)
            if says_all(alone):  # what a run recorded before a setting came is not that of a recipe
                return alone
    return lay_over(base, data)


def assignments(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings as PATH=VALUE: `model__n_layers=2` and `model={"n_layers": 2}` are both model.n_layers=2."""
    found = []
    for name, value in settings.items():
        path = prefix + name.replace("__", ".")
        if isinstance(value, Mapping) and path != "text.columns":
            found += assignments(value, f"{path}.")
        else:
            found.append(f"{path}={_as_json(path, value)}")
    return found


def _as_json(path: str, value: Any) -> str:
    try:
        return json.dumps(str(value) if isinstance(value, Path) else value, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{path}: expected a number, text, list or dict, given {type(value).__name__} {value!r}"
        ) from None

"""Tasks: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from windtunnel.models import ModelConfig
from windtunnel.tasks.language import Language, LanguageConfig
from windtunnel.tasks.task import ACCURACY, BITS_PER_BYTE, LOSS, METRICS, Metric, Task, TaskConfig
from windtunnel.text.store import TokenStore

AnyTaskConfig = LanguageConfig
"""The type of a setting that is the config of any task, told apart by `kind`."""

Maker = Callable[[Any, ModelConfig, TokenStore], Task]
"""(config of the task, config of the model, corpus as tokens) -> task."""

TASKS: dict[str, Maker] = {"language": lambda config, model, store: Language(store, model)}


def make_task(config: TaskConfig, model: ModelConfig, store: TokenStore) -> Task:
    """The task of a config, for a model and a corpus."""
    return TASKS[config.kind](config, model, store)


__all__ = [
    "ACCURACY", "BITS_PER_BYTE", "LOSS", "METRICS", "TASKS", "AnyTaskConfig", "Language", "LanguageConfig", "Metric",
    "Task", "TaskConfig", "make_task",
]  # fmt: skip

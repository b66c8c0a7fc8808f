"""Tasks: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from windtunnel.models import ModelConfig
from windtunnel.tasks.language import Language, LanguageConfig
from windtunnel.tasks.task import ACCURACY, BITS_PER_BYTE, EXACT_MATCH, LOSS, METRICS, Metric, Task, TaskConfig
from windtunnel.tasks.translation import Translation, TranslationConfig
from windtunnel.text.store import TokenStore


def _kind(data: Any) -> str:
    return str(data.get("kind", "language") if isinstance(data, dict) else getattr(data, "kind", "language"))


AnyTaskConfig = Annotated[
    Annotated[LanguageConfig, Tag("language")] | Annotated[TranslationConfig, Tag("translation")], Discriminator(_kind)
]
"""The type of a setting that is the config of any task, told apart by `kind`."""

Maker = Callable[[Any, ModelConfig, TokenStore], Task]
"""(config of the task, config of the model, corpus as tokens) -> task."""

TASKS: dict[str, Maker] = {
    "language": lambda config, model, store: Language(store, model),
    "translation": lambda config, model, store: Translation(store, model),
}


def make_task(config: TaskConfig, model: ModelConfig, store: TokenStore) -> Task:
    """The task of a config, for a model and a corpus."""
    return TASKS[config.kind](config, model, store)


__all__ = [
    "ACCURACY", "BITS_PER_BYTE", "EXACT_MATCH", "LOSS", "METRICS", "TASKS", "AnyTaskConfig", "Language",
    "LanguageConfig", "Metric",    "Task", "TaskConfig", "Translation", "TranslationConfig", "make_task",
]  # fmt: skip

"""Tasks: one file each, and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windtunnel.config import any_of
from windtunnel.tasks.classification import Classification, ClassificationConfig
from windtunnel.tasks.contrastive import Contrastive, ContrastiveConfig
from windtunnel.tasks.language import Language, LanguageConfig
from windtunnel.tasks.mixed_language import MixedLanguage
from windtunnel.tasks.task import ACCURACY, BITS_PER_BYTE, EXACT_MATCH, LOSS, METRICS, RECALLS, Metric, Task, TaskConfig
from windtunnel.tasks.translation import Translation, TranslationConfig

TASKS: dict[str, type[TaskConfig]] = {
    "language": LanguageConfig,
    "translation": TranslationConfig,
    "classification": ClassificationConfig,
    "contrastive": ContrastiveConfig,
}

if TYPE_CHECKING:
    AnyTaskConfig = TaskConfig
else:
    AnyTaskConfig = any_of(TASKS)
"""The type of a setting that is the config of any task, told apart by `kind`."""

__all__ = [
    "ACCURACY", "BITS_PER_BYTE", "EXACT_MATCH", "LOSS", "METRICS", "RECALLS", "TASKS", "AnyTaskConfig",
    "Classification", "ClassificationConfig", "Contrastive", "ContrastiveConfig", "Language", "LanguageConfig",
    "Metric", "MixedLanguage", "Task", "TaskConfig", "Translation", "TranslationConfig",
]  # fmt: skip

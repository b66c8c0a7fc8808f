"""What is examined: a config, its corpus and the model that training begins with; of a run also what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models import build
from windtunnel.tasks import Task
from windtunnel.text.store import TokenStore
from windtunnel.training.checkpoint import load_weights, newest_checkpoint
from windtunnel.training.data import open_store, open_task
from windtunnel.training.events import Event
from windtunnel.training.run import initial_model, no_checkpoint, open_run, resolve
from windtunnel.training.run_config import RunConfig


@dataclass(frozen=True)
class Subject:
    """A model before training and, of a run, its newest checkpoint and history.

    model: as training begins. trained: the newest checkpoint after `step` steps; None for a recipe.
    optimizer: the checkpoint's optimizer state by 'KIND/PARAMETER'.
    """

    name: str
    config: RunConfig
    store: TokenStore
    model: nn.Module
    trained: nn.Module | None = None
    step: int = 0
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    events: Sequence[Event] = ()

    @property
    def floor(self) -> float | None:
        """The corpus's entropy in nats per token, where it is known."""
        truth = self.store.corpus.truth
        return truth.floor(self.store.tokenizer) if truth else None

    @property
    def task(self) -> Task:
        """What the run learns."""
        return open_task(self.config, self.store)


def recipe_subject(name: str, config: RunConfig) -> Subject:
    """The subject of a config that was not trained yet.

    Raises:
        ConfigError, DataError: when the config and its corpus do not fit.
    """
    _refuse_lora(name, config)
    store = open_store(config)
    resolved = resolve(config, store)
    return Subject(name, resolved, store, initial_model(resolved))


def run_subject(folder: Path) -> Subject:
    """The subject of a run folder.

    Raises:
        ArtifactError: when it is no run, was altered, or has no checkpoint yet.
        ConfigError: when the run was imported without a corpus.
    """
    run = open_run(folder)
    if run.config.change:
        raise ConfigError(
            f"{folder} trains with a change in Python, and check does not execute one; check its settings"
        )
    _refuse_lora(str(folder), run.config)
    store, checkpoint = run.store(), newest_checkpoint(folder)
    if checkpoint is None:
        raise no_checkpoint(folder)
    trained = build(run.config.model, run.config.seed)
    load_weights(trained, checkpoint.weights)
    imported = run.config.train.steps == 0  # there was no random beginning
    return Subject(
        name=str(folder),
        config=run.config,
        store=store,
        model=trained if imported else initial_model(run.config),
        trained=trained,
        step=checkpoint.step,
        optimizer=checkpoint.optimizer,
        events=run.events(),
    )


def _refuse_lora(name: str, config: RunConfig) -> None:
    if config.lora.rank:
        raise ConfigError(
            f"{name} trains thin matrices beside frozen weights (lora.rank={config.lora.rank}), and check examines "
            "runs that train all weights; check the run that it begins with"
        )

"""Train a copy for a short while, as the run would begin, and watch how far each parameter moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from windtunnel.errors import NumericsError
from windtunnel.models import Model
from windtunnel.tasks import Task
from windtunnel.text.batches import batch
from windtunnel.training.data import train_examples
from windtunnel.training.events import Step
from windtunnel.training.optimizer import optimizer_tensors
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate
from windtunnel.training.trainer import Trainer

N_RATIOS = 12
"""Number of steps, evenly spread, at which the update is compared with the weights."""


@dataclass(frozen=True)
class ShortTraining:
    """What a copy went through: one value a step that was done.

    ratios: for each parameter, std(update) / std(weights) at the steps `ratio_steps` (root mean squares for tensors
        that begin as constants).
    message: why it stopped early; "" when it did not.
    """

    losses: tuple[float, ...]
    lrs: tuple[float, ...]
    grad_norms: tuple[float, ...]
    ratio_steps: tuple[int, ...]
    ratios: dict[str, tuple[float, ...]]
    message: str
    model: nn.Module
    optimizer: dict[str, Tensor]


def beginning(config: RunConfig, steps: int) -> Callable[[int], float]:
    """The learning rate of the run's first steps, its warm-up squeezed into the first half of these `steps`."""
    schedule = config.schedule.replace(warmup=min(config.schedule.warmup, steps // 2))
    return lambda step: learning_rate(step, max(config.train.steps, steps), config.optimizer.lr, schedule)


def train_copy(
    model: nn.Module, config: RunConfig, task: Task, steps: int, lr: Callable[[int], float]
) -> ShortTraining:
    """Train a copy of a model on the batches of the run's own first steps, in float32.

    Args:
        lr: the learning rate of each step from 0.
    """
    source = train_examples(config, task)
    plain = config.replace(train=config.train.replace(precision="fp32", compile=False, recompute=False))
    trial = cast(Model, copy.deepcopy(model))
    trainer = Trainer.begin(plain, task, trial, lambda step: batch(source, config.train.batch_size, config.seed, step))
    done: list[Step] = []
    ratio_steps = sorted({max(1, round(steps * (i + 1) / N_RATIOS)) for i in range(N_RATIOS)})
    ratios: dict[str, list[float]] = {name: [] for name, _ in trial.named_parameters()}
    message = ""
    for step in range(steps):
        measured = step + 1 in ratio_steps
        before = {name: p.detach().clone() for name, p in trial.named_parameters()} if measured else {}
        try:
            done.append(trainer.step(lr(step)))
        except NumericsError as error:
            message = f"step {step + 1}: {error}"
            break
        for name, p in trial.named_parameters() if measured else ():
            ratios[name].append(_spread(p.detach() - before[name]) / max(_spread(before[name]), 1e-12))
    return ShortTraining(
        tuple(step.loss for step in done),
        tuple(step.lr for step in done),
        tuple(step.grad_norm for step in done),
        tuple(measured for measured in ratio_steps if measured <= len(done)),
        {name: tuple(values) for name, values in ratios.items()},
        message,
        trial,
        optimizer_tensors(trainer.state.optimizer, trial),
    )


def _spread(x: Tensor) -> float:
    """The standard deviation, or the root mean square of what hardly varies (a norm's weights before training)."""
    std, rms = torch.std(x, correction=0).item(), x.square().mean().sqrt().item()
    return std if std > 1e-3 * rms else rms

"""What takes a run from step to step: batch, gradient, guard, update."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from windtunnel.models import Model
from windtunnel.tasks import Task
from windtunnel.tasks.task import LossSum
from windtunnel.training import machine
from windtunnel.training.change import Change, Setup, set_up
from windtunnel.training.compiling import loss_function, prepare_blocks
from windtunnel.training.data import BatchOf, batches
from windtunnel.training.distributed import ALONE, Ranks
from windtunnel.training.events import Step
from windtunnel.training.frozen import freeze
from windtunnel.training.optimizer import build_optimizer
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate
from windtunnel.training.step import gradients, guard, update


@dataclass
class State:
    """What changes while training; all of it is in a checkpoint."""

    model: Model
    optimizer: torch.optim.Optimizer
    step: int
    first_loss: float | None


class Trainer:
    """Takes steps of a run: the loop, a timed arm, the doctor and the benchmarks take the same ones.

    Attributes:
        loss_of: batch -> summed loss in nats, with the model inside, as the run is compiled.
        batch_of: step -> the batch of that step.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        state: State,
        ranks: Ranks = ALONE,
        batch_of: BatchOf | None = None,
        loss: LossSum | None = None,
    ) -> None:
        """Args:
        batch_of, loss: other batches, and another loss, than the run's own.

        Raises:
            DataError: when the corpus is too small for the context.
        """
        self.config, self.task, self.state, self.ranks = config, task, state, ranks
        self.loss_of = loss_function(ranks.forward(state.model), task, config, ranks.size, loss)
        self.batch_of = batch_of or batches(config, task)

    @classmethod
    def begin(
        cls, config: RunConfig, task: Task, model: Model, batch_of: BatchOf | None = None, change: Change | None = None
    ) -> Trainer:
        """Before the first step of a model, which is moved to this machine's device and trained in place."""
        freeze(model, config.train.freeze)
        if change is not None:
            return cls.of(set_up(change, config, task, model))
        prepare_blocks(model, config)
        model.to(machine.device()).train()
        return cls(config, task, State(model, build_optimizer(model, config.optimizer), 0, None), batch_of=batch_of)

    @classmethod
    def of(cls, setup: Setup) -> Trainer:
        """Before the first step of what a change made."""
        prepare_blocks(setup.model, setup.config)
        setup.model.train()
        state = State(setup.model, setup.optimizer, 0, None)
        return cls(setup.config, setup.task, state, batch_of=setup.batch_of, loss=setup.loss)

    def step(self, lr: float | None = None) -> Step:
        """Take the next step.

        Args:
            lr: another learning rate than the schedule's.

        Raises:
            NumericsError: when the loss, the gradient or the update is not to be trusted; the weights and the number
                of steps are then as before.
        """
        config, state, begin = self.config, self.state, time.perf_counter()
        train = config.train
        rows = self.batch_of(state.step).to(next(state.model.parameters()).device)
        loss = gradients(self.loss_of, rows, train.grad_accumulation, config.seed, state.step, self.ranks)
        first = state.first_loss if state.first_loss is not None else loss
        guard(loss, train.explode * max(first, self.task.blind))
        rate = learning_rate(state.step, train.steps, config.optimizer.lr, config.schedule) if lr is None else lr
        norm = update(state.model, state.optimizer, rate, train.clip, self.ranks)
        state.step, state.first_loss = state.step + 1, first
        return Step(state.step, loss, rate, norm, rows.n_targets, time.perf_counter() - begin)

"""Seeds of one tiny model train in lock-step, stacked along a leading dimension S, and share the overhead.

A step of a model of 12 thousand parameters is nearly all dispatch, so several side by side cost little more than one.
Each run goes through `windtunnel.training.loop.resume` as if it were alone, with its own lock, log, evaluations and
checkpoints; only its steps come from a `Stack`, which computes a block of them for all runs at once. Rounding differs
from the run alone. A stack that is stopped and resumed as a whole is equal in every bit; one whose runs stand at
different steps goes on in several, and their weights may differ from the undisturbed ones by rounding.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from windtunnel.config import to_json
from windtunnel.errors import NumericsError, WindtunnelError
from windtunnel.models import Model
from windtunnel.tasks import Task
from windtunnel.training import machine
from windtunnel.training.compiling import compiles
from windtunnel.training.data import rows_of_steps
from windtunnel.training.events import Event, Step, Stopped
from windtunnel.training.loop import WriteSample, resume
from windtunnel.training.optimizer import OptimizerConfig, optimizer_tensors, restore_optimizer
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate
from windtunnel.training.step import LONGEST_UPDATE, SHORTEST_WEIGHT
from windtunnel.training.trainer import State, Trainer

BLOCK = 100
"""Steps between two readings of the losses. Blocks end at its multiples, so that a resumed stack has the same ones."""


def resume_stacked(
    folders: Sequence[Path], should_stop: Callable[[], bool] = lambda: False, write_sample: WriteSample | None = None
) -> Iterator[tuple[int, Event]]:
    """Train the runs in these folders as `resume` does; yields (index of the folder, event).

    Those that stand at the same step of the same config but for the seed go together. Each ends in exactly one Stopped
    event: what ends one of them, an error too, ends no other. `should_stop` is asked before every block of steps.
    """
    members = [Member(place) for place in range(len(folders))]
    note = f"one of {len(folders)} seeds that train together"
    with ExitStack() as held:
        for member, folder in zip(members, folders, strict=True):
            events = resume(folder, member.should_stop, write_sample, stepping=member.join, note=note)
            member.events = held.enter_context(closing(events))  # type: ignore[type-var]
            yield from member.until(0)
        waiting = sorted((member for member in members if not member.ended), key=Member.kind)
        for _, group in groupby(waiting, Member.kind):
            yield from _in_turn(Stack(list(group), should_stop))


def _in_turn(stack: Stack) -> Iterator[tuple[int, Event]]:
    """Every run's events up to the end of a block, before the first of them has the next block computed."""
    while going := [member for member in stack.members if not member.ended]:
        end = stack.next_end()
        for member in going:
            yield from member.until(end)


class Member:
    """One run's place in a stack."""

    def __init__(self, place: int) -> None:
        self.place, self.ended = place, False
        self.coming: deque[Step | NumericsError] = deque()
        self.again: dict[str, Tensor] = {}
        self.events: Iterator[Event] = iter(())
        self.stack: Stack

    def join(self, config: RunConfig, task: Task, state: State) -> Callable[[], Step]:
        """What `resume` calls when it has restored the run; returns what makes its steps."""
        self.config, self.task, self.state = config, task, state
        self.rows, self.by_itself = rows_of_steps(config, task), Trainer(config, task, state).step
        return self.step

    def kind(self) -> tuple[int, str]:
        """What must be equal in a stack."""
        return self.state.step, to_json(self.config.replace(seed=0))

    def until(self, step: int) -> Iterator[tuple[int, Event]]:
        """The run's events up to the end of this step, or to its own end."""
        for event in self._safely():
            self.ended = self.ended or isinstance(event, Stopped)
            yield self.place, event
            if not self.ended and event.step >= step and (step == 0 or isinstance(event, Step)):
                return

    def _safely(self) -> Iterator[Event]:
        try:
            while (event := next(self.events, None)) is not None:
                yield event
        except WindtunnelError as error:
            if not self.ended:
                yield Stopped(0, "failed", str(error))

    def should_stop(self) -> bool:
        """Whether this run is to stop before its next step; inside a block nobody does."""
        return self.state.step == self.stack.at and self.stack.stops()

    def step(self) -> Step:
        """The next step; the last one of a block leaves the run's own model and optimizer as they are then."""
        if self.state.step == self.stack.at:
            self.stack.advance()
        if self.again:
            self.stack.repeat(self, self.again)
            self.again = {}
        event = self.coming.popleft()
        if isinstance(event, NumericsError):
            raise event
        self.state.step = event.step
        if self.state.first_loss is None:
            self.state.first_loss = event.loss
        if not self.coming and self.stack.evaluates_or_saves(event.step):
            self.stack.put_back(self)
        return event


class Stack:
    """The weights (S, P), running statistics and optimizer states of S runs, and how they take their steps."""

    def __init__(self, members: list[Member], should_stop: Callable[[], bool]) -> None:
        self.members, self.should_stop = members, should_stop
        self.config, self.at = members[0].config, members[0].state.step
        self.asked: tuple[int, bool] = (-1, False)
        for member in members:
            member.stack = self
        rows = [_flat(member.state, self.config.optimizer) for member in members]
        self.tensors = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        self.take_step: StackedStep | None = None

    def stops(self) -> bool:
        """Asked once for all runs before each block."""
        if self.asked[0] != self.at:
            self.asked = self.at, self.should_stop()
            if self.asked[1]:
                for member in self.members:
                    self.put_back(member)
        return self.asked[1]

    def next_end(self) -> int:
        """Where the block that comes next ends: at the next step after which a run looks, saves or reads losses."""
        train = self.config.train
        return min(train.steps, *(self.at // n * n + n for n in (BLOCK, train.eval_every, train.save_every)))

    def evaluates_or_saves(self, step: int) -> bool:
        """Whether a run evaluates or saves after this step."""
        train = self.config.train
        return step == train.steps or step % train.eval_every == 0 or step % train.save_every == 0

    def advance(self) -> None:
        """Compute a block of steps for all runs.

        One that its guards could refuse takes the block again by itself, from where it stood, as a run alone does.
        """
        begin, start, end = time.perf_counter(), self.at, self.next_end()
        before = {name: tensor.clone() for name, tensor in self.tensors.items()}
        losses, norms = self._block(start, end)
        seconds = (time.perf_counter() - begin) / (end - start)
        config, self.at = self.config, end
        rates = [learning_rate(s, config.train.steps, config.optimizer.lr, config.schedule) for s in range(start, end)]
        for i, member in enumerate(self.members):
            if member.ended:
                continue
            if self._doubtful(member, losses[i], norms[i], rates):
                member.again = {name: tensor[i] for name, tensor in before.items()}
            else:
                numbers = zip(range(start + 1, end + 1), losses[i], rates, norms[i], strict=True)
                n_targets = config.train.batch_size
                member.coming.extend(Step(s, loss, lr, norm, n_targets, seconds) for s, loss, lr, norm in numbers)

    def _block(self, start: int, end: int) -> tuple[list[list[float]], list[list[float]]]:
        """Losses and gradient norms of these steps, run by run."""
        size = self.config.train.batch_size
        drawn = [member.rows(start, end) for member in self.members]
        inputs = {name: _side_by_side([batch.inputs[name] for batch in drawn], size) for name in drawn[0].inputs}
        targets = _side_by_side([batch.targets for batch in drawn], size)
        rows = [({name: part[i] for name, part in inputs.items()}, targets[i]) for i in range(end - start)]
        rates = _rates(self.config, start, end)
        if self.take_step is None:
            tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
            self.take_step = traced_step(self.config, self.members[0], tensors, *rows[0], rates[0])
        with torch.no_grad():
            numbers = [self.take_step(self.tensors, *row, rate) for row, rate in zip(rows, rates, strict=True)]
        losses, norms = (torch.stack([pair[part] for pair in numbers], dim=1).tolist() for part in (0, 1))
        return losses, norms

    def _doubtful(self, member: Member, losses: list[float], norms: list[float], rates: list[float]) -> bool:
        """Whether `guard` or `update` of `windtunnel.training.step` might refuse one of these steps."""
        train, first = self.config.train, member.state.first_loss
        limit = train.explode * max(losses[0] if first is None else first, member.task.blind)
        root = math.sqrt(self.tensors["weights"].shape[1])
        clip = math.inf if train.clip is None else train.clip
        sgd = self.config.optimizer.name == "sgd"
        return not all(
            loss <= limit
            and math.isfinite(norm)
            and rate * (min(norm, clip) if sgd else root) <= LONGEST_UPDATE * SHORTEST_WEIGHT * root
            for loss, norm, rate in zip(losses, norms, rates, strict=True)
        )

    def repeat(self, member: Member, before: Mapping[str, Tensor]) -> None:
        """The block once more for one run by itself, from where it stood; called when it is that run's turn."""
        state, i = member.state, self.members.index(member)
        _restore(state, before, self.config.optimizer, state.step)
        try:
            while state.step < self.at:
                member.coming.append(member.by_itself())
        except NumericsError as error:
            member.coming.append(error)
        for name, tensor in _flat(state, self.config.optimizer).items():
            self.tensors[name][i] = tensor

    def put_back(self, member: Member) -> None:
        """Copy a run's part of the stack into its own model and optimizer."""
        i = self.members.index(member)
        _restore(
            member.state, {name: tensor[i] for name, tensor in self.tensors.items()}, self.config.optimizer, self.at
        )


def _moments(config: OptimizerConfig) -> tuple[str, ...]:
    """What the optimizer of torch keeps for every weight, in its own words."""
    return ("exp_avg", "exp_avg_sq") if config.name == "adamw" else ("momentum_buffer",) * bool(config.momentum)


def _flat(state: State, config: OptimizerConfig) -> dict[str, Tensor]:
    """All that a step changes of one run: weights (P,), moments (P,) by name, running statistics by name."""
    own = optimizer_tensors(state.optimizer, state.model)
    named = {name: parameter.detach() for name, parameter in state.model.named_parameters()}
    flat = {"weights": torch.cat([parameter.flatten() for parameter in named.values()])}
    for kind in _moments(config):
        parts = [own.get(f"{kind}/{name}", torch.zeros_like(parameter)) for name, parameter in named.items()]
        flat[kind] = torch.cat([part.flatten() for part in parts])
    return flat | {f"buffer/{name}": buffer.clone() for name, buffer in state.model.named_buffers()}


def _restore(state: State, flat: Mapping[str, Tensor], config: OptimizerConfig, step: int) -> None:
    """The inverse of `_flat`; `step` is how many steps lie behind."""
    own: dict[str, Tensor] = {}
    for kind in _moments(config):
        own |= {f"{kind}/{name}": value.clone() for name, value in _unflat(flat[kind], state.model).items()}
    if config.name == "adamw":
        own |= {f"step/{name}": torch.tensor(float(step)) for name, _ in state.model.named_parameters()}
    with torch.no_grad():
        for name, value in _unflat(flat["weights"], state.model).items():
            state.model.get_parameter(name).copy_(value)
        for name, buffer in state.model.named_buffers():
            buffer.copy_(flat[f"buffer/{name}"])
    if step:
        restore_optimizer(state.optimizer, state.model, own)


def _unflat(flat: Tensor, model: Model) -> dict[str, Tensor]:
    """(..., P) -> (..., *shape) of each parameter by name."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    parts = torch.split(flat, [shape.numel() for shape in shapes.values()], dim=-1)
    return {
        name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


StackedStep = Callable[[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]
"""(tensors, which it changes, inputs (S, B, ...), targets (S, B, T'), rates (3,)) -> losses (S,), norms (S,)."""


def _side_by_side(parts: Sequence[Tensor], size: int) -> Tensor:
    """The rows (n_steps * size, ...) of each of S runs as (n_steps, S, size, ...)."""
    return torch.stack([part.view(-1, size, *part.shape[1:]) for part in parts], dim=1)


def _rates(config: RunConfig, start: int, end: int) -> Tensor:
    """Of each step the learning rate, and by what AdamW's two averages fall short of those without a beginning."""
    optimizer = config.optimizer
    rates = [
        (
            learning_rate(step, config.train.steps, optimizer.lr, config.schedule),
            1 - optimizer.beta_1 ** (step + 1),
            1 - optimizer.beta_2 ** (step + 1),
        )
        for step in range(start, end)
    ]
    return torch.tensor(rates, dtype=torch.float64).float()


def traced_step(
    config: RunConfig,
    member: Member,
    tensors: dict[str, Tensor],
    inputs: dict[str, Tensor],
    targets: Tensor,
    rates: Tensor,
) -> StackedStep:
    """A step of a stack as a plain list of operations, compiled when the run is; the tensors are only examples."""
    optimizer, clip, model = config.optimizer, config.train.clip, member.state.model
    decayed = {name: torch.full(p.shape, float(p.dim() >= 2)) for name, p in model.named_parameters()}
    decay_P = torch.cat([part.flatten() for part in decayed.values()]) * optimizer.weight_decay

    def loss_of(weights_P: Tensor, buffers: dict[str, Tensor], inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        logits = functional_call(model, (_unflat(weights_P, model), buffers), (), inputs)
        return member.task.training_loss_sum(logits, targets) / config.train.batch_size

    def step(
        tensors: dict[str, Tensor], inputs: dict[str, Tensor], targets: Tensor, rates: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights_SP = tensors["weights"].detach().requires_grad_()
        buffers = {name.removeprefix("buffer/"): b for name, b in tensors.items() if name.startswith("buffer/")}
        losses_S = vmap(loss_of)(weights_SP, buffers, inputs, targets)
        (gradient_SP,) = torch.autograd.grad(losses_S.sum(), weights_SP)
        with torch.no_grad():
            norms_S = torch.linalg.vector_norm(gradient_SP, dim=1)
            if clip is not None:
                gradient_SP = gradient_SP * (clip / (norms_S + 1e-6)).clamp(max=1)[:, None]
            _update(optimizer, tensors, gradient_SP, decay_P, *rates.unbind())
        return losses_S.detach(), norms_S

    with torch.enable_grad():
        traced = make_fx(step)(tensors, inputs, targets, rates)
    if not compiles(config):
        return traced
    machine.prepare_compiler()
    return torch.compile(traced, dynamic=False)


def _update(
    config: OptimizerConfig, tensors: dict[str, Tensor], g: Tensor, decay: Tensor, lr: Tensor, c_1: Tensor, c_2: Tensor
) -> None:
    """What torch's SGD and AdamW do, on weights of any shape."""
    weights = tensors["weights"]
    if config.name == "sgd":
        if config.weight_decay:
            g = g + decay * weights
        if config.momentum:
            g = tensors["momentum_buffer"].mul_(config.momentum).add_(g)
        weights.sub_(lr * g)
        return
    mean = tensors["exp_avg"].mul_(config.beta_1).add_(g, alpha=1 - config.beta_1)
    square = tensors["exp_avg_sq"].mul_(config.beta_2).addcmul_(g, g, value=1 - config.beta_2)
    if config.weight_decay:
        weights.mul_(1 - lr * decay)
    weights.sub_(lr / c_1 * mean / (square.sqrt() / c_2.sqrt() + config.epsilon))

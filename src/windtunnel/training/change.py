"""A change is a function in a file of the user's own: it is given what a run is about to train with, and alters it.

    def relu(setup: Setup) -> Setup:
        for block in setup.model.blocks:
            block.feed_forward.activation = torch.relu
        return setup

`--change idea.py:relu` names it. The file's SHA-256 is in the run's config and a copy of it in the run's folder, from
which it is never executed: whoever trains the run on names the file again, and it must be the same.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from windtunnel.errors import ArtifactError, ConfigError, WindtunnelError
from windtunnel.files import read_given
from windtunnel.models import Model
from windtunnel.nn.init import stream
from windtunnel.tasks import Task
from windtunnel.tasks.task import LossSum
from windtunnel.training import machine
from windtunnel.training.data import BatchOf, batches
from windtunnel.training.optimizer import build_optimizer
from windtunnel.training.run_config import ChangeConfig, RunConfig
from windtunnel.training.step import seed_all

LARGEST = 1 << 20
"""Bytes of a file with a change."""
KEPT = "change.py"
"""The copy in the run's folder, to be read."""
_loading: list[Path] = []


@dataclass(frozen=True)
class Setup:
    """What a run trains with, as it stands before the first step.

    A change returns it: as it is after altering the model in place, or with other parts, by `replace`.

    model: with its first weights, on this machine's device. New weights that torch draws are a function of the seed.
    optimizer: over all parameters of the model. The schedule sets the `lr` of all its groups before every step, times
        the `factor` of a group that has one. One of your own keeps what changes while it trains in
        `optimizer.state[parameter]`, as tensors: a checkpoint has these.
    loss: (logits (B, T', V), targets (B, T')) -> the sum over all targets, in nats, (); IGNORED ones take no part. It
        is for training: every run is judged by the task's own.
    batch_of: step, from 0 on -> Batch; a function of nothing else, so that a resumed run sees the same.
    task, config: to be read.
    """

    model: Model
    optimizer: torch.optim.Optimizer
    loss: LossSum
    batch_of: BatchOf
    task: Task
    config: RunConfig

    def replace(self, **parts: Any) -> Setup:
        """This setup with other parts, by name: model, optimizer, loss, batch_of."""
        return replace(self, **parts)


@dataclass(frozen=True)
class Change:
    """A function of a file, and the source as it was read; nothing is executed before `load`."""

    path: Path
    function: str
    source: str

    @property
    def name(self) -> str:
        """`idea.py:function`, as people say it."""
        return f"{self.path.name}:{self.function}"

    @property
    def where(self) -> str:
        """The whole path and the function, as `read_change` takes it."""
        return f"{self.path}:{self.function}"

    @property
    def config(self) -> ChangeConfig:
        """What a run's config says of it."""
        return ChangeConfig(function=self.function, source_sha256=hashlib.sha256(self.source.encode()).hexdigest())

    def load(self) -> Callable[[Setup], object]:
        """The function, out of the file executed afresh.

        Raises:
            ConfigError: when the file fails, or has no such function.
        """
        module = ModuleType(f"windtunnel_change_{self.config.source_sha256[:12]}")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # dataclasses look there
        _loading.append(self.path)
        try:
            with users_code(self):
                exec(compile(self.source, str(self.path), "exec"), module.__dict__)
        finally:
            _loading.pop()
        found = getattr(module, self.function, None)
        if not callable(found):
            there = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            near = difflib.get_close_matches(self.function, there, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(there) or 'none'}"
            raise ConfigError(f"{self.path} has no function {self.function!r}; {hint}")
        return found


@dataclass(frozen=True)
class Trial:
    """A change, and what it turned out to do when `windtunnel.training.trial` looked.

    n_parameters: of the changed model.
    flops: of the changed forward pass, times those of the model that the settings describe; NaN is not known.
    tokens: targets in the batches, times those of the run's own.
    alters_model: whether the weights mean something else without the change.
    other_batches, other_loss: whether the run reads batches of its own, or trains on another loss.
    """

    change: Change
    n_parameters: int
    flops: float
    tokens: float
    alters_model: bool
    other_batches: bool
    other_loss: bool

    def facts(self) -> dict[str, Any]:
        """For a run's record; what is not known is null."""
        found = {name: value for name, value in vars(self).items() if name != "change"}
        known = {name: None if math.isnan(value) else value for name, value in found.items()}
        return {"file": str(self.change.path), **self.change.config.model_dump(), **known}


Named = str | Change | Callable[[Setup], object]
"""A change as a user names it: FILE:FUNCTION, or the function itself."""


def read_change(named: Named) -> Change:
    """The change of `FILE:FUNCTION`, or of a function that stands at the top level of a file.

    Raises:
        ConfigError: when there is no such file, it cannot be read, or the function is in none.
    """
    if isinstance(named, Change):
        return named
    where = named if isinstance(named, str) else _where(named)
    file, separator, function = where.rpartition(":")
    if not (separator and file and function.isidentifier()):
        raise ConfigError(f"--change {where!r}: expected FILE:FUNCTION, such as idea.py:activation")
    path = Path(file).absolute()
    if _loading:
        raise ConfigError(
            f"{_loading[-1].name} trains while it is read for its function {function!r}; put what it runs below "
            "if __name__ == '__main__':"
        )
    try:
        return Change(path, function, read_given(path, LARGEST))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--change {where}: {file} cannot be read ({error}); expected a file of Python") from None


def _where(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    if not (inspect.isfunction(function) and name.isidentifier()):
        raise ConfigError(
            f"a change is a function at the top level of a file, given {name}: other processes read it from there"
        )
    file = function.__code__.co_filename
    if not Path(file).is_file():
        raise ConfigError(
            f"the function {name} is in no file ({file}), and other processes read it from one; write one"
        )
    return f"{file}:{name}"


def change_for(config: RunConfig, folder: Path, named: Named | None) -> Change | None:
    """The change that a run in a folder trains with: the one that is named, when it is the same.

    Raises:
        ConfigError: when none is named and the run has one, or the other way round, or it is another function.
        ArtifactError: when the file has another content than when the run began.
    """
    wanted = config.change
    if wanted is None:
        if named is not None:
            raise ConfigError(f"{folder} was begun without a change; leave --change out, or begin a new run with --out")
        return None
    if named is None:
        raise ConfigError(needs_change(wanted, folder))
    change = read_change(named)
    if change.function != wanted.function:
        raise ConfigError(f"{folder} was begun with the function {wanted.function}, given {change.function}")
    if change.config != wanted:
        raise ArtifactError(
            f"{change.path} is not the file that {folder} was begun with: its SHA-256 was {wanted.source_sha256[:12]}, "
            f"is {change.config.source_sha256[:12]}; restore it ({folder / KEPT} is a copy), or train a new run"
        )
    return change


def needs_change(wanted: ChangeConfig, folder: Path) -> str:
    """Why a run cannot be used as it is."""
    return (
        f"{folder} trains with code of its own, the function {wanted.function} of a file with the SHA-256 "
        f"{wanted.source_sha256[:12]}, which is executed only when you name it: --change FILE:{wanted.function} "
        f"({folder / KEPT} is a copy to read first)"
    )


def set_up(change: Change, config: RunConfig, task: Task, model: Model) -> Setup:
    """What a run trains with after its change.

    Args:
        model: as training begins; it is moved to this machine's device and altered in place.

    Raises:
        ConfigError: when the function fails, with its line, or returns what cannot be trained with; and with LoRA.
    """
    if config.lora.rank:
        raise ConfigError(
            f"{change.name} changes what is trained, and so does lora.rank={config.lora.rank}; leave one of them out"
        )
    function, device = change.load(), machine.device()
    model.to(device)
    given = Setup(
        model, build_optimizer(model, config.optimizer), task.training_loss_sum, batches(config, task), task, config
    )
    seed_all(stream(config.seed, "change"), device)
    before = {id(parameter) for parameter in model.parameters()}
    with users_code(change):
        made = function(given)
    _check(change, given, made)
    assert isinstance(made, Setup)
    made.model.to(device)
    own = list(made.model.parameters())
    if made.optimizer is given.optimizer and {id(parameter) for parameter in own} != before:
        made = made.replace(optimizer=build_optimizer(made.model, config.optimizer))
    _check_optimizer(change, made)
    return made


def _check(change: Change, given: Setup, made: object) -> None:
    if not isinstance(made, Setup):
        raise ConfigError(
            f"{change.name} returned {'nothing' if made is None else type(made).__name__}, expected a Setup: end "
            "it with `return setup`, or with `return setup.replace(optimizer=...)`"
        )
    if made.task is not given.task or made.config is not given.config:
        raise ConfigError(
            f"{change.name} replaced {'task' if made.task is not given.task else 'config'}, by which all arms are "
            "judged alike; replace loss or batch_of, and give settings to the arm"
        )
    for name, kind in (("model", Model), ("optimizer", torch.optim.Optimizer)):
        if not isinstance(part := getattr(made, name), kind):
            expected = f"{kind.__module__}.{kind.__name__}"
            raise ConfigError(f"{change.name} returned as {name} a {type(part).__name__}, expected a {expected}")
    for name in ("loss", "batch_of"):
        if not callable(part := getattr(made, name)):
            raise ConfigError(f"{change.name} returned as {name} a {type(part).__name__}, expected a function")


def _check_optimizer(change: Change, made: Setup) -> None:
    moved = [p for group in made.optimizer.param_groups for p in group["params"]]
    own = {id(parameter) for parameter in made.model.parameters()}
    if any(id(parameter) not in own for parameter in moved):
        raise ConfigError(
            f"the optimizer of {change.name} moves tensors that are no parameters of its model; alter the model first, "
            "then build the optimizer over model.parameters()"
        )
    known = {id(parameter) for parameter in moved}
    left = [name for name, p in made.model.named_parameters() if p.requires_grad and id(p) not in known]
    if left:
        raise ConfigError(
            f"the optimizer of {change.name} leaves out {len(left)} parameters, {left[0]} among them; give it all, or "
            "say requires_grad_(False) of those"
        )


@contextmanager
def users_code(change: Change | None) -> Iterator[None]:
    """Turn what the user's file raises, or what it returned, into a ConfigError with the lines of that file."""
    try:
        yield
    except WindtunnelError:
        raise
    except (Exception, SystemExit) as error:
        if change is None:
            raise
        raise ConfigError(f"{change.name} {_told(error, change.path)}") from None


def _told(error: BaseException, path: Path) -> str:
    """The error as Python tells it, without the lines of other files."""
    told = traceback.TracebackException.from_exception(error)
    own = [frame for frame in told.stack if frame.filename == str(path)]
    what = "failed" if own or isinstance(error, SyntaxError) else "returned what the run cannot train with"
    lines = traceback.StackSummary.from_list(own).format()
    return f"{what}:\n{''.join([*lines, *told.format_exception_only()])}".rstrip()

"""A change is tried before its runs begin: two steps and a resumed second one, in a moment, show most mistakes."""

from __future__ import annotations

import inspect
import math
from contextlib import suppress

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from windtunnel.errors import ConfigError, NumericsError
from windtunnel.models import Model
from windtunnel.nn.attention import attend_reference
from windtunnel.nn.mode import evaluating
from windtunnel.tasks import Task
from windtunnel.text.batches import Batch
from windtunnel.text.store import TokenStore
from windtunnel.training import machine
from windtunnel.training.change import Change, Named, Setup, Trial, read_change, set_up, users_code
from windtunnel.training.checkpoint import load_weights
from windtunnel.training.data import batches, open_task, train_examples
from windtunnel.training.optimizer import optimizer_tensors, restore_optimizer
from windtunnel.training.run import initial_model, resolve
from windtunnel.training.run_config import RunConfig
from windtunnel.training.trainer import Trainer

LOOKED_AT = 16
"""So many batches, from the first step to the last, are compared with the run's own."""


def resolve_changed(
    config: RunConfig, store: TokenStore, named: Named | None, side_by_side: int = 1
) -> tuple[RunConfig, Trial | None]:
    """`resolve`, and the change tried; a corpus that is too small for the run is told here.

    Raises:
        ConfigError: for a config that cannot be trained, or a change that fails.
        DataError: when the corpus is too small.
    """
    if config.change and named is None:
        raise ConfigError(
            f"the config has a change, the function {config.change.function}, and a config has nothing executed; name "
            "it yourself: --change FILE:FUNCTION, or change= in Python"
        )
    resolved = resolve(config, store, side_by_side).replace(change=None)
    task = open_task(resolved, store)
    train_examples(resolved, task)
    if named is None:
        return resolved, None
    change = read_change(named)
    resolved = resolved.replace(change=change.config)
    return resolved, try_change(change, resolved, task)


def try_change(change: Change, config: RunConfig, task: Task) -> Trial:
    """Take two steps of the changed run, and the second one again from what a checkpoint would hold of the first.

    Raises:
        ConfigError: when the change fails, or the run could not be resumed with it as if nothing had happened.
    """
    config = config.replace(train=config.train.replace(compile=False))
    plain = initial_model(config).to(machine.device())
    with torch.random.fork_rng(), users_code(change):
        setup, again = (set_up(change, config, task, initial_model(config)) for _ in range(2))
        batch = setup.batch_of(0)
        if not isinstance(batch, Batch):
            raise ConfigError(f"{change.name}: batch_of(0) is of the type {type(batch).__name__}, expected a Batch")
        if not batch.n_targets:
            raise ConfigError(f"{change.name}: batch_of(0) has no target that counts, expected at least one")
        _check_logits(change, setup.model, plain, batch)
        other_loss = setup.loss != task.training_loss_sum
        if other_loss:
            _check_loss(change, setup, batch)
        _check_resumed(change, setup, again)
        alters = _alters(setup.model, plain, batch)
        flops = _flops(setup.model, config) / _flops(plain, config) if alters else 1.0
        tokens, same_shapes, other_batches = _batches(setup, config, task)
    n_parameters = sum(parameter.numel() for parameter in setup.model.parameters())
    return Trial(change, n_parameters, flops if same_shapes else math.nan, tokens, alters, other_batches, other_loss)


def _logits(model: Model, batch: Batch) -> Tensor:
    with evaluating(model), torch.no_grad():
        return model(**batch.to(machine.device()).inputs)


def _check_logits(change: Change, model: Model, plain: Model, batch: Batch) -> None:
    expected, given = tuple(_logits(plain, batch).shape), tuple(_logits(model, batch).shape)
    if given != expected:
        raise ConfigError(f"the model of {change.name} gives logits of the shape {given}, expected {expected}")


def _check_loss(change: Change, setup: Setup, batch: Batch) -> None:
    """A sum: divided by the targets of the whole batch, it does not depend on how a batch is cut."""
    logits, targets = _logits(setup.model, batch), batch.targets.to(machine.device())
    one = setup.loss(logits, targets)
    if not (isinstance(one, Tensor) and one.dim() == 0):
        what = f"a tensor {tuple(one.shape)}" if isinstance(one, Tensor) else f"a {type(one).__name__}"
        raise ConfigError(f"the loss of {change.name} is {what}, expected a sum (): one number as a tensor")
    twice = setup.loss(torch.cat([logits, logits]), torch.cat([targets, targets])).item()
    if not setup.config.task.coupled and not math.isclose(twice, 2 * one.item(), rel_tol=1e-3, abs_tol=1e-6):
        raise ConfigError(
            f"the loss of {change.name} is no sum over targets: {one.item():.6g} of a batch, {twice:.6g} of the "
            "same rows twice. Return the sum; the step divides it by the number of targets"
        )


def _check_resumed(change: Change, setup: Setup, again: Setup) -> None:
    if not _equal(setup.model.state_dict(), again.model.state_dict()):
        raise ConfigError(
            f"{change.name} makes other weights each time: draw them with torch, which is seeded with the run's seed"
        )
    if setup.config.train.steps < 2:
        return
    trainer, resumed = Trainer.of(setup), Trainer.of(again)
    with suppress(NumericsError):  # a run that diverges is no mistake of the function's
        first = trainer.step()
        load_weights(again.model, {name: tensor.clone() for name, tensor in setup.model.state_dict().items()})
        restore_optimizer(again.optimizer, again.model, optimizer_tensors(setup.optimizer, setup.model), known=False)
        resumed.state.step, resumed.state.first_loss = 1, first.loss
        trainer.step()
        resumed.step()
        exact = machine.device().type == "cpu"  # an accelerator adds in any order
        if exact and not _equal(setup.model.state_dict(), again.model.state_dict()):
            raise ConfigError(
                f"with {change.name} a resumed run would differ from one that nothing stopped: what changes from "
                "step to step must be a function of the step, a parameter or buffer of the model, or a tensor in "
                "optimizer.state[parameter], which a checkpoint holds"
            )


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _alters(model: Model, plain: Model, batch: Batch) -> bool:
    """Whether these weights, in the model that the settings describe, give other logits."""
    weights = model.state_dict()
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != shapes or repr(model) != repr(plain):
        return True
    plain.load_state_dict(weights)
    return not torch.equal(_logits(model, batch), _logits(plain, batch))


def _flops(model: Model, config: RunConfig) -> float:
    """Of a forward pass over a whole context, as torch counts them."""
    length = config.model.context_length
    inputs = {name: tensor.to(machine.device()) for name, tensor in config.model.example(1, length).items()}
    given = {"attend": attend_reference} if config.model.attends else {}  # the fused kernel is not counted
    if not given.keys() <= inspect.signature(model.forward).parameters.keys():
        return math.nan  # a forward pass of the user's own
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, **given)
    return float(counter.get_total_flops()) or math.nan


def _batches(setup: Setup, config: RunConfig, task: Task) -> tuple[float, bool, bool]:
    """How many targets the batches have, times those of the run's own; whether inputs have their shapes; whether they
    are others."""
    own, n, steps = batches(config, task), [0, 0], config.train.steps
    same_shapes, others = True, False
    for step in sorted({i * (steps - 1) // (LOOKED_AT - 1) for i in range(LOOKED_AT)}) if steps else ():
        a, b = setup.batch_of(step), own(step)
        n[0], n[1] = n[0] + a.n_targets, n[1] + b.n_targets
        shapes = [{name: tensor.shape for name, tensor in batch.inputs.items()} for batch in (a, b)]
        same_shapes = same_shapes and shapes[0] == shapes[1]
        equal = _equal({**a.inputs, "targets": a.targets}, {**b.inputs, "targets": b.targets})
        others = others or not equal
    return (n[0] / n[1] if n[1] else 1.0), same_shapes, others

"""How a run is compiled: whether at all, as one graph or block by block, and by what; the only file that decides it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from windtunnel.models.cost import training_flops
from windtunnel.nn.blocks import blocks_of
from windtunnel.nn.linear import two_cores_with_tiles
from windtunnel.tasks import Task
from windtunnel.tasks.task import LossOf, LossSum
from windtunnel.text.batches import Batch
from windtunnel.training import machine, speed
from windtunnel.training.run_config import RunConfig

COMPILE_SECONDS = 180.0
"""Runs that would take longer than this are compiled when `train.compile` is auto: compiling takes 10 to 40 seconds
and saves a tenth to a quarter of the time (benchmarks/training_speed.py)."""
USUAL_RATE, UNSURE = 3e10, 10
"""FLOP/s of a thread where it was not measured (`windtunnel.training.speed`); no machine is thought to be UNSURE times
as fast or as slow."""
TINY, TINY_STEPS = 5e7, 100_000
"""A step of less than TINY FLOPs, about a millisecond of arithmetic, is nearly all overhead. Such runs are compiled
from TINY_STEPS steps on."""
SMALL, SMALL_STEPS = 1e10, 10_000
"""A transformer's step of less than SMALL FLOPs takes a tenth less when its loss and gradient are one graph instead of
one a block (benchmarks/training_speed.py, 4x128 and 4x128-short). The compiler needs 20 seconds longer for it, once on
a machine, which SMALL_STEPS steps earn back."""


def compiles(config: RunConfig) -> bool:
    """Whether a resolved run is compiled here: it may have been made where there was a compiler."""
    return bool(config.train.compile) and machine.has_compiler()


def in_one_graph(config: RunConfig, n_ranks: int = 1) -> bool:
    """Whether the loss of a compiled run and its gradient are one graph."""
    if n_ranks > 1 or not compiles(config):
        return False
    if not config.model.has_blocks:
        return True
    train = config.train
    plain = machine.device().type == "cpu" and config.text.unit == "text" and not train.recompute
    return plain and train.steps >= SMALL_STEPS and _training_flops(config) < SMALL * train.steps


def in_blocks(config: RunConfig, n_ranks: int = 1) -> bool:
    """Whether each block of a compiled run is a graph, instead of the loss."""
    return config.model.has_blocks and compiles(config) and not in_one_graph(config, n_ranks)


def compiling_pays(config: RunConfig) -> bool:
    """Whether a run whose threads are decided is so long that compiling it saves more time than it takes."""
    if config.task.ragged:
        return False
    if is_tiny(config) and config.train.steps >= TINY_STEPS:
        return True
    threads, flops = config.train.threads or machine.cores(), _training_flops(config)
    seconds = flops / (USUAL_RATE * threads)
    rule = seconds > COMPILE_SECONDS
    if config.train.precision == "auto" or not COMPILE_SECONDS / UNSURE < seconds < COMPILE_SECONDS * UNSURE:
        return rule
    rate = speed.flops_per_second(config.model.widest, speed.Way(config.train.precision, threads))
    clear = 1 / speed.CLEAR if rule else speed.CLEAR
    return flops / rate > COMPILE_SECONDS * clear if rate else rule


def is_tiny(config: RunConfig) -> bool:
    """Whether runs of this resolved config that differ only in the seed train stacked (`windtunnel.training.stack`).

    An mlp whose step is overhead, in float32 on one thread of a CPU, with its batch in one part: batch norm sees parts.
    A loss that couples the rows of a batch is left to itself, and so is a run that is changed in Python.
    Measured by benchmarks/stacked_seeds.py for 2e6 FLOPs a step.
    """
    train, model = config.train, config.model
    plain = train.grad_accumulation == 1 and train.threads == 1 and train.precision == "fp32"
    plain = plain and config.optimizer.name != "muon" and not config.task.coupled and config.change is None
    flops = training_flops(model, model.targets_per_example) * train.batch_size
    return model.stackable and plain and flops < TINY and machine.device().type == "cpu"


def _training_flops(config: RunConfig) -> float:
    return training_flops(config.model, config.model.targets_per_example) * config.train.batch_size * config.train.steps


def compiling_note(config: RunConfig) -> str:
    """What to say where a run is slower for want of a compiler, or of a folder for it."""
    if compiles(config):
        return machine.prepare_compiler()
    if machine.has_compiler() or not (config.train.compile or compiling_pays(config)):
        return ""
    return "not compiled, because no C++ compiler (c++, g++ or clang++) was found; with one a step is faster"


def loss_function(
    model: Callable[..., Tensor], task: Task, config: RunConfig, n_ranks: int = 1, loss: LossSum | None = None
) -> LossOf:
    """batch -> summed loss, in the run's precision; `loss` takes the place of the task's."""
    whole = compiles(config) and not in_blocks(config, n_ranks)
    own = partial(task.training_loss_sum, once=not whole)
    summed = own if loss is None or loss == task.training_loss_sum else loss

    def total(batch: Batch) -> Tensor:
        with machine.autocast(config.train.precision):
            logits = model(**batch.inputs)
        return summed(logits, batch.targets)

    if not whole:
        return total
    if not in_one_graph(config, n_ranks):  # DDP and FSDP sum and gather in the backward pass of autograd
        return compile_for_training(total)
    assert isinstance(model, nn.Module)
    return one_graph(total, model)


def prepare_blocks(model: nn.Module, config: RunConfig, n_ranks: int = 1) -> None:
    """Compile and recompute a model's blocks as the run's settings say."""
    if in_blocks(config, n_ranks):
        compile_blocks(model)
    if config.train.recompute:
        recompute_blocks(model)


def compile_blocks(model: nn.Module) -> None:
    """Compile the blocks for training; all of a kind share one graph, so that a deep model compiles in the time of one.

    Without gradients a block runs as it is: an evaluation has other shapes, and would have them compiled, too.
    """
    for block in blocks_of(model):
        block.forward = partial(_in_training, compile_for_training(block.forward), block.forward)


def compile_for_training(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile`; on a CPU with torch's own generator, so that dropout draws the same as without compiling."""
    machine.prepare_compiler()
    # Marked here and not where it is written, as a decorator loads the compiler, for more than a second of every start.
    torch.compiler.assume_constant_result(two_cores_with_tiles)  # type: ignore[no-untyped-call]
    compiled: Callable[..., Any] = torch.compile(function, options={"fallback_random": machine.device().type == "cpu"})
    return compiled


def _in_training(compiled: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: object) -> Tensor:
    return compiled(*inputs) if torch.is_grad_enabled() else plain(*inputs)


def one_graph(loss_of: LossOf, model: nn.Module) -> LossOf:
    """The same loss, whose gradient with respect to the model's parameters is computed in the same compiled call.

    That spares a small model what lies between graphs: of each block on the way there and on the way back.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]

    def both(batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = loss_of(batch)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    compiled = compile_for_training(both)

    def known(batch: Batch) -> Tensor:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            loss: Tensor = _Known.apply(*compiled(batch), *parameters)  # type: ignore[no-untyped-call]
        return loss

    return known


class _Known(torch.autograd.Function):
    """A loss whose gradients are known: (loss, gradients, *parameters) -> loss."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor, ...], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, which are scaled in place: once, like those of `training_loss_sum`."""
        gradients, ctx.gradients = ctx.gradients, None
        torch._foreach_mul_(gradients, scale)
        return None, None, *gradients


def recompute_blocks(model: nn.Module) -> None:
    """Keep only what goes into each block for the backward pass, and compute the rest again there, dropout included.

    Chen et al. 2016, arXiv 1604.06174.
    """
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)

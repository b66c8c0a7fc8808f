"""One optimizer step: accumulate gradients, guard, clip, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from windtunnel.errors import NumericsError
from windtunnel.nn.blocks import blocks_of
from windtunnel.nn.init import stream
from windtunnel.nn.linear import is_large, two_cores_with_tiles
from windtunnel.text.batches import Batch
from windtunnel.training import machine
from windtunnel.training.distributed import ALONE, Ranks
from windtunnel.training.muon import Muon

LossOf = Callable[[Batch], Tensor]
"""batch -> summed loss in nats; the model and the task are inside."""


def gradients(loss_of: LossOf, batch: Batch, parts: int, seed: int, step: int, ranks: Ranks = ALONE) -> float:
    """Accumulate the gradient of the batch's mean loss over `parts` micro-batches; return that loss.

    Each micro-batch's summed loss is divided by the targets of the whole batch, so the result does not depend
    on how the batch is cut. Dropout is drawn from (seed, step, micro-batch) and needs no saved state. Of several ranks
    each takes its rows of every micro-batch; gradients and loss are the sums over all of them.
    """
    n_targets = batch.n_targets
    total = 0.0
    micro_batches = batch.split(parts)
    for part, micro_batch in enumerate(micro_batches):
        rows = ranks.share(micro_batch)
        seed_all(stream(seed, "dropout", step, part, *ranks.labels), batch.targets.device)
        with ranks.micro_batch(last=part == len(micro_batches) - 1):
            loss = loss_of(rows) / n_targets
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return ranks.loss(total)


def prepare_blocks(model: nn.Module, compiled: bool, recompute: bool) -> None:
    """Let a model's blocks train as the run's settings say."""
    if compiled:
        compile_blocks(model)
    if recompute:
        recompute_blocks(model)


def compile_blocks(model: nn.Module) -> None:
    """Compile the blocks for training; all of a kind share one graph, so that a deep model compiles in the time of one.

    Without gradients a block runs as it is: an evaluation has other shapes, and would have them compiled, too.
    """
    for block in blocks_of(model):
        block.forward = partial(_in_training, compile_for_training(block.forward), block.forward)


def compile_for_training(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile`; on a CPU with torch's own generator, so that dropout draws the same as without compiling."""
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


def seed_all(number: int, device: torch.device) -> None:
    """What `torch.manual_seed` does, without the third of a millisecond that it spends on absent accelerators."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


LONGEST_UPDATE = 10.0
"""An update longer than this many times the weights themselves is an explosion, whatever the loss says so far."""
SHORTEST_WEIGHT = 0.02
"""Weights shorter than N(0, .02) count as that long there, so that a model may begin at zero."""


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, clip: float | None, ranks: Ranks = ALONE
) -> float:
    """Clip the gradient to the given norm, update the weights, forget the gradient; return its norm before clipping.

    Raises:
        NumericsError: when the gradient is not finite, or the update would be absurdly long; the weights are then
            untouched.
    """
    limit = math.inf if clip is None else clip
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # A whole matrix's norm takes a CPU twice as long as those of its rows, which have the same norm.
    rows = [torch.linalg.vector_norm(g, dim=-1) if is_large(g) else g for g in gradients]
    total = ranks.full(torch.nn.utils.get_total_norm(rows))
    norm = total.item()
    if not math.isfinite(norm):
        raise NumericsError(f"the gradient's norm is {norm}")
    clip_gradients(model, optimizer, total, limit, ranks)
    guard_update(model, optimizer, lr, min(norm, limit), ranks)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def clip_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, norm: Tensor, limit: float, ranks: Ranks = ALONE
) -> None:
    """Shorten a gradient of this norm to the limit; alone on a CPU, a fused optimizer does so while it reads it."""
    if optimizer.defaults.get("fused") and ranks.mode is None and norm.device.type == "cpu":
        optimizer.grad_scale = norm / limit if norm > limit else None  # type: ignore[attr-defined]
    elif norm > limit:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)


def guard_update(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, grad_norm: float, ranks: Ranks = ALONE
) -> None:
    """Refuse an update that would be far longer than the weights it changes.

    SGD moves by lr x gradient, AdamW by at most about lr in each weight (Kingma & Ba 2015, section 2.1), Muon's
    matrices by what their shapes say.

    Raises:
        NumericsError: before the weights are touched.
    """
    root = math.sqrt(sum(p.numel() for p in model.parameters()))
    if isinstance(optimizer, Muon):
        length = optimizer.longest_update(lr)
    else:
        length = lr * (grad_norm if isinstance(optimizer, torch.optim.SGD) else root)
    if length <= LONGEST_UPDATE * SHORTEST_WEIGHT * root:  # short enough for any weights, so theirs need not be read
        return
    weights = [p.detach() for p in model.parameters()]
    own = max(ranks.full(torch.nn.utils.get_total_norm(weights)).item(), SHORTEST_WEIGHT * root)
    if length > LONGEST_UPDATE * own:
        raise NumericsError(f"the update would be {length / own:.3g} times as long as the weights themselves")


def guard(loss: float, limit: float) -> None:
    """Refuse a loss that is not finite or has exploded past the limit.

    Raises:
        NumericsError: before the weights are touched.
    """
    if not math.isfinite(loss):
        raise NumericsError(f"the loss is {loss}")
    if loss > limit:
        raise NumericsError(f"the loss rose to {loss:.4g} nats, past the limit of {limit:.4g}")

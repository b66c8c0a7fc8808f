"""One optimizer step: accumulate gradients, guard, clip, update."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from windtunnel.errors import NumericsError
from windtunnel.nn.init import stream
from windtunnel.nn.linear import is_large
from windtunnel.tasks.task import LossOf
from windtunnel.text.batches import Batch
from windtunnel.training.distributed import ALONE, Ranks
from windtunnel.training.muon import Muon


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
        group["lr"] = lr * group.get("factor", 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def clip_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, norm: Tensor, limit: float, ranks: Ranks = ALONE
) -> None:
    """Shorten a gradient of this norm to the limit; alone on a CPU, a fused optimizer does so while it reads it."""
    fused = type(optimizer) is torch.optim.AdamW and optimizer.defaults["fused"]
    if fused and ranks.mode is None and norm.device.type == "cpu":
        optimizer.grad_scale = norm / limit if norm > limit else None  # type: ignore[attr-defined]
    elif norm > limit:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)


def guard_update(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, grad_norm: float, ranks: Ranks = ALONE
) -> None:
    """Refuse an update that would be far longer than the weights it changes.

    SGD moves by lr x gradient, AdamW by at most about lr in each weight (Kingma & Ba 2015, section 2.1), Muon's
    matrices by what their shapes say.

    Of any other optimizer nothing is known.

    Raises:
        NumericsError: before the weights are touched.
    """
    if not isinstance(optimizer, torch.optim.AdamW | torch.optim.SGD | Muon):
        return
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
        ratio = length / own
        raise NumericsError(f"the update would be {ratio:.3g} times as long as the weights themselves", ratio)


def guard(loss: float, limit: float) -> None:
    """Refuse a loss that is not finite or has exploded past the limit.

    Raises:
        NumericsError: before the weights are touched.
    """
    if not math.isfinite(loss):
        raise NumericsError(f"the loss is {loss}")
    if loss > limit:
        raise NumericsError(f"the loss rose to {loss:.4g} nats, past the limit of {limit:.4g}")

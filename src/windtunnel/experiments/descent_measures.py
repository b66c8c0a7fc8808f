"""What 002-5.1 measures: the noise of a batch's gradient, the memory of a batch, and how long a loss took to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from windtunnel.experiments.speed import exponent
from windtunnel.inspect.cost import activation_bytes
from windtunnel.inspect.doctor.noise import gradient_vectors
from windtunnel.models import ModelConfig
from windtunnel.report.table import interval
from windtunnel.stats.intervals import Estimate, mean_interval, paired_ratio
from windtunnel.text.batches import Examples, batch
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.objective import loss_sum
from windtunnel.training.run import open_run
from windtunnel.training.step import gradients


@dataclass(frozen=True)
class Reached:
    """When the dev loss was first seen at or below a target; of a run that never came there, all that it spent.

    censored: it never came there, so that the truth lies above every number here.
    """

    steps: int
    examples: int
    seconds: float
    censored: bool


def reached(folder: Path, target: float) -> Reached:
    """Read it from a run's log; seconds are those of the steps, without evaluations."""
    run, step, seconds = open_run(folder), 0, 0.0
    size = run.config.train.batch_size
    for event in run.events():
        if isinstance(event, Step):
            step, seconds = event.step, seconds + event.seconds
        elif isinstance(event, Evaluation) and event.split == "dev" and event.loss <= target:
            return Reached(step, step * size, seconds, False)
    return Reached(step, step * size, seconds, True)


def summary(found: Sequence[Reached], of: Callable[[Reached], float], form: str) -> str:
    """The mean with its interval where every run came there; else a median or a bound, no mean of the survivors."""
    values, n = [of(one) for one in found], len(found)
    there = sum(not one.censored for one in found)
    if there == n:
        return interval(mean_interval(values), form)
    bound = min(of(one) for one in found if one.censored)
    if there > n / 2:  # a run that never came there lies above the median, wherever it lies
        return f"median {median(values):{form}}; {n - there} of {n} not within {bound:{form}}"
    return f"more than {bound:{form}} in {n - there} of {n}"


def times_longer(slow: Sequence[Reached], fast: Sequence[Reached]) -> Estimate | None:
    """Seconds of one arm over those of another, paired by seed; at least so many where `slow` is censored.

    None where the faster one did not come there itself, or the pairs say nothing.
    """
    if any(one.censored for one in fast):
        return None
    try:
        return paired_ratio([one.seconds for one in fast], [one.seconds for one in slow])
    except ValueError:
        return None


def gradient_variance(model: nn.Module, source: Examples, sizes: Sequence[int], epochs: Sequence[int]) -> np.ndarray:
    """The variance of a batch's gradient, summed over the parameters: (epochs, sizes).

    The batches of an epoch divide the examples among them, and the sample variance of such batches is that of one
    example over B without bias: what finite data takes from each variance their negative correlation gives back
    (Cochran 1977, section 2.6).
    """
    found = np.empty((len(epochs), len(sizes)))
    for i, epoch in enumerate(epochs):
        for j, size in enumerate(sizes):
            n, total, squares = len(source) // size, torch.zeros(()), 0.0
            batches = [batch(source, size, epoch, step) for step in range(n)]
            for gradient in gradient_vectors(model, batches):
                total = total + gradient.double()
                squares += float(gradient.double().square().sum())
            found[i, j] = (squares - float(total.square().sum()) / n) / (n - 1)
    return found


def gradient_of(model: nn.Module, source: Examples, size: int, parts: int, seed: int) -> torch.Tensor:
    """The gradient of one batch as training accumulates it over micro-batches."""
    model.zero_grad(set_to_none=True)
    gradients(lambda rows: loss_sum(model(rows.ids), rows.targets), batch(source, size, seed, 0), parts, seed, 0)
    found = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The length of the difference over that of the first."""
    return float((a - b).norm() / a.norm())


def activation_memory(config: ModelConfig, sizes: Sequence[int]) -> dict[int, int]:
    """Bytes that autograd keeps for batches of these sizes at the full context, as `windtunnel cost` counts them."""
    return {size: activation_bytes(config, size, config.context_length, "fp32") for size in sizes}


def slopes(sizes: Sequence[int], variances: np.ndarray) -> Estimate:
    """d log(variance) / d log(B), a line for each epoch."""
    return mean_interval([exponent(sizes, row) for row in variances])


def dev_curves(folders: Sequence[Path]) -> list[dict[str, list[float]]]:
    """Dev loss against steps, examples and seconds, a curve for each run."""
    curves = []
    for folder in folders:
        run, seconds = open_run(folder), 0.0
        curve: dict[str, list[float]] = {"steps": [], "examples": [], "seconds": [], "loss": []}
        for event in run.events():
            if isinstance(event, Step):
                seconds += event.seconds
            elif isinstance(event, Evaluation) and event.split == "dev" and event.step:
                row = (event.step, event.step * run.config.train.batch_size, seconds, event.loss)
                for values, value in zip(curve.values(), row, strict=True):
                    values.append(value)
        curves.append(curve)
    return curves

"""The simple gradient noise scale: how large a batch must be before its gradient is more signal than noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from windtunnel.nn.mode import evaluating
from windtunnel.stats.intervals import Estimate
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import Batch


def noise_scale(gradients: Callable[[], Iterable[Tensor]], size: int, confidence: float = 0.95) -> Estimate:
    """B_simple = tr(covariance of one example's gradient) / |mean gradient|^2, in examples.

    McCandlish et al. 2018, arXiv 1812.06162, equation 2.9: at a batch of B_simple examples a step makes half of the
    progress that the exact gradient would. With n gradients of `size` examples each, both parts are estimated without
    bias: tr = size x their sample variance, |G|^2 = |mean|^2 - tr / (n size). The interval is a jackknife's for
    |G|^2 / tr, which stays finite when the gradient drowns; B_simple's upper end is then infinite.

    Args:
        gradients: gives the same gradients (P,) each time it is called; it is called twice, so that no more than
            two of them are held at once.

    Raises:
        ValueError: for fewer than three gradients.
    """
    total, squares = torch.zeros(()), []
    for gradient in gradients():
        total = total + gradient.double()
        squares.append(float(gradient.double().square().sum()))
    n = len(squares)
    if n < 3:
        raise ValueError(f"a noise scale with an interval needs at least 3 gradients, given {n}")
    dots = [float(gradient.double() @ total) for gradient in gradients()]
    sum_of_squares, square_of_sum = math.fsum(squares), float(total @ total)
    signal = _signal(sum_of_squares, square_of_sum, n, size)
    left_out = [
        _signal(sum_of_squares - q, square_of_sum - 2 * d + q, n - 1, size) for q, d in zip(squares, dots, strict=True)
    ]
    mean = math.fsum(left_out) / n
    error = math.sqrt((n - 1) / n * math.fsum((x - mean) ** 2 for x in left_out))
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    low, middle, high = (1 / x if x > 0 else math.inf for x in (signal + half, signal, signal - half))
    return Estimate(middle, low, high, n, f"{100 * confidence:g} % jackknife interval")


def _signal(sum_of_squares: float, square_of_sum: float, n: int, size: int) -> float:
    """|G|^2 / tr: the signal in one example's gradient."""
    mean_square = square_of_sum / n**2
    trace = size * (sum_of_squares - n * mean_square) / (n - 1)
    return math.inf if trace <= 0 else mean_square / trace - 1 / (n * size)


def gradient_vectors(model: nn.Module, batches: Sequence[Batch]) -> Iterator[Tensor]:
    """The gradient (P,) of each batch's summed loss over the mean number of targets of a batch, without dropout."""
    mean_targets = sum(batch.n_targets for batch in batches) / len(batches)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with evaluating(model):
        for batch in batches:
            loss = loss_sum(model(**batch.inputs), batch.targets) / mean_targets
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            yield torch.cat([
                (torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)
            ])  # fmt: skip

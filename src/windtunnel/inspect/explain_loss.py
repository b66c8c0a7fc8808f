"""Cross-entropy step by step: logits, softmax, minus the log of the target's probability, the mean of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from windtunnel.errors import ConfigError
from windtunnel.inspect.explain_replay import ROW_IDS, ROW_TARGETS, built
from windtunnel.stats.digits import number


@dataclass(frozen=True)
class LossRow:
    """One example: logits, their exponentials after the largest is taken off, probabilities, and the loss in nats.

    second_softmax: the loss when probabilities are handed to cross_entropy, which takes the softmax once more.
    """

    logits: tuple[float, ...]
    target: int
    exponentials: tuple[float, ...]
    probabilities: tuple[float, ...]
    loss: float
    second_softmax: float

    @property
    def steps(self) -> tuple[str, ...]:
        """The numbers put into the formulas, one line a step."""
        top, total = max(self.logits), sum(self.exponentials)
        less = "+" if top < 0 else "-"
        shifted = ", ".join(
            f"exp({x:.4f} {less} {abs(top):.4f}) = {number(e)}" for x, e in _few(self.logits, self.exponentials)
        )
        p = ", ".join(
            f"{number(e)} / {total:.4f} = {number(p)}" for e, p in _few(self.exponentials, self.probabilities)
        )
        chosen = self.probabilities[self.target]
        return (
            f"exponentials, the largest logit taken off: {shifted}",
            f"softmax, by their sum {total:.4f}: {p}",
            f"loss = -ln p[{self.target}] = -ln {number(chosen, 5)} = {number(self.loss, 5)} nats",
        )


@dataclass(frozen=True)
class LossExplained:
    """All examples, their mean loss, the same by torch, and what a second softmax makes of it.

    floor: the lowest loss that a second softmax leaves reachable, ln(1 + (V - 1)/e), with the target's p at 1.
    printed: what a float32 script prints, where the logits come from a network.
    """

    rows: tuple[LossRow, ...]
    mean: float
    torch_mean: float
    second_softmax: float
    floor: float
    source: str
    printed: float | None = None


def explain_loss(logits: Sequence[Sequence[float]], targets: Sequence[int], source: str = "given") -> LossExplained:
    """Explain the cross-entropy of logits (N, V) and targets (N,), in float64.

    Raises:
        ConfigError: for rows of unequal length, a number that is not finite, or a target that is no column.
    """
    n_classes = len(logits[0]) if logits else 0
    if n_classes < 1 or any(len(row) != n_classes for row in logits):
        raise ConfigError(
            f"rows of logits need one length, given {', '.join(str(len(row)) for row in logits) or 'none'}"
        )
    if not all(math.isfinite(x) for row in logits for x in row):
        raise ConfigError("logits are finite numbers, given one that is infinite or not a number")
    if len(targets) != len(logits):
        raise ConfigError(f"each row of logits needs one target, given {len(logits)} rows and {len(targets)} targets")
    for target in targets:
        if not 0 <= target < n_classes:
            raise ConfigError(f"target {target} is no column of the logits, which are 0 to {n_classes - 1}")
    logits_NV, targets_N = torch.tensor(logits, dtype=torch.float64), torch.tensor(targets)
    again = F.cross_entropy(logits_NV.softmax(dim=-1), targets_N, reduction="none").tolist()
    rows = tuple(_row(*row) for row in zip(logits, targets, again, strict=True))
    return LossExplained(
        rows=rows,
        mean=math.fsum(row.loss for row in rows) / len(rows),
        torch_mean=F.cross_entropy(logits_NV, targets_N).item(),
        second_softmax=math.fsum(again) / len(rows),
        floor=math.log(1 + (n_classes - 1) / math.e),
        source=source,
    )


def explain_row_network(seed: int = 42, number: int = 1) -> LossExplained:
    """The loss of row 002-3.1's network, the `number`-th built since the seed, on the row's four examples."""
    model = built(seed, number)
    with torch.no_grad():
        logits = model(torch.tensor(ROW_IDS)).tolist()
    source = f"network 002-3, seed {seed}, model {number} since the seed"
    return replace(explain_loss(logits, ROW_TARGETS, source), printed=model.loss())


def parse_logits(text: str) -> list[list[float]]:
    """Rows of numbers, `2,0,-1; 0.5,1,0`."""
    try:
        return [[float(part) for part in row.split(",")] for row in text.strip().rstrip(";").split(";")]
    except ValueError:
        raise ConfigError(f"expected logits as rows of numbers, such as '2,0,-1; 0,1,3', given {text[:60]!r}") from None


def parse_targets(text: str) -> list[int]:
    """Whole numbers, `0,2`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"expected a target column for each row, such as 0,2, given {text[:60]!r}") from None


def _row(logits: Sequence[float], target: int, second_softmax: float) -> LossRow:
    top = max(logits)
    exponentials = tuple(math.exp(x - top) for x in logits)
    total = math.fsum(exponentials)
    loss = top - logits[target] + math.log(total)  # -ln p without dividing, exact when p underflows
    return LossRow(tuple(logits), target, exponentials, tuple(e / total for e in exponentials), loss, second_softmax)


def _few(a: Sequence[float], b: Sequence[float], most: int = 8) -> list[tuple[float, float]]:
    return list(zip(a, b, strict=True))[:most]

"""What the doctor says: one record for each thing that is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from windtunnel.stats.intervals import Estimate

Severity = Literal["problem", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something wrong: what, how bad, the numbers that show it, and what to do."""

    name: str
    severity: Severity
    evidence: str
    """A sentence with the measured numbers, with intervals where chance plays a part."""
    cure: str


def low(estimate: Estimate) -> float:
    """The lower end; the estimate itself where one value gives no interval."""
    return estimate.estimate if math.isnan(estimate.low) else estimate.low


def percent(share: float) -> str:
    """.123 is 12.3 %."""
    return f"{100 * share:.3g} %"


def one_digit(value: float) -> str:
    """A learning rate to be tried, as 3e-04."""
    return f"{value:.1g}"

"""What the doctor says: one record for each thing that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["problem", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something wrong: what, how bad, the numbers that show it, and what to do."""

    name: str
    severity: Severity
    evidence: str
    """A sentence with the measured numbers, with intervals where chance plays a part."""
    cure: str

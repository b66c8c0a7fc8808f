"""How much the exponent of N*(C) depends on what is counted: Pearce & Song 2024; Porian et al. 2024."""

from __future__ import annotations

from windtunnel.scaling.fit import fit_scaling
from windtunnel.scaling.isoflop import Compute, Size
from windtunnel.scaling.points import Points
from windtunnel.stats.intervals import Estimate

SIZES: dict[Size, str] = {"parameters": "N without embeddings", "all_parameters": "N with embeddings"}
COMPUTES: dict[Compute, str] = {"flops": "C counted", "6nd": "C = 6ND"}


def exponents_by_choice(points: Points, samples: int = 1000, repeat_data: bool = False) -> dict[str, Estimate | None]:
    """The exponent of N*(C) under each way to count N and C that the points allow; None where it is refused."""
    found: dict[str, Estimate | None] = {}
    for size, of_n in SIZES.items():
        if getattr(points, size) is None:
            continue
        for compute, of_c in COMPUTES.items():
            line = fit_scaling(
                points, samples=samples, size=size, compute=compute, repeat_data=repeat_data, law=False
            ).parameters
            found[f"{of_n}, {of_c}"] = line.exponent if line else None
    return found

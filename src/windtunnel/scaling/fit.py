"""Fit the points of a scaling study: every part has its interval, or is refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from windtunnel.config import plain
from windtunnel.errors import ConfigError
from windtunnel.scaling import laws
from windtunnel.scaling.draws import Refusal
from windtunnel.scaling.envelope import FEWEST_BUDGETS, Envelope, fit_envelope
from windtunnel.scaling.isoflop import FEWEST_SIZES, Compute, Parabola, Size, Vertices, fit_parabolas
from windtunnel.scaling.laws import PowerLaw, fit_power_law
from windtunnel.scaling.notes import notes_on, refuse_repeats
from windtunnel.scaling.parametric import Parametric, fit_parametric
from windtunnel.scaling.points import LEAST, SAME_BUDGET, Points
from windtunnel.stats.intervals import Estimate

MOST_SAMPLES = 1_000_000
MOST_SAID = 3
"""Budgets with too few sizes for a parabola that are named one by one."""
FARTHEST = 1e40
"""FLOPs up to which a forecast can be asked for."""


@dataclass(frozen=True)
class Forecast:
    """What is best at a budget: N, D and the loss in nats per token; None where the part was refused.

    parameters, tokens: by the lines through the vertices; loss: by the envelope; law_...: by the parametric law;
    decades: how many powers of ten beyond the largest fitted budget; below: below the smallest (both below 0 within).
    """

    compute: float
    parameters: Estimate | None
    tokens: Estimate | None
    loss: Estimate | None
    law_parameters: Estimate | None
    law_tokens: Estimate | None
    law_loss: Estimate | None
    decades: float
    below: float


@dataclass(frozen=True, eq=False)
class Scaling:
    """The fits of a study.

    parabolas: one a budget; parameters: N*(C); tokens: D*(C); envelope: L*(C); law: E + A/N^a + B/D^b;
    notes: what to keep in mind; refusals: what has no number, and the cure.
    """

    points: Points = field(repr=False)
    size: Size
    compute: Compute
    parabolas: tuple[Parabola, ...]
    parameters: PowerLaw | None
    tokens: PowerLaw | None
    envelope: Envelope | None
    law: Parametric | None
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]

    @property
    def largest_budget(self) -> float:
        """C at the vertex of the largest usable budget, else the largest nominal one."""
        return max(self._fitted)

    @property
    def _fitted(self) -> list[float]:
        return [p.compute for p in self.parabolas if p.refusal is None] or self.points.budgets.tolist()

    def at(self, compute: float) -> Forecast:
        """The forecast at so many FLOPs. Raises ConfigError unless a run could have them."""
        if not LEAST <= compute <= FARTHEST:
            raise ConfigError(
                f"a forecast at {compute:g} FLOPs: expected a number from {LEAST:g} to {FARTHEST:g}, such as 1e15"
            )
        n, d, loss = (part.at(compute) if part else None for part in (self.parameters, self.tokens, self.envelope))
        law_n, law_d, law_loss = self.law.at(compute) if self.law else (None, None, None)
        beyond, below = (float(np.log10(compute / end)) for end in (max(self._fitted), min(self._fitted)))
        return Forecast(compute, n, d, loss, law_n, law_d, law_loss, beyond, -below)

    @property
    def disagreement(self) -> str | None:
        """How far apart the parabolas and the parametric law are in N*(C); None where one is refused."""
        if self.parameters is None or self.law is None:
            return None
        ours, theirs = self.parameters.exponent, self.law.exponent
        apart = ours.high < theirs.low or theirs.high < ours.low
        n, by_law = self.parameters.at(self.largest_budget), self.law.at(self.largest_budget)[0]
        return (
            f"The exponent of N* is {ours.estimate:.3f} by the parabolas and {theirs.estimate:.3f} by the law, "
            f"and N* at the largest budget {n.estimate:,.0f} and {by_law.estimate:,.0f}: "
            + (
                "the intervals of the exponents do not meet, so trust neither."
                if apart
                else "they agree within errors."
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        law, envelope = self.law, self.envelope
        return {
            "size": self.size,
            "compute": self.compute,
            "runs": len(self.points),
            "largest_budget": self.largest_budget,
            "parabolas": plain(self.parabolas),
            "parameters_exponent": plain(self.parameters.exponent) if self.parameters else None,
            "tokens_exponent": plain(self.tokens.exponent) if self.tokens else None,
            "envelope": plain({"floor": envelope.floor, "exponent": envelope.exponent}) if envelope else None,
            "law": plain({name: getattr(law, name) for name in ("floor", "A", "a", "B", "b", "exponent", "residual")})
            if law
            else None,
            "disagreement": self.disagreement,
            "notes": list(self.notes),
            "refusals": plain(self.refusals),
        }


def fit_scaling(
    points: Points,
    *,
    samples: int = 1000,
    seed: int = 0,
    size: Size = "parameters",
    compute: Compute = "flops",
    repeat_data: bool = False,
    law: bool = True,
) -> Scaling:
    """Parabolas at each budget, the laws through their vertices, and the parametric law, with 95 % intervals.

    Args:
        samples: draws that the intervals are made of.
        size: count parameters without embeddings, or all of them.
        compute: C as counted, or as 6ND.
        repeat_data: fit runs that saw their text more than four times as well.
        law: fit the parametric law, too; without it a fit takes milliseconds.

    Raises:
        ConfigError: for fewer than 100 samples or more than a million, or all_parameters where the points have none.
    """
    if not 100 <= samples <= MOST_SAMPLES:
        raise ConfigError(
            f"samples is {samples}: an interval of 95 % needs at least 100 draws, better 1000, at most {MOST_SAMPLES:,}"
        )
    if size == "all_parameters" and points.all_parameters is None:
        raise ConfigError("size is all_parameters, but the points have no such column; add it, or say size=parameters")
    repeated = None if repeat_data else refuse_repeats(points)
    notes = notes_on(points, size)
    if repeated:
        return Scaling(points, size, compute, (), None, None, None, None, notes, (Refusal("all fits", repeated),))
    rng = np.random.default_rng(seed)
    parabolas, vertices = fit_parabolas(points, size, compute, samples, rng)
    refusals = _refused(parabolas)
    lines, refused = _lines(vertices, rng)
    envelope = _envelope(vertices, rng)
    by_law = _law(points, size, compute, samples, rng) if law else None
    for what, found in (("L*(C)", envelope), ("the parametric law", by_law)):
        refused += [Refusal(what, found)] if isinstance(found, str) else []
    return Scaling(
        points, size, compute, parabolas, *lines,
        None if isinstance(envelope, str) else envelope, None if isinstance(by_law, str) else by_law,
        notes, (*refusals, *refused),
    )  # fmt: skip


def _refused(parabolas: Sequence[Parabola]) -> list[Refusal]:
    """Why parabolas have no numbers; many budgets with too few sizes in one sentence."""
    few = [p for p in parabolas if p.refusal and len(p.sizes) < FEWEST_SIZES]
    if len(few) <= MOST_SAID:
        few = []
    refused = [
        Refusal(f"the parabola at {p.budget:.3g} FLOPs", p.refusal) for p in parabolas if p.refusal and p not in few
    ]
    if few:
        where = f"from {few[0].budget:.3g} to {few[-1].budget:.3g} FLOPs"
        why = f"{len(few)} budgets {where} have one or two sizes each; a parabola needs at least three, better five."
        refused.insert(0, Refusal(f"the parabolas at {len(few)} budgets", why))
    return refused


def _lines(
    found: Vertices | None, rng: np.random.Generator
) -> tuple[tuple[PowerLaw | None, PowerLaw | None], list[Refusal]]:
    why = _too_few(found, "a line", laws.FEWEST_BUDGETS)
    if found is None or why:
        return (None, None), [Refusal("N*(C) and D*(C)", why)]
    rest = (found.runs, found.method, rng)
    size = fit_power_law(found.compute, found.size, found.size_draws, *rest)
    tokens = fit_power_law(found.compute, found.tokens, found.tokens_draws, *rest)
    return (size, tokens), []


def _envelope(found: Vertices | None, rng: np.random.Generator) -> Envelope | str:
    why = _too_few(found, "the envelope of the loss, which has three numbers,", FEWEST_BUDGETS)
    if found is None or why:
        return why
    return fit_envelope(found.compute, found.loss, found.loss_draws, found.runs, found.method, rng)


def _too_few(found: Vertices | None, what: str, needed: int) -> str:
    """Why the vertices hold no law, or nothing."""
    n = 0 if found is None else len(found.compute)
    if found is not None and n >= needed:
        same = np.ptp(found.compute) < np.log(SAME_BUDGET)
        return f"The FLOPs of all budgets are the same at the best sizes; {what} needs budgets apart." if same else ""
    have = {0: "No budget is", 1: "1 budget is"}.get(n, f"{n} budgets are")
    return f"{have} usable, and {what} needs at least {needed}; mend those refused, or add budgets."


def _law(points: Points, size: Size, compute: Compute, samples: int, rng: np.random.Generator) -> Parametric | str:
    n = np.asarray(getattr(points, size))
    flops_per = 6.0 if compute == "6nd" else float(np.exp(np.mean(np.log(points.flops / n / points.tokens))))
    return fit_parametric(n, points.tokens, points.loss, flops_per, samples, rng)

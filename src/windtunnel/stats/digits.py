"""Numbers as text. Four decimals, and more or an exponent only where these would show nothing or too much."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windtunnel.stats.intervals import Estimate

FEWEST = 5
"""Units of the last decimal, below which a number has three digits instead."""
HUGE = 1e9
"""From here on a number has an exponent."""
LEAST_P = 1e-4
"""A p below it is shown as below it: how far below is a matter of the tails, which no sample confirms."""


def number(x: float, decimals: int = 4, sign: bool = False) -> str:
    """2.3886; 0.000346, since 0.0003 would be off by more than a tenth; 1e+308. Zero is 0.0000."""
    plus, size = "+" if sign else "", abs(x)
    if 0 < size < FEWEST * 10.0**-decimals:
        return f"{x:{plus}.3g}"
    return f"{x:{plus}.5g}" if size >= HUGE else f"{x + 0.0:{plus}.{decimals}f}"  # + 0.0: no -0.0000 for -0.0


def interval(found: Estimate, sign: bool = False, between: str = " ") -> str:
    """`0.1000 [0.0829, 0.1202]`: all three to the same decimals; the estimate alone where there is no interval."""
    if math.isnan(found.low):
        return number(found.estimate, sign=sign)
    return f"{_form(found)(found.estimate, sign)}{between}{ends(found, sign)}"


def ends(found: Estimate, sign: bool = False) -> str:
    """`[0.0829, 0.1202]`: to as many decimals as tell both ends apart."""
    text = _form(found)
    return f"[{text(found.low, sign)}, {text(found.high, sign)}]"


def plus_minus(found: Estimate) -> str:
    """`2.3886 ±0.0012`, for an interval that is as far to the left as to the right."""
    if math.isnan(found.low):
        return number(found.estimate)
    half = found.high - found.estimate
    text = _shared((found.estimate,), half)
    return f"{text(found.estimate, False)} ±{text(half, False)}"


def p_value(p: float, form: str = ".2g") -> str:
    """`0.031`, or `< 1e-4`: never 0."""
    return f"< {LEAST_P:.0e}".replace("e-0", "e-") if p < LEAST_P else f"{p:{form}}"


def p_is(p: float, form: str = ".2g") -> str:
    """`p = 0.031`, or `p < 1e-4`."""
    return f"p {'' if p < LEAST_P else '= '}{p_value(p, form)}"


def probability(p: float) -> str:
    """`0.8123`, `< 1e-4` or `> 0.9999`: neither 0 nor 1."""
    return "> 0.9999" if p > 0.9999 else p_value(p, ".4f")


def _form(found: Estimate) -> Callable[[float, bool], str]:
    return _shared((found.estimate, found.low, found.high), found.high - found.low)


def _shared(values: tuple[float, ...], width: float) -> Callable[[float, bool], str]:
    """How to show each of these values, to the same decimals: as many as tell apart what lies `width` apart."""
    size, places = max(map(abs, values)), 4
    if math.isfinite(size) and (0 < size < FEWEST * 1e-4 or size >= HUGE):
        places = (2 if size < 1 else 4) - math.floor(math.log10(size))
    if 0 < width < 10.0**-places:
        places = 1 - math.floor(math.log10(width))
    fixed = 0 <= places <= (7 if size < 1e-3 else 17)

    def text(x: float, sign: bool) -> str:
        plus = "+" if sign else ""
        if fixed or not math.isfinite(x):
            return f"{x + 0.0:{plus}.{max(0, places)}f}"
        digits = math.floor(math.log10(abs(x))) + places if x else -1
        return f"{x:{plus}.{min(digits, 16)}e}" if digits >= 0 else f"{0.0:{plus}.0f}"

    return text

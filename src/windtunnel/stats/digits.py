"""Numbers as text. Four decimals, and more or an exponent only where these would show nothing or too much."""

from __future__ import annotations

import math
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
    places = _places((found.estimate, found.low, found.high), found.high - found.low)
    return f"{_to(found.estimate, places, sign)}{between}{ends(found, sign)}"


def ends(found: Estimate, sign: bool = False) -> str:
    """`[0.0829, 0.1202]`: to as many decimals as tell both ends apart."""
    places = _places((found.estimate, found.low, found.high), found.high - found.low)
    return f"[{_to(found.low, places, sign)}, {_to(found.high, places, sign)}]"


def plus_minus(found: Estimate) -> str:
    """`2.3886 ±0.0012`, for an interval that is as far to the left as to the right."""
    if math.isnan(found.low):
        return number(found.estimate)
    half = found.high - found.estimate
    places = _places((found.estimate,), half)
    return f"{_to(found.estimate, places)} ±{_to(half, places)}"


def p_value(p: float, form: str = ".2g") -> str:
    """`0.031`, or `< 1e-4`: never 0."""
    return f"< {LEAST_P:.0e}".replace("e-0", "e-") if p < LEAST_P else f"{p:{form}}"


def p_is(p: float, form: str = ".2g") -> str:
    """`p = 0.031`, or `p < 1e-4`."""
    return f"p {'' if p < LEAST_P else '= '}{p_value(p, form)}"


def probability(p: float) -> str:
    """`0.8123`, `< 1e-4` or `> 0.9999`: neither 0 nor 1."""
    return "> 0.9999" if p > 0.9999 else p_value(p, ".4f")


def _places(values: tuple[float, ...], width: float) -> int:
    """Decimals, fewer than 0 for huge values, that show these values and tell numbers apart that lie `width` apart."""
    size, places = max(map(abs, values)), 4
    if not math.isfinite(size):
        return places
    if 0 < size < FEWEST * 1e-4 or size >= HUGE:
        places = (2 if size < 1 else 4) - math.floor(math.log10(size))
    return 1 - math.floor(math.log10(width)) if 0 < width < 10.0**-places else places


def _to(x: float, places: int, sign: bool = False) -> str:
    """x to so many decimals; with an exponent where they are many or fewer than 0."""
    plus = "+" if sign else ""
    if 0 <= places <= 7 or not math.isfinite(x):
        return f"{x + 0.0:{plus}.{max(0, places)}f}"
    digits = math.floor(math.log10(abs(x))) + places if x else -1
    return f"{x:{plus}.{min(digits, 16)}e}" if digits >= 0 else f"{0.0:{plus}.0f}"

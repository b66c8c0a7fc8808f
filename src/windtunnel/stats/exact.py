"""Moments without rounding: a float is a whole number times a power of two, and whole numbers add exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction


def whole_numbers(values: Iterable[float]) -> tuple[list[int], int]:
    """Finite values as whole numbers over one common denominator, a power of two."""
    ratios = [float(x).as_integer_ratio() for x in values]
    shared = max(below for _, below in ratios)
    return [above * (shared // below) for above, below in ratios], shared


def mean(values: Iterable[float]) -> Fraction:
    """The exact mean of finite values."""
    row, shared = whole_numbers(values)
    return Fraction(sum(row), len(row) * shared)


def covariance(a: Iterable[float], b: Iterable[float]) -> Fraction:
    """The exact sample covariance of pairs, and of a sample with itself the variance; 0 where all are equal."""
    (x, below_x), (y, below_y) = whole_numbers(a), whole_numbers(b)
    n = len(x)
    products = n * sum(i * j for i, j in zip(x, y, strict=True)) - sum(x) * sum(y)
    return Fraction(products, n * (n - 1) * below_x * below_y)


def square_root(value: Fraction) -> float:
    """The root as a float with 53 correct bits, also where the value itself is too large or too small for a float.

    Raises:
        OverflowError: when the root is too large for a float.
    """
    above, below = value.numerator, value.denominator
    shift = (above.bit_length() - below.bit_length() - 128) // 2
    above, below = (above, below << 2 * shift) if shift > 0 else (above << -2 * shift, below)
    return math.ldexp(math.isqrt(above // below), shift)

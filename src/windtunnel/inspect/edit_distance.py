"""The edit distance of two sequences (Levenshtein 1966)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def edit_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions of an item that make one sequence the other.

    Row by row (Wagner & Fischer 1974). Within a row an insertion costs 1 for each step to the right, so that the
    cheapest way to a cell is a running minimum of what is to its left, less its place.
    """
    codes = {item: code for code, item in enumerate(dict.fromkeys([*one, *other]))}
    columns = np.array([codes[item] for item in other], np.int64)
    places = np.arange(len(other) + 1)
    row = places
    for item in one:
        above = row + 1  # a deletion
        above[1:] = np.minimum(above[1:], row[:-1] + (columns != codes[item]))
        row = np.minimum.accumulate(above - places) + places
    return int(row[-1])

"""What to keep in mind about a study's fits: repeated text, spreads that differ, and shapes that do not fit."""

from __future__ import annotations

import numpy as np
from scipy.special import fdtrc

from windtunnel.scaling.isoflop import Size
from windtunnel.scaling.points import Points

ALPHA = 0.01
MATTERS = 2
"""Spreads less than this factor apart are not spoken of."""
WARN_EPOCHS, MOST_EPOCHS = 1, 4
"""Text that is read up to four times is worth almost as much as new text, and less and less beyond (Muennighoff et al.
2023, arXiv 2305.16264, section 5)."""


def refuse_repeats(points: Points) -> str | None:
    """Why runs that saw their text too often are not fitted, or None."""
    if points.epochs is None or points.epochs.max() <= MOST_EPOCHS:
        return None
    return (
        f"Runs saw their text up to {points.epochs.max():.1f} times, and repeats beyond {MOST_EPOCHS} teach clearly "
        "less than new text; give more text, or allow it with --repeat-data."
    )


def notes_on(points: Points, size: Size) -> tuple[str, ...]:
    """Sentences; none where nothing is wrong."""
    found = list(points.notes)
    if points.epochs is not None and points.epochs.max() > WARN_EPOCHS:
        repeated = int(np.sum(points.epochs > WARN_EPOCHS))
        found.append(
            f"{repeated} of {len(points)} runs saw their text more than once (up to {points.epochs.max():.1f} times): "
            "these fits hold for repeated text, not for new text."
        )
    squares, df, pure, pure_df = _residuals(points, size)
    return (*found, *_spreads(squares, df), *_shape(sum(squares), sum(df), pure, pure_df))


def _residuals(points: Points, size: Size) -> tuple[list[float], list[int], float, int]:
    """Of each budget the residuals' sum of squares and degrees of freedom; of all those within a size and budget."""
    squares, df, pure, pure_df = [], [], 0.0, 0
    for nominal in points.budgets:
        here = points.nominal == nominal
        n, loss = np.log(getattr(points, size)[here]), points.loss[here]
        sizes, which = np.unique(n, return_inverse=True)
        if len(sizes) < 3:
            continue
        means = np.bincount(which, loss) / np.bincount(which)
        pure += float(np.sum((loss - means[which]) ** 2))
        pure_df += len(loss) - len(sizes)
        u = n - n.mean()
        squares.append(float(np.sum((loss - np.polyval(np.polyfit(u, loss, 2), u)) ** 2)))
        df.append(len(loss) - 3)
    return squares, df, pure, pure_df


def _spreads(squares: list[float], df: list[int]) -> list[str]:
    known = [(s / n, n) for s, n in zip(squares, df, strict=True) if n > 0]
    if len(known) < 2:
        return []
    (least, least_df), (most, most_df) = min(known), max(known)
    if (
        most < MATTERS**2 * least
        or least == 0
        or fdtrc(most_df, least_df, most / least) > ALPHA / (len(known) * (len(known) - 1))
    ):
        return []
    return [
        f"Residuals differ between budgets, from {np.sqrt(least):.2g} to {np.sqrt(most):.2g} nats, and the intervals "
        "share one variance: those of the noisier budgets are too narrow. Five seeds a size give each budget its own."
    ]


def _shape(squares: float, df: int, pure: float, pure_df: int) -> list[str]:
    lack_df = df - pure_df
    if lack_df < 1 or pure_df < 1 or pure == 0:
        return []
    ratio = (squares - pure) / lack_df / (pure / pure_df)
    if fdtrc(lack_df, pure_df, ratio) > ALPHA:
        return []
    return [
        f"The parabolas miss the mean losses by more than the seeds' spread explains (F = {ratio:.3g}): "
        "their vertices may be off; sample sizes nearer to the best one."
    ]

"""The picture of what programs said on their way: the metric that decides, every run a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel.report.charts import figure, lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.programs.measured import Measured


def series_figure(arms: Sequence[Measured], metric: str) -> Figure | None:
    """A colour an arm, a line a run; None where no run said the metric more than once."""
    curves = {
        arm.name: [
            (one.series[metric].steps, one.series[metric].values)
            for one in arm.runs
            if metric in one.series and len(one.series[metric].values) > 1
        ]
        for arm in arms
    }
    if not any(curves.values()):
        return None
    told = {name: own for name, own in curves.items() if own}
    return figure(lines(told, xlabel="step", ylabel=metric, title="Every run on its way"), size=(12.0, 4.2))

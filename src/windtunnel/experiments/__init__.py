"""The built-in experiments: what a course or an interview did once by hand, run so that its conclusion holds.

To add one, write a generator function in a file of this folder (see `frame`), and a line in EXPERIMENTS below.
"""

from __future__ import annotations

import difflib

from windtunnel.errors import ConfigError
from windtunnel.experiments.coin_estimators import coin_estimators
from windtunnel.experiments.direct_connections import direct_connections
from windtunnel.experiments.duplicated_feature import duplicated_feature
from windtunnel.experiments.email_ab_test import email_ab_test
from windtunnel.experiments.fold_batch_norm import fold_batch_norm
from windtunnel.experiments.frame import Experiment
from windtunnel.experiments.initial_loss import initial_loss
from windtunnel.experiments.makemore_ladder import makemore_ladder
from windtunnel.experiments.rows import ROWS
from windtunnel.experiments.sparse_logistic_cost import sparse_logistic_cost
from windtunnel.experiments.zero_init import zero_init


def find_experiment(name: str) -> Experiment:
    """The experiment of this name or row id, upper or lower case.

    Raises:
        ConfigError: for a row that is not built yet, and for an unknown name, naming the nearest.
    """
    asked = name.lower()
    for experiment in EXPERIMENTS.values():
        if asked in (experiment.name, *(row.lower() for row in experiment.rows)):
            return experiment
    for row, title in ROWS.items():
        if asked == row.lower():
            raise ConfigError(f"{row} ({title}) is not built yet; `windtunnel experiment` lists those that are")
    known = {key.lower(): key for key in [*EXPERIMENTS, *ROWS]}
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.4)
    hint = f"did you mean {known[near[0]]}?" if near else "`windtunnel experiment` lists them"
    raise ConfigError(f"there is no experiment {name!r}; {hint}")


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("duplicated-feature", ("000-Q1", "E1"), duplicated_feature),
        Experiment("email-ab-test", ("000-Q2", "E2"), email_ab_test),
        Experiment("sparse-logistic-cost", ("000-Q3", "E3"), sparse_logistic_cost),
        Experiment("coin-estimators", ("000-Q5",), coin_estimators),
        Experiment("makemore-ladder", ("003-1.E01", "E19"), makemore_ladder),
        Experiment("initial-loss", ("003-1.E02", "E20"), initial_loss),
        Experiment("direct-connections", ("003-1.E03", "E21"), direct_connections),
        Experiment("zero-init", ("003-2.E01", "E23"), zero_init),
        Experiment("fold-batch-norm", ("003-2.E02", "E22", "E24"), fold_batch_norm),
    )
}

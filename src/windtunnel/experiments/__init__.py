"""The built-in experiments: what a course or an interview did once by hand, run so that its conclusion holds.

To add one, write a generator function in a file of this folder (see `frame`), and a line in EXPERIMENTS below.
"""

from __future__ import annotations

import difflib

from windtunnel.errors import ConfigError
from windtunnel.experiments.attention_by_hand import attention_by_hand
from windtunnel.experiments.coin_estimators import coin_estimators
from windtunnel.experiments.descent import descent
from windtunnel.experiments.direct_connections import direct_connections
from windtunnel.experiments.duplicated_feature import duplicated_feature
from windtunnel.experiments.email_ab_test import email_ab_test
from windtunnel.experiments.fold_batch_norm import fold_batch_norm
from windtunnel.experiments.frame import Experiment
from windtunnel.experiments.gpt2_kv_heads import gpt2_kv_heads
from windtunnel.experiments.gpt2_positions import gpt2_positions
from windtunnel.experiments.gpt2_source import gpt2_source
from windtunnel.experiments.gpt2_windows import gpt2_windows
from windtunnel.experiments.initial_loss import initial_loss
from windtunnel.experiments.learning_rate import learning_rate
from windtunnel.experiments.makemore_ladder import makemore_ladder
from windtunnel.experiments.quick_recipe import quick_recipe
from windtunnel.experiments.rows import ROWS
from windtunnel.experiments.seed_42 import seed_42
from windtunnel.experiments.sparse_logistic_cost import sparse_logistic_cost
from windtunnel.experiments.tensor_shapes import tensor_shapes
from windtunnel.experiments.weight_decay_groups import weight_decay_groups
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
        Experiment("tensor-shapes", ("002-1.1", "002-1.2", "002-1.3", "002-2"), tensor_shapes),
        Experiment("seed-42", ("002-3.1", "002-3.2", "E16", "E18"), seed_42),
        Experiment("attention-by-hand", ("002-4", "E17"), attention_by_hand),
        Experiment("descent", ("002-5.1",), descent),
        Experiment("learning-rate", ("002-5.2",), learning_rate),
        Experiment("weight-decay-groups", ("E35",), weight_decay_groups),
        Experiment("gpt2-source", ("000-T1", "E5"), gpt2_source),
        Experiment("gpt2-positions", ("000-T2a",), gpt2_positions),
        Experiment("gpt2-kv-heads", ("000-T2b",), gpt2_kv_heads),
        Experiment("gpt2-windows", ("000-T2c",), gpt2_windows),
        Experiment("makemore-ladder", ("003-1.E01", "E19"), makemore_ladder),
        Experiment("initial-loss", ("003-1.E02", "E20"), initial_loss),
        Experiment("direct-connections", ("003-1.E03", "E21"), direct_connections),
        Experiment("zero-init", ("003-2.E01", "E23"), zero_init),
        Experiment("quick-recipe", ("time-to-loss",), quick_recipe),
        Experiment("fold-batch-norm", ("003-2.E02", "E22", "E24"), fold_batch_norm),
    )
}

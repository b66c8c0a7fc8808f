"""Statistics: plain functions, frozen results, always an interval. Knows nothing of models.

The functions can be had from here, `stats.mean_interval`, and are imported from their modules when they are used.
"""

from typing import TYPE_CHECKING

from windtunnel.lazy import importing, modules_of

if TYPE_CHECKING:
    from windtunnel.stats.bayes import coin, probability_better
    from windtunnel.stats.bootstrap import bca_interval, ratio_of_sums_interval
    from windtunnel.stats.calibration import reliability, temperature
    from windtunnel.stats.intervals import Estimate, mean_interval, paired_difference, paired_ratio
    from windtunnel.stats.multiplicity import adjust, dunnett_p, false_discovery
    from windtunnel.stats.paired import mcnemar, permutation_test, sign_flip_test, t_test, tost
    from windtunnel.stats.power import (
        n_proportions,
        power_equivalence,
        power_paired,
        seeds_needed,
        seeds_to_equivalence,
    )
    from windtunnel.stats.proportions import against_control, compare_proportions, fisher_exact, wilson
    from windtunnel.stats.sequential import always_valid_p, nominal_level

_MODULES = modules_of(
    "windtunnel.stats",
    {
        "bayes": "coin probability_better",
        "bootstrap": "bca_interval ratio_of_sums_interval",
        "calibration": "reliability temperature",
        "intervals": "Estimate mean_interval paired_difference paired_ratio",
        "multiplicity": "adjust dunnett_p false_discovery",
        "paired": "mcnemar permutation_test sign_flip_test t_test tost",
        "power": "n_proportions power_equivalence power_paired seeds_needed seeds_to_equivalence",
        "proportions": "against_control compare_proportions fisher_exact wilson",
        "sequential": "always_valid_p nominal_level",
    },
)
__all__ = [
    "Estimate", "adjust", "against_control", "always_valid_p", "bca_interval", "coin", "compare_proportions",
    "dunnett_p", "false_discovery", "fisher_exact", "mcnemar", "mean_interval", "n_proportions", "nominal_level",
    "paired_difference", "paired_ratio", "permutation_test", "power_equivalence", "power_paired", "probability_better",
    "ratio_of_sums_interval", "reliability", "seeds_needed", "seeds_to_equivalence", "sign_flip_test", "t_test",
    "temperature", "tost", "wilson",
]  # fmt: skip


__getattr__ = importing("windtunnel.stats", _MODULES)


def __dir__() -> list[str]:
    return __all__

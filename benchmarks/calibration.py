"""How often the verdicts of `windtunnel compare` are wrong, and how often they find what is there: by simulation.

    python -m benchmarks.calibration [--experiments 4000]

Losses of baseline and arms are drawn with the same normal noise unless the design says otherwise; an arm's true effect
is given in standard deviations of one run. Prints one JSON document: for each design the share of experiments in which
any arm was called better or worse, with its Wilson interval, and what was promised.
"""

import argparse
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

import numpy as np

from windtunnel.comparison.verdict import Rule, judge
from windtunnel.stats.power import power_paired
from windtunnel.stats.proportions import wilson
from windtunnel.stats.sequential import always_valid_p
from windtunnel.training import machine

LOOKS = tuple(range(4, 17))


def normal(rng, shape):
    return rng.normal(0, 1, shape)


def skewed(rng, shape):
    """The same skewed distribution in every arm: the differences are symmetric."""
    return rng.exponential(1, shape)


def skewed_differences(rng, shape):
    """Equal means, and the arms alone are skewed: so are the differences."""
    return np.concatenate([np.ones((1, shape[1])), rng.lognormal(-0.5, 1, (shape[0] - 1, shape[1]))])


def exponential_differences(rng, shape):
    """Less skewed: standard exponential minus 1."""
    return np.concatenate([np.ones((1, shape[1])), rng.exponential(1, (shape[0] - 1, shape[1]))])


def often_diverged(rng, shape):
    """Three of ten runs of every arm diverge."""
    losses = rng.normal(0, 1, shape)
    losses[rng.random(shape) < 0.3] = math.inf
    return losses


OTHER_DRAWS = {
    "no difference, 1 arm, 4 seeds, losses exponential": skewed,
    "no difference, 1 arm, 6 seeds, losses exponential": skewed,
    "equal means, 1 arm, 4 seeds, differences lognormal": skewed_differences,
    "equal means, 1 arm, 12 seeds, differences lognormal": skewed_differences,
    "equal means, 1 arm, until decided, 4 to 16 seeds, differences exponential": exponential_differences,
    "equal means, 1 arm, until decided, 4 to 16 seeds, differences lognormal": skewed_differences,
    "equal means, 1 arm, always-valid p, 2 to 200 seeds, differences exponential": exponential_differences,
    "equal means, 1 arm, always-valid p, 2 to 200 seeds, differences lognormal": skewed_differences,
    "no difference, 1 arm, always-valid p, 2 to 200 seeds, losses exponential": skewed,
    "no difference, 1 arm, 12 seeds, 3 of 10 runs diverge": often_diverged,
    "no difference, 1 arm, until decided, 4 to 16 seeds, 3 of 10 runs diverge": often_diverged,
}
DESIGNS = {
    "no difference, 1 arm, 6 seeds": (1, 6, 0.0, Rule(1e-9)),
    "no difference, 5 arms, 6 seeds, Holm": (5, 6, 0.0, Rule(1e-9)),
    "no difference, 5 arms, 6 seeds, Dunnett": (5, 6, 0.0, Rule(1e-9, correction="dunnett")),
    "no difference, 1 arm, until decided, 4 to 16 seeds": (1, 16, 0.0, Rule(1e-9, looks=LOOKS)),
    "no difference, 3 arms, until decided, 4 to 16 seeds": (3, 16, 0.0, Rule(1e-9, looks=LOOKS)),
    "no difference, 1 arm, a naive p < .05 after each of 4 to 16 seeds": (1, 16, 0.0, None),
    "no difference, 1 arm, 4 seeds, losses exponential": (1, 4, 0.0, Rule(1e-9)),
    "no difference, 1 arm, 6 seeds, losses exponential": (1, 6, 0.0, Rule(1e-9)),
    "equal means, 1 arm, 4 seeds, differences lognormal": (1, 4, 0.0, Rule(1e-9)),
    "equal means, 1 arm, 12 seeds, differences lognormal": (1, 12, 0.0, Rule(1e-9)),
    "no difference, 1 arm, 12 seeds, 3 of 10 runs diverge": (1, 12, 0.0, Rule(1e-9)),
    "no difference, 1 arm, until decided, 4 to 16 seeds, 3 of 10 runs diverge": (1, 16, 0.0, Rule(1e-9, looks=LOOKS)),
    "effect 1.5, 1 arm, 8 seeds": (1, 8, 1.5, Rule(1e-9)),
    "effect 1.5, 1 arm, until decided, 4 to 16 seeds": (1, 16, 1.5, Rule(1e-9, looks=LOOKS)),
    "effect 0.5, 1 arm, 16 seeds": (1, 16, 0.5, Rule(1e-9)),
    "equal means, 1 arm, until decided, 4 to 16 seeds, differences exponential": (1, 16, 0.0, Rule(1e-9, looks=LOOKS)),
    "equal means, 1 arm, until decided, 4 to 16 seeds, differences lognormal": (1, 16, 0.0, Rule(1e-9, looks=LOOKS)),
    "no difference, 1 arm, always-valid p, 2 to 200 seeds": (1, 200, 0.0, always_valid_p),
    "no difference, 1 arm, always-valid p, 2 to 200 seeds, losses exponential": (1, 200, 0.0, always_valid_p),
    "equal means, 1 arm, always-valid p, 2 to 200 seeds, differences exponential": (1, 200, 0.0, always_valid_p),
    "equal means, 1 arm, always-valid p, 2 to 200 seeds, differences lognormal": (1, 200, 0.0, always_valid_p),
}


def names_a_winner(rule, differences):
    """Whether any arm is called better or worse; without a rule, as somebody does who looks after every seed."""
    if rule is None:
        return any(names_a_winner(Rule(1e-9), {a: d[:n] for a, d in differences.items()}) for n in LOOKS)
    if rule is always_valid_p:  # the smallest over all looks
        return any(always_valid_p(d) <= 0.05 for d in differences.values())
    return any(verdict.word in ("better", "worse") for verdict in judge(differences, rule))


def simulate(name, experiments, seed):
    n_arms, n_seeds, effect, rule = DESIGNS[name]
    rng = np.random.default_rng(seed)
    named = 0
    for _ in range(experiments):
        losses = OTHER_DRAWS.get(name, normal)(rng, (n_arms + 1, n_seeds))
        with np.errstate(invalid="ignore"):  # inf - inf: both diverged
            differences = {str(i): row + effect - losses[0] for i, row in enumerate(losses[1:])}
        named += names_a_winner(rule, differences)
    return named


def promised(name):
    _, n_seeds, effect, rule = DESIGNS[name]
    if effect == 0:
        return "at most 0.05" if rule and not name.startswith("equal means") else "nothing"
    if rule.looks:
        return f"below {power_paired(effect, math.sqrt(2), n_seeds):.3f}, the power of one look at 16"
    return f"{power_paired(effect, math.sqrt(2), n_seeds):.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=4000)
    experiments = parser.parse_args().experiments
    rows = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = {name: pool.submit(simulate, name, experiments, i) for i, name in enumerate(DESIGNS)}
        for name, future in futures.items():
            rows[name] = {"winner named": asdict(wilson(future.result(), experiments)), "promised": promised(name)}
    print(json.dumps({"machine": machine.description(), "experiments": experiments, "designs": rows}, indent=2))


if __name__ == "__main__":
    main()

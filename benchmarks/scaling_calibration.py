"""How often the 95 % bands of `windtunnel scale` hold the truth, by simulation from a known law.

    python -m benchmarks.scaling_calibration [--studies 3000] [--law-studies 240]

The law is L = 1 + A/N^.34 + B/D^.28 with its best size 3e4 at 1e11 FLOPs, at most designs four budgets a factor of
sqrt(10) apart and five sizes over a factor of 4 either way; losses have normal noise, in nats. "budgets scatter" moves
each budget's best size by a random 10 %. Prints one JSON document: for each design and band the share of studies, among
those that were not refused, whose band held the truth, with its Wilson interval, and the share that was refused.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from windtunnel.scaling.fit import fit_scaling
from windtunnel.scaling.points import Points
from windtunnel.scaling.simulate import Law, simulate
from windtunnel.stats.proportions import wilson
from windtunnel.training import machine

LAW = Law.through(1e11, 3e4)
EIGHT = [1e10 * 10 ** (i / 4) for i in range(8)]
FOUR = EIGHT[::2]
DEFAULT = {"budgets": FOUR, "seeds": (3, 3, 1, 1), "noise": 0.01}
DESIGNS = {
    "3 seeds at the two low budgets, 1 at the high": DEFAULT,
    "the same, noise .03": {**DEFAULT, "noise": 0.03},
    "1 seed": {**DEFAULT, "seeds": (1, 1, 1, 1)},
    "1 seed, noise .03": {**DEFAULT, "seeds": (1, 1, 1, 1), "noise": 0.03},
    "3 seeds": {**DEFAULT, "seeds": (3, 3, 3, 3)},
    "3 seeds, noise .03": {**DEFAULT, "seeds": (3, 3, 3, 3), "noise": 0.03},
    "6 seeds, drawn with replacement": {**DEFAULT, "seeds": (6, 6, 6, 6)},
    "6 seeds, drawn with replacement, noise .03": {**DEFAULT, "seeds": (6, 6, 6, 6), "noise": 0.03},
    "8 budgets, 1 seed": {**DEFAULT, "budgets": EIGHT, "seeds": (1,) * 8},
    "8 budgets, 1 seed, noise .03": {**DEFAULT, "budgets": EIGHT, "seeds": (1,) * 8, "noise": 0.03},
    "sizes 1.7 times too large": {**DEFAULT, "off": 1.7},
    "sizes 1.7 times too large, noise .03": {**DEFAULT, "off": 1.7, "noise": 0.03},
    "budgets scatter": {**DEFAULT, "scatter": 0.1},
    "8 budgets scatter, 1 seed": {**DEFAULT, "budgets": EIGHT, "seeds": (1,) * 8, "scatter": 0.1},
}
SAMPLES, AIM = 400, (0.935, 0.965)
CLAIM = "the 95 % bands of a scaling study hold the truth in 93.5 to 96.5 % of simulated studies, whatever the design"
WITH_LAW = list(DESIGNS)[:2] + list(DESIGNS)[4:6]
"""Designs whose parametric law is judged as well."""


def points_of(design, rng):
    budgets = design["budgets"]
    sizes = [LAW.optimum(c) * design.get("off", 1) * np.geomspace(1 / 4, 4, 5) for c in budgets]
    points = simulate(LAW, sizes, budgets, design["seeds"], design["noise"], rng)
    if "scatter" not in design:
        return points
    factors = np.exp(design["scatter"] * rng.standard_normal(len(budgets)))
    n = points.parameters * factors[np.searchsorted(budgets, points.nominal)]
    return Points(n, points.flops / 6 / n, points.flops, points.loss, points.seed, budget=points.nominal)


def study(name, n, seed, law):
    """Of n studies, what each band held: (part, held) pairs."""
    design, rng = DESIGNS[name], np.random.default_rng(seed)
    far = 10 * max(design["budgets"])
    best = LAW.optimum(far)
    loss = float(LAW.loss(np.array(best), np.array(far / 6 / best)))
    found = []
    for i in range(n):
        fit = fit_scaling(points_of(design, rng), samples=SAMPLES, seed=i, law=law)
        at = fit.at(far)
        exponents = [part.exponent if part else None for part in (fit.parameters, fit.law)]
        judged = {"exponent": (exponents[0], LAW.exponent), "N* at 10x": (at.parameters, best)}
        judged |= {"L* at 10x": (at.loss, loss)}
        if law:
            judged |= {"law: exponent": (exponents[1], LAW.exponent), "law: N* at 10x": (at.law_parameters, best)}
            judged |= {"law: L* at 10x": (at.law_loss, loss)}
        found += [(part, None if e is None else e.low <= truth <= e.high) for part, (e, truth) in judged.items()]
    return found


def rows_of(name, found):
    """One row a band that was judged: in which share of the studies it held the truth, and was refused."""
    for part in dict.fromkeys(part for part, _ in found):
        held = [h for p, h in found if p == part]
        given = [h for h in held if h is not None]
        share = wilson(sum(given), len(given))
        yield {"design": name, "band": part, "held": share.estimate, "low": share.low, "high": share.high,
               "studies": len(held), "refused": 1 - len(given) / len(held)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=3000)
    parser.add_argument("--law-studies", type=int, default=240)
    asked = parser.parse_args()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(study, name, asked.studies, i, False) for i, name in enumerate(DESIGNS)}
        laws = {name: pool.submit(study, name, asked.law_studies, 100 + i, True) for i, name in enumerate(WITH_LAW)}
        rows = []
        for name, job, kind in [*((*job, "") for job in jobs.items()), *((*job, "law") for job in laws.items())]:
            found = [row for row in rows_of(name, job.result()) if row["band"].startswith(kind)]
            print(name, {row["band"]: round(row["held"], 4) for row in found}, file=sys.stderr, flush=True)
            rows += found
    holds = all(AIM[0] <= row["held"] <= AIM[1] for row in rows)
    head = {"claim": CLAIM, "holds": holds, "machine": machine.description(), "repeats": asked.studies}
    print(json.dumps({**head, "samples": SAMPLES, "results": rows}, indent=2))


if __name__ == "__main__":
    main()

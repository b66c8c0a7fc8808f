"""What a loop accepts that tries 200 changes in turn: by a verdict, and by the usual rules of one run.

    python -m benchmarks.judging [--baselines 50] [--changes 200]

A program is simulated: the score of a run (lower is better) is its true level plus normal noise with standard deviation
1, drawn anew for every program and seed; where half of the noise is the seed's, that half is the same in all programs
with this seed. Every change is judged by the function behind `windtunnel judge` against the code as it is. One that is
accepted becomes that code, with the runs that it was accepted with (what it lacks of the seeds is run), or with those
of new seeds. Changes either do nothing, or lower the level by half a standard deviation. Each of the independent
baselines sees its own changes, and intervals are over baselines, since the changes of one share its luck.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from windtunnel.programs.arms import make_plan
from windtunnel.programs.judge import verdicts
from windtunnel.programs.measured import Measured, measured_run
from windtunnel.programs.metrics import Series
from windtunnel.stats.intervals import mean_interval
from windtunnel.training import machine

GAIN, MARGIN = 0.5, 0.1
"""In standard deviations of one run."""
CLAIM = "of changes that do nothing, at most 5 % are accepted by a verdict"


@dataclass(frozen=True)
class Rule:
    """seeds: of the baseline, and the most of a change; looks: whether fewer may decide; shared: the seed's part.

    fresh: when the code as it is gets new seeds: never, when a change is accepted, or for each change.
    """

    name: str
    seeds: int
    looks: bool = False
    shared: float = 0.0
    fresh: str = "never"

    def plan(self):
        told = {"max_seeds": self.seeds, "until_decided": True} if self.looks else {"seeds": self.seeds}
        arms = {"code": "{seed}", "change": " {seed}"}
        return make_plan({"arms": arms, "metrics": [{"where": "score"}], "margin_in_units": MARGIN, **told})


RULES = [
    Rule("verdict, 6 seeds", 6),
    Rule("verdict, 12 seeds", 12),
    Rule("verdict, 12 seeds, half of the noise is the seed's", 12, shared=0.5),
    Rule("verdict, until decided, 4 to 12 seeds", 12, looks=True),
    Rule("verdict, 12 seeds, new ones after an acceptance", 12, fresh="accepted"),
    Rule("verdict, 6 seeds, new ones for each change", 6, fresh="always"),
    Rule("verdict, 12 seeds, new ones for each change", 12, fresh="always"),
    Rule("verdict, 64 seeds", 64),
]


def runs_of(values, plan):
    score = {i: {"score": Series((0.0,), (float(v),))} for i, v in enumerate(values)}
    return tuple(measured_run(seed, "", series, plan.metrics) for seed, series in score.items())


def judged_loop(rule, changes, gain, seed):
    """(accepted, runs, what the loop believes that it gained)."""
    rng, plan = np.random.default_rng([seed, rule.seeds, rule.looks, int(10 * gain)]), rule.plan()
    common = rng.normal(0, rule.shared**0.5, rule.seeds)

    def program(level):
        return level + common + rng.normal(0, (1 - rule.shared) ** 0.5, rule.seeds)

    level, accepted = 0.0, 0
    code = first = program(level)
    n_runs = rule.seeds
    for _ in range(changes):
        change = program(level - gain)
        arms = [Measured(name, {}, name, runs_of(own, plan)) for name, own in (("code", code), ("change", change))]
        (verdict,) = verdicts(arms, plan)
        n_runs += verdict.n
        if verdict.word == "better":
            n_runs += rule.seeds - verdict.n
            code, level, accepted = change, level - gain, accepted + 1
        if rule.fresh == "always" or (rule.fresh == "accepted" and verdict.word == "better"):
            code, n_runs = program(level), n_runs + rule.seeds
    return accepted, n_runs, first.mean() - code.mean()


def best_so_far(changes, gain, seed):
    """One run a change, accepted when its score is lower than all before."""
    rng = np.random.default_rng([seed, 1])
    level, accepted, best = 0.0, 0, (first := rng.normal())
    for _ in range(changes):
        if (score := level - gain + rng.normal()) < best:
            level, best, accepted = level - gain, score, accepted + 1
    return accepted, changes + 1, first - best


def run_beside_run(changes, gain, seed):
    """A new run of the code and one of the change; the lower one stays."""
    rng = np.random.default_rng([seed, 2])
    accepted, believed = 0, 0.0
    for _ in range(changes):
        if (difference := rng.normal() - (rng.normal() - gain)) > 0:
            accepted, believed = accepted + 1, believed + difference
    return accepted, 2 * changes, believed


def row(name, kind, gain, loops):
    accepted, runs, believed = zip(*loops, strict=True)
    share = mean_interval([float(n) for n in accepted])
    return {
        "rule": name, "changes": kind, "accepted": share.estimate, "low": share.low, "high": share.high,
        "runs": float(np.mean(runs)), "believed_gain": float(np.mean(believed)),
        "true_gain": gain * share.estimate,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baselines", type=int, default=50)
    parser.add_argument("--changes", type=int, default=200)
    asked = parser.parse_args()
    seeds, results = range(asked.baselines), []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for kind, gain in (("do nothing", 0.0), (f"gain {GAIN} sd", GAIN)):
            for rule in RULES:
                futures = [pool.submit(judged_loop, rule, asked.changes, gain, seed) for seed in seeds]
                results.append(row(rule.name, kind, gain, [future.result() for future in futures]))
            for name, loop in (("one run, lower than the best so far", best_so_far),
                               ("one run, lower than a new run of the code", run_beside_run)):  # fmt: skip
                results.append(row(name, kind, gain, [loop(asked.changes, gain, seed) for seed in seeds]))
    nothing = [r for r in results if r["changes"] == "do nothing" and r["rule"].startswith("verdict")]
    holds = all(r["high"] <= 0.05 * asked.changes for r in nothing)
    told = {"claim": CLAIM, "holds": holds, "machine": machine.description(), "repeats": asked.baselines}
    print(json.dumps({**told, "results": results}, indent=2))


if __name__ == "__main__":
    main()

"""Choosing what to label: what it gains on real texts, whether `auto` is right, and how many wrong labels are found.

    python -m benchmarks.labelling [curves|auto|errors|calibration] [--seeds N]

curves: every strategy against random on R8 and on names, 10 seeds, 8 rounds. auto: from 200 random labels `auto`
decides once, then 100 more are asked for, by its choice and at random. errors: of 400 labels a fifth is changed, and 40
are checked. calibration: how often a strategy that is random choice under another name is called better.

The texts are fetched first: `windtunnel corpora get r8`, `windtunnel corpora get names-sex`.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from windtunnel.config import plain
from windtunnel.labelling.examples import Example, corpus_examples
from windtunnel.labelling.features import fit, out_of_fold
from windtunnel.labelling.next import next_round, prepare, simulated
from windtunnel.labelling.simulation import Design, simulate
from windtunnel.labelling.strategies import RANDOM, STRATEGIES
from windtunnel.labelling.suspects import least_believed, planted, suspects
from windtunnel.report.labelling import points, share, simulation_lines, simulation_table
from windtunnel.stats.intervals import paired_difference
from windtunnel.stats.proportions import wilson
from windtunnel.text.corpora import open_corpus
from windtunnel.training import machine

CORPORA = ("r8", "names-sex")


def data_of(name):
    return prepare(corpus_examples(open_corpus(name)))


def curves(seeds):
    """What the strategies gain, in accuracy over the rounds."""
    found = {}
    for name in CORPORA:
        simulation = simulated(data_of(name), seeds, rounds=8, budget=300)
        table = simulation_table(simulation)
        found[name] = {"table": [table.columns, *table.rows], "said": simulation_lines(simulation)}
        chosen = simulation.accuracy["margin"]
        near = np.flatnonzero(chosen.mean(axis=0) >= simulation.everything.estimate - 0.01)
        found[name]["margin within a point of all labels with"] = (
            simulation.design.sizes[near[0]] if len(near) else None
        )
    return found


def auto(seeds):
    """Accuracy on held-out texts after 100 more labels, by what `auto` chose, minus that by random choice."""
    found = {}
    for name in CORPORA:
        whole, ends, chosen = data_of(name), {"auto": [], RANDOM: []}, []
        for seed in range(seeds):
            order = np.random.default_rng([seed, 9]).permutation(len(whole.labels))
            test, rest = order[:2000], order[2000:]
            labels = {e.id: i for i, e in enumerate(whole.examples)}
            hidden = [
                Example(e.id, e.text, e.answers if i in {*rest[:200]} else {}) for i, e in enumerate(whole.examples)
            ]
            part = prepare([hidden[i] for i in rest])
            for strategy, own in ends.items():
                asked = next_round(part, 100, strategy, seed=seed)
                chosen += [asked.strategy] if strategy == "auto" else []
                known = np.concatenate([rest[:200], [labels[one.example.id] for one in asked.choices]])
                predict = fit(whole.features[known], whole.labels[known], len(whole.classes))
                own.append(float((predict(whole.features[test]).argmax(axis=1) == whole.labels[test]).mean()))
        gain = paired_difference(ends[RANDOM], ends["auto"])
        found[name] = {"auto chose": chosen, "points over random": points(gain), "gain": gain}
    return found


def errors(seeds):
    """Of 400 random labels a fifth is changed to another one; how many of 40 that are checked were changed."""
    found = {}
    for name in CORPORA:
        data, hits = data_of(name), {}
        n_classes = len(data.classes)
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            drawn = rng.permutation(len(data.labels))[:400]
            changed = planted(data.labels[drawn], n_classes, 0.2, rng)
            wrong = changed != data.labels[drawn]
            p = out_of_fold(data.features[drawn], changed, n_classes, seed=seed)
            orders = {
                "least believed": least_believed(p, changed)[:40],
                "confident disagreement": np.array([one.index for one in suspects(p, changed)][:40]),
                "random": rng.permutation(400)[:40],
            }
            for order, rows in orders.items():
                hits.setdefault(order, []).append((int(wrong[rows].sum()), len(rows)))
        found[name] = {order: share(wilson(*map(sum, zip(*own, strict=True)))) for order, own in hits.items()}
    return found


def calibration(repeats):
    """Five arms that are random choice under other names: in how many simulations one is called better than random."""
    data, arms, named = data_of("names-sex"), {RANDOM: STRATEGIES[RANDOM]}, 0
    arms |= {f"again {i}": STRATEGIES[RANDOM] for i in range(5)}
    for repeat in range(repeats):
        drawn = np.random.default_rng([repeat, 8]).permutation(len(data.labels))[:600]
        seeds = tuple(range(100 * repeat, 100 * repeat + 6))
        found = simulate(data.features[drawn], data.labels[drawn], Design(seeds, 3, 20, 20, 200), arms)
        named += found.best != RANDOM
    return {"a winner is named": share(wilson(named, repeats)), "promised": "at most 5 % (half of it: better only)"}


PARTS = {"curves": (curves, 10), "auto": (auto, 10), "errors": (errors, 20), "calibration": (calibration, 200)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=[*PARTS])
    parser.add_argument("--seeds", type=int, help="seeds; of calibration, simulations")
    given = parser.parse_args()
    parts = [given.part] if given.part else [*PARTS]
    found = {part: PARTS[part][0](given.seeds or PARTS[part][1]) for part in parts}
    print(json.dumps(plain({"machine": machine.description(), **found}), indent=2, ensure_ascii=False, default=str))


if __name__ == "__main__":
    main()

"""002-3: the loss that a notebook printed under seed 42, which model printed it, and cross-entropy without a softmax.

The network is Embedding(8, 6), Linear(6, 10), ReLU, Linear(10, 4) on the tokens 1, 2, 3, 7 with the labels 1, 0, 1, 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from windtunnel.errors import ConfigError
from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.inspect.explain_loss import explain_loss, explain_row_network
from windtunnel.inspect.explain_products import explain_product
from windtunnel.inspect.explain_replay import ROW_IDS, RowNetwork, built, row_replay, seeded
from windtunnel.report.charts import histograms, lines

LOSS, ENTROPY, E16, E18 = Row("002-3.1"), Row("002-3.2"), Row("E16"), Row("E18")
SEED = 42
CLEAN, PRINTED = "1.5464396476745605", "1.3744735717773438"
LOGITS = (0.3125, 0.0869, 0.2802, -0.1106)


def seed_42(at: Setting) -> Findings:
    """The loss under seed 42.

    The network was built again and again after one manual_seed(42), as a notebook cell that is run again builds it; its
    losses are compared with the one that was printed. Then cross-entropy was taken apart.
    """
    n = at.size(1000, quick=100)
    yield Given({"seed": SEED, "models": n, "printed": PRINTED})
    yield Progress("models built after one another", 0, n)
    with seeded(SEED):
        losses = [RowNetwork().loss() for _ in range(n)]
    yield from replay(losses)
    yield from cross_entropy()
    yield from one_bias()


def replay(losses: Sequence[float]) -> Findings:
    """002-3.1 and E16: a clean run, the printed number, the logits printed with it, and how rare a match is."""
    found, first = row_replay(PRINTED, SEED), losses[0]
    same, chance = sum(loss == float(PRINTED) for loss in losses), f"{found.expected_by_chance:.1e} expected by chance"
    shown, printed = f"the first model after the seed has {first!r}", first == float(PRINTED)
    yield LOSS.shows(f"under seed 42 the loss is {PRINTED}", printed, shown, PRINTED, first=first)
    yield E16.shows(f"a clean run gives {CLEAN}", first == float(CLEAN), f"{first!r}", first=first)
    shown = f"model {found.found}, {found.draws} draws after the seed: {found.values[-1]!r}; "
    shown += f"{same} of {len(losses):,} models show it, {chance}"
    statement = "the printed value is the fourth model built without seeding again"
    holds = found.found == 4 and found.values[-1] == float(PRINTED) and same == 1
    yield E16.shows(statement, holds, shown, PRINTED, found=found.found, value=found.values[-1], matches=same)
    with torch.no_grad():
        logits = built(SEED, 4)(torch.tensor(ROW_IDS))[0].tolist()
    rounded = tuple(round(x, 4) for x in logits)
    shown, printed_logits = (", ".join(map(str, row)) for row in (rounded, LOGITS))
    statement = "the logits printed beside it are of that model too"
    yield LOSS.shows(statement, rounded == LOGITS, f"row 1 of model 4: {shown}", printed_logits, row_1=logits)
    n = sum(p.numel() for p in built(SEED, 1).parameters())
    yield LOSS.shows("the network has 162 parameters", n == 162, f"8·6 + 6·10 + 10 + 10·4 + 4 = {n}", parameters=n)
    place = found.found or 0
    rows = ((str(i), f"{loss!r}", "printed" if i == place else "") for i, loss in enumerate(losses[:8], 1))
    yield table("The first eight models since the seed", ("model", "loss", ""), rows)
    marks = {"a clean run": first, "printed": float(PRINTED)}
    order = {"built without seeding again": (range(1, 13), losses[:12])}
    left = lines(order, marks, xlabel="model since the seed", ylabel="loss, nats", xticks=range(1, 13))
    right = histograms({f"{len(losses):,} models": losses}, 30, marks, xlabel="loss, nats")
    yield draw("losses", left, right)


def cross_entropy() -> Findings:
    """002-3.2: cross_entropy takes logits; probabilities handed to it go through a second softmax."""
    found, network = explain_loss([[2.0, 0.0, -1.0]], [0]), explain_row_network(SEED, 1)
    statement = "the cross-entropy of the logits [2, 0, -1] for class 0 is .16985"
    yield ENTROPY.equal(statement, abs(found.mean - 0.16985), 5e-6, shown=f"{found.mean:.5f}")
    twice, statement = found.second_softmax, "of their softmax, given as if it were logits, .65785"
    yield ENTROPY.equal(statement, abs(twice - 0.65785), 5e-6, shown=f"{twice:.5f}")
    shown = f"never below ln(1 + 2/e) = {found.floor:.4f} with 3 classes, {network.floor:.4f} with the network's 4"
    statement = "so a softmax before cross_entropy is a mistake: no loss near 0 is left"
    yield ENTROPY.shows(statement, 0 < found.floor < twice, shown, "no softmax", floor=found.floor)


def one_bias() -> Findings:
    """E18: the equations write one b for both layers."""
    fits = {}
    for layer, shapes in (("hidden", "(4,6) (10,6)"), ("output", "(4,10) (4,10)")):
        for size in (10, 4):
            try:
                fits[layer, size] = str(explain_product(f"linear {shapes} ({size})").result)
            except ConfigError as error:
                fits[layer, size] = f"error: {str(error).partition(';')[0]}"
    works = {f"{layer}_{size}": not said.startswith("error") for (layer, size), said in fits.items()}
    shared = any(works[f"hidden_{size}"] and works[f"output_{size}"] for size in (10, 4))
    shown = "; ".join(f"b ({size}) in the {layer} layer: {said}" for (layer, size), said in fits.items())
    yield E18.shows("one b can serve both layers", shared, shown, "W1 x + b, W2 h + b", **works)

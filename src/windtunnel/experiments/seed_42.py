"""002-3: the loss that a notebook printed under seed 42, which model printed it, and cross-entropy without a softmax.

The network is Embedding(8, 6), Linear(6, 10), ReLU, Linear(10, 4) on the tokens 1, 2, 3, 7 with the labels 1, 0, 1, 3.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from windtunnel.errors import ConfigError
from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 42
CLEAN, PRINTED = "1.5464396476745605", "1.3744735717773438"
LOGITS = (0.3125, 0.0869, 0.2802, -0.1106)


def seed_42(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Which model since the seed printed 1.3744735717773438?"""
    from windtunnel.inspect.explain_replay import RowNetwork, row_replay, seeded

    n = 100 if setting.quick else 1000
    yield Progress("models built after one another", 0, n)
    with seeded(SEED):
        losses = [RowNetwork().loss() for _ in range(n)]
    yield Progress("models built after one another", n, n)
    printed = row_replay(PRINTED, SEED)
    rows = tuple((str(i), f"{loss!r}", "printed" if i == printed.found else "") for i, loss in enumerate(losses[:8], 1))
    return Outcome(
        title="The loss under seed 42",
        what="The network was built again and again after one manual_seed(42), as a notebook cell that is run again "
        "builds it; its losses are compared with the one that was printed. Then cross-entropy was taken apart.",
        settings={"seed": SEED, "models": n, "printed": PRINTED},
        tables=(Table("The first eight models since the seed", ("model", "loss", ""), rows),),
        figures={"losses": loss_figure(losses, printed.found or 0)},
        claims=(*replay_claims(losses), *loss_claims(), *bias_claims()),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def replay_claims(losses: Sequence[float]) -> list[Claim]:
    """002-3.1 and E16: a clean run, the printed number, the logits printed with it, and how rare a match is."""
    import torch

    from windtunnel.inspect.explain_replay import ROW_IDS, built, row_replay

    found = row_replay(PRINTED, SEED)
    same = sum(loss == float(PRINTED) for loss in losses)
    with torch.no_grad():
        first_row = built(SEED, 4)(torch.tensor(ROW_IDS))[0].tolist()
    rounded = tuple(round(x, 4) for x in first_row)
    n_parameters = sum(p.numel() for p in built(SEED, 1).parameters())
    return [
        Claim(
            "002-3.1", f"under seed 42 the loss is {PRINTED}", PRINTED,
            f"the first model after the seed has {losses[0]!r}", exactly(losses[0] == float(PRINTED)),
            {"first": losses[0]},
        ),
        Claim(
            "E16", f"a clean run gives {CLEAN}", "", f"{losses[0]!r}", exactly(losses[0] == float(CLEAN)),
            {"first": losses[0]},
        ),
        Claim(
            "E16", "the printed value is the fourth model built without seeding again", PRINTED,
            f"model {found.found}, {found.draws} draws after the seed: {found.values[-1]!r}; "
            f"{same} of {len(losses):,} models show it, {found.expected_by_chance:.1e} expected by chance",
            exactly(found.found == 4 and found.values[-1] == float(PRINTED) and same == 1),
            {"found": found.found, "value": found.values[-1], "matches": same, "models": len(losses)},
        ),
        Claim(
            "002-3.1", "the logits printed beside it are of that model too", ", ".join(map(str, LOGITS)),
            f"row 1 of model 4: {', '.join(map(str, rounded))}", exactly(rounded == LOGITS), {"row_1": first_row},
        ),
        Claim(
            "002-3.1", "the network has 162 parameters", "", f"8·6 + 6·10 + 10 + 10·4 + 4 = {n_parameters}",
            exactly(n_parameters == 162), {"parameters": n_parameters},
        ),
    ]  # fmt: skip


def loss_claims() -> list[Claim]:
    """002-3.2: cross_entropy takes logits; probabilities handed to it go through a second softmax."""
    from windtunnel.inspect.explain_loss import explain_loss, explain_row_network

    found, network = explain_loss([[2.0, 0.0, -1.0]], [0]), explain_row_network(SEED, 1)
    return [
        equal(
            "002-3.2", "the cross-entropy of the logits [2, 0, -1] for class 0 is .16985", "",
            [abs(found.mean - 0.16985)], 5e-6, shown=f"{found.mean:.5f}",
        ),
        equal(
            "002-3.2", "of their softmax, given as if it were logits, .65785", "",
            [abs(found.second_softmax - 0.65785)], 5e-6, shown=f"{found.second_softmax:.5f}",
        ),
        Claim(
            "002-3.2", "so a softmax before cross_entropy is a mistake: no loss near 0 is left", "no softmax",
            f"never below ln(1 + 2/e) = {found.floor:.4f} with 3 classes, {network.floor:.4f} with the network's 4",
            exactly(found.floor > 0 and found.second_softmax > found.floor),
            {"floor": found.floor, "floor_of_network": network.floor},
        ),
    ]  # fmt: skip


def bias_claims() -> list[Claim]:
    """E18: the equations write one b for both layers."""
    from windtunnel.inspect.explain_products import explain_product

    fits = {}
    for layer, shapes in (("hidden", "(4,6) (10,6)"), ("output", "(4,10) (4,10)")):
        for size in (10, 4):
            try:
                fits[layer, size] = str(explain_product(f"linear {shapes} ({size})").result)
            except ConfigError as error:
                fits[layer, size] = f"error: {str(error).partition(';')[0]}"
    works = {key: not said.startswith("error") for key, said in fits.items()}
    shared = any(works["hidden", size] and works["output", size] for size in (10, 4))
    measured = "; ".join(f"b ({size}) in the {layer} layer: {said}" for (layer, size), said in fits.items())
    return [
        Claim(
            "E18", "one b can serve both layers", "W1 x + b, W2 h + b", measured, exactly(shared),
            {f"{layer}_{size}": works[layer, size] for layer, size in works},
        )
    ]  # fmt: skip


def loss_figure(losses: Sequence[float], found: int) -> Figure:
    """Left the first models in the order in which a notebook would build them; right how the losses of all lie."""
    with drawing(9.0, 3.4) as figure:
        order, spread = figure.subplots(1, 2)
        order.plot(range(1, 13), losses[:12], "o-", color=TRAIN, linewidth=0.8, label="built without seeding again")
        order.plot(1, losses[0], "s", color=QUIET, markersize=9, label="a clean run")
        order.plot(found, losses[found - 1], "D", color=DEV, markersize=9, label="printed")
        order.set(xlabel="model since the seed", ylabel="loss, nats", xticks=range(1, 13))
        spread.hist(losses, 30, color=TRAIN, alpha=0.6, label=f"{len(losses):,} models")
        spread.axvline(losses[0], color=QUIET, linestyle="--", label="a clean run")
        spread.axvline(losses[found - 1], color=DEV, label="printed")
        spread.set(xlabel="loss, nats", ylabel="models")
        for axes in (order, spread):
            axes.set_ylim(top=axes.get_ylim()[1] + 0.35 * (axes.get_ylim()[1] - axes.get_ylim()[0]))
            axes.legend(loc="upper right", fontsize=8)
    return figure

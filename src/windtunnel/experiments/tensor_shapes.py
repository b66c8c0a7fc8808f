"""002-1.1 to 002-1.3 and 002-2: printed shapes, an unknown size, an embedding and a count, each computed again.

torch decides about every shape, on tensors without memory; only the operations are read off the exercise.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import TYPE_CHECKING

from windtunnel.errors import ConfigError
from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, exactly, signature
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.inspect.explain_parameters import Parameters

CHAINS = {
    "(2,1,4,1,3) -> squeeze()": (2, 4, 3),
    "(3,4) -> unsqueeze(0) -> unsqueeze(-1)": (1, 3, 4, 1),
    "(2,3,1,4) -> squeeze(2) -> unsqueeze(1)": (2, 1, 3, 4),
    "(3,1,4,1) -> squeeze(1) -> unsqueeze(0) -> unsqueeze(-1)": (1, 3, 4, 1, 1),
}
PRODUCTS = {"bmm (64,128,512) (64,?,9)": "512", "bmm (64,128,512) (?,?,?) = (64,128,9)": "64, 512, 9"}
WIDTHS = [236, 472, 472, 10]
OUTSIDE = "index out of range in self"


def tensor_shapes(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Do the printed shapes, sizes and counts come out?"""
    from windtunnel.inspect.explain_parameters import network_parameters

    yield Progress("shapes", 0, 1)
    without, with_biases = (network_parameters(WIDTHS, bias) for bias in (False, True))
    rows = tuple((term.name, term.substituted, f"{term.n_parameters:,}") for term in with_biases.terms)
    return Outcome(
        title="Shapes, an unknown size, an embedding and a count",
        what="Every shape went through torch on tensors without memory, the unknown sizes are those that torch "
        "accepts, the ids were looked up, and the parameters were counted by formula and in the model itself.",
        settings={"chains": list(CHAINS), "products": list(PRODUCTS), "embedding": "10x5", "widths": WIDTHS},
        tables=(
            Table("Parameters of 236-472-472-10, which are learned", ("of", "formula", "parameters"), rows),
            Table("Hyper-parameters, which are chosen", ("what",), tuple((line,) for line in without.hyper)),
        ),
        figures={"parameters": parameter_figure(with_biases)},
        claims=(
            *chain_claims(),
            *product_claims(),
            *embedding_claims(setting.seed),
            *count_claims(without, with_biases),
        ),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def chain_claims() -> list[Claim]:
    """002-1.1: the shape after squeeze and unsqueeze."""
    from windtunnel.inspect.explain_operations import show
    from windtunnel.inspect.explain_shapes import explain_chain

    claims = []
    for chain, published in CHAINS.items():
        steps = explain_chain(chain)
        measured = " -> ".join(show(step.shape) for step in steps)
        values = {"shape": steps[-1].shape, "copies_nothing": all(step.is_view for step in steps[1:])}
        verdict = exactly(steps[-1].shape == published)
        claims.append(Claim("002-1.1", f"{chain} gives {show(published)}", show(published), measured, verdict, values))
    return claims


def product_claims() -> list[Claim]:
    """002-1.2: the sizes of d in x (64,128,512) times d = y (64,128,9)."""
    from windtunnel.inspect.explain_products import explain_product

    claims = []
    for product, published in PRODUCTS.items():
        found = explain_product(product)
        sizes = [solved.size for solved in found.solved]
        said = "; ".join(f"{solved.size}: {solved.reason}" for solved in found.solved)
        holds = ", ".join(map(str, sizes)) == published and found.result == (64, 128, 9)
        statement = f"{product}: the ? {'are' if len(sizes) > 1 else 'is'} {published}"
        claims.append(Claim("002-1.2", statement, "d (64,512,9)", said, exactly(holds), {"sizes": sizes}))
    return claims


def embedding_claims(seed: int) -> list[Claim]:
    """002-1.3: five tokens looked up in a table 10x5, and an id on either side of it."""
    from windtunnel.inspect.explain_embedding import explain_embedding

    found = explain_embedding("10x5", "1,3,5,7,9", seed)
    same = f"{found.shape}; one-hot ids times the table differ by {found.one_hot_difference:.1e}"
    claims = [
        Claim(
            "002-1.3", "tokens 1,3,5,7,9 in a table 10x5 give the shape (5, 5)", "(5, 5)", same,
            exactly(found.shape == (5, 5)),
            {"shape": found.shape, "one_hot_difference": found.one_hot_difference},
        )
    ]  # fmt: skip
    for id in ("10", "-1"):
        try:
            said = f"looked up: {explain_embedding('10x5', id, seed).rows}"
        except ConfigError as error:
            said = str(error)
        holds = OUTSIDE in said
        claims.append(Claim("002-1.3", f"id {id} is an error", OUTSIDE, said, exactly(holds), {"error": holds}))
    return claims


def count_claims(found: Parameters, with_biases: Parameters) -> list[Claim]:
    """002-2: the parameters of 236-472-472-10 without and with biases."""
    terms = [term.n_parameters for term in found.terms]
    agree = found.n_parameters == found.n_counted
    count = f"{' + '.join(f'{n:,}' for n in terms)} = {found.n_parameters:,}; torch counts {found.n_counted:,}"
    return [
        Claim(
            "002-2", "without biases it has 338,896 parameters", "338,896", count,
            exactly(agree and found.n_parameters == 338_896), {"terms": terms, "counted": found.n_counted},
        ),
        Claim(
            "002-2", "with biases it has 339,850", "",
            f"{with_biases.n_parameters:,}; torch counts {with_biases.n_counted:,}",
            exactly(with_biases.n_parameters == with_biases.n_counted == 339_850),
            {"counted": with_biases.n_counted, "hyper": list(found.hyper)},
        ),
    ]  # fmt: skip


def parameter_figure(found: Parameters) -> Figure:
    """Weights and biases of each layer, on a log scale: the middle layer holds most, the biases nearly nothing."""
    n_layers = len(WIDTHS) - 1
    counts = [term.n_parameters for term in found.terms]
    with drawing(6.4, 3.4) as figure:
        axes = figure.subplots()
        for i, (name, colour, hatch) in enumerate((("weights", TRAIN, ""), ("biases", DEV, "//"))):
            places = [layer + 0.38 * (i - 0.5) for layer in range(n_layers)]
            own = counts[i * n_layers : (i + 1) * n_layers]
            bars = axes.bar(places, own, 0.36, color=colour, hatch=hatch, edgecolor="white", label=name)
            axes.bar_label(bars, [f"{n:,}" for n in own], color=QUIET, fontsize=9)
        names = [f"layer {i + 1}\n{m} to {n}" for i, (m, n) in enumerate(pairwise(WIDTHS))]
        axes.set_xticks(range(n_layers), names)
        axes.set(yscale="log", ylim=(1, 3e6), ylabel="parameters")
        axes.legend()
    return figure

"""002-1.1 to 002-1.3 and 002-2: printed shapes, an unknown size, an embedding and a count, each computed again.

torch decides about every shape, on tensors without memory; only the operations are read off the exercise.
"""

from __future__ import annotations

from itertools import pairwise

from windtunnel.errors import ConfigError
from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.inspect.explain_embedding import explain_embedding
from windtunnel.inspect.explain_operations import show
from windtunnel.inspect.explain_parameters import Parameters, network_parameters
from windtunnel.inspect.explain_products import explain_product
from windtunnel.inspect.explain_shapes import explain_chain
from windtunnel.report.charts import dots

SQUEEZE, SIZES, EMBEDDING, COUNT = Row("002-1.1"), Row("002-1.2"), Row("002-1.3"), Row("002-2")
CHAINS = {
    "(2,1,4,1,3) -> squeeze()": (2, 4, 3),
    "(3,4) -> unsqueeze(0) -> unsqueeze(-1)": (1, 3, 4, 1),
    "(2,3,1,4) -> squeeze(2) -> unsqueeze(1)": (2, 1, 3, 4),
    "(3,1,4,1) -> squeeze(1) -> unsqueeze(0) -> unsqueeze(-1)": (1, 3, 4, 1, 1),
}
PRODUCTS = {"bmm (64,128,512) (64,?,9)": "512", "bmm (64,128,512) (?,?,?) = (64,128,9)": "64, 512, 9"}
WIDTHS = [236, 472, 472, 10]
OUTSIDE = "index out of range in self"


def tensor_shapes(at: Setting) -> Findings:
    """Shapes, an unknown size, an embedding and a count.

    Every shape went through torch on tensors without memory, the unknown sizes are those that torch accepts, the ids
    were looked up, and the parameters were counted by formula and in the model itself.
    """
    yield Progress("shapes")
    yield Given({"chains": list(CHAINS), "products": list(PRODUCTS), "embedding": "10x5", "widths": WIDTHS})
    yield from chains()
    yield from products()
    yield from embedding(at.seed)
    yield from counts(*(network_parameters(WIDTHS, bias) for bias in (False, True)))


def chains() -> Findings:
    """002-1.1: the shape after squeeze and unsqueeze."""
    for chain, printed in CHAINS.items():
        steps = explain_chain(chain)
        shape, shown = steps[-1].shape, " -> ".join(show(step.shape) for step in steps)
        statement, views = f"{chain} gives {show(printed)}", all(step.is_view for step in steps[1:])
        yield SQUEEZE.shows(statement, shape == printed, shown, show(printed), shape=shape, copies_nothing=views)


def products() -> Findings:
    """002-1.2: the sizes of d in x (64,128,512) times d = y (64,128,9)."""
    for product, printed in PRODUCTS.items():
        found = explain_product(product)
        sizes = [solved.size for solved in found.solved]
        shown = "; ".join(f"{solved.size}: {solved.reason}" for solved in found.solved)
        holds = ", ".join(map(str, sizes)) == printed and found.result == (64, 128, 9)
        statement = f"{product}: the ? {'are' if len(sizes) > 1 else 'is'} {printed}"
        yield SIZES.shows(statement, holds, shown, "d (64,512,9)", sizes=sizes)


def embedding(seed: int) -> Findings:
    """002-1.3: five tokens looked up in a table 10x5, and an id on either side of it."""
    found = explain_embedding("10x5", "1,3,5,7,9", seed)
    shown = f"{found.shape}; one-hot ids times the table differ by {found.one_hot_difference:.1e}"
    statement = "tokens 1,3,5,7,9 in a table 10x5 give the shape (5, 5)"
    yield EMBEDDING.shows(statement, found.shape == (5, 5), shown, "(5, 5)", shape=found.shape)
    for id in ("10", "-1"):
        try:
            said = f"looked up: {explain_embedding('10x5', id, seed).rows}"
        except ConfigError as error:
            said = str(error)
        yield EMBEDDING.shows(f"id {id} is an error", OUTSIDE in said, said, OUTSIDE, error=OUTSIDE in said)


def counts(without: Parameters, biased: Parameters) -> Findings:
    """002-2: the parameters of 236-472-472-10 without and with biases."""
    terms, n = [term.n_parameters for term in without.terms], without.n_parameters
    shown = f"{' + '.join(f'{term:,}' for term in terms)} = {n:,}; torch counts {without.n_counted:,}"
    holds, statement = n == without.n_counted == 338_896, "without biases it has 338,896 parameters"
    yield COUNT.shows(statement, holds, shown, "338,896", terms=terms, counted=without.n_counted)
    shown, counted = f"{biased.n_parameters:,}; torch counts {biased.n_counted:,}", biased.n_counted
    yield COUNT.shows("with biases it has 339,850", biased.n_parameters == counted == 339_850, shown, counted=counted)
    rows = [(term.name, term.substituted, term.n_parameters) for term in biased.terms]
    yield table("Parameters of 236-472-472-10, which are learned", ("of", "formula", "parameters"), rows)
    yield table("Hyper-parameters, which are chosen", ("what",), ((line,) for line in without.hyper))
    layers = [f"layer {i}, {m} to {n}" for i, (m, n) in enumerate(pairwise(WIDTHS), start=1)]
    each = [term.n_parameters for term in biased.terms]
    parts = {"weights": each[: len(layers)], "biases": each[len(layers) :]}
    panel = dots({name: dict(zip(layers, own, strict=True)) for name, own in parts.items()}, layers, log="x",
                 xlim=(1, 3e6), xlabel="parameters")  # fmt: skip
    yield draw("parameters", panel)

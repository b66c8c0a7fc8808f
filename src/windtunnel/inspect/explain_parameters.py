"""How many numbers a model learns, term by term, and which settings are chosen before it learns them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from windtunnel.config import flatten
from windtunnel.errors import ConfigError
from windtunnel.inspect.cost import parameter_shapes
from windtunnel.training.run_config import RunConfig

LARGEST_WIDTH = 10**9


@dataclass(frozen=True)
class Term:
    """Parameters of one kind: where they are, the formula, the formula with its numbers, and its value."""

    name: str
    formula: str
    substituted: str
    n_parameters: int


@dataclass(frozen=True)
class Parameters:
    """A count by term, checked against the tensors of the model itself; and what is not learned.

    n_counted: what torch counts on the meta device. hyper: the hyper-parameters, in words or as name = value.
    """

    model: str
    terms: tuple[Term, ...]
    n_parameters: int
    n_counted: int
    hyper: tuple[str, ...]
    notes: tuple[str, ...] = ()


def parse_widths(text: str) -> list[int] | None:
    """The widths of a fully connected network written as 236-472-472-10; None when the text is something else.

    Raises:
        ConfigError: for fewer than two widths, or one that is 0 or absurdly large.
    """
    if not re.fullmatch(r"[0-9]+(-[0-9]+)*-?", text):
        return None
    widths = [int(part[:20] or "0") for part in text.split("-")]
    if len(widths) < 2 or not all(1 <= width <= LARGEST_WIDTH for width in widths):
        raise ConfigError(
            f"expected two or more widths of 1 to {LARGEST_WIDTH:,}, such as 236-472-10, given {text[:60]}"
        )
    return widths


def network_parameters(widths: list[int], bias: bool = True) -> Parameters:
    """The parameters of a fully connected network of these widths, input first."""
    pairs = list(pairwise(widths))
    terms = [Term(f"weights {i}", "in * out", f"{m} * {n}", m * n) for i, (m, n) in enumerate(pairs, start=1)]
    if bias:
        terms += [Term(f"biases {i}", "out", str(n), n) for i, (_, n) in enumerate(pairs, start=1)]
    with torch.device("meta"):
        layers = nn.ModuleList(nn.Linear(m, n, bias=bias) for m, n in pairs)
    hidden = ", ".join(map(str, widths[1:-1])) or "none"
    hyper = (
        f"the number of layers, {len(pairs)}, and the widths of the hidden ones: {hidden}",
        f"whether there are biases: {'yes' if bias else 'no'}",
        "the activation function, the initialisation, the seed",
        "the optimizer and its learning rate, the batch size, the number of steps, weight decay, dropout",
    )
    notes = [f"the input width {widths[0]} and the output width {widths[-1]} are given by the data and the task"]
    n_weights, n_biases = sum(m * n for m, n in pairs), sum(n for _, n in pairs)
    other = f"with biases {n_weights + n_biases:,}" if not bias else f"without biases {n_weights:,}"
    notes.append(f"{other}: one bias for each of {' + '.join(map(str, widths[1:]))} = {n_biases:,} outputs")
    if bias and len(set(widths[1:])) > 1:
        sizes = " and ".join(f"({n})" for n in dict.fromkeys(widths[1:]))
        notes.append(f"each layer has a bias of its own: one b written for all layers cannot have the shapes {sizes}")
    counted = sum(parameter.numel() for parameter in layers.parameters())
    return Parameters(
        "-".join(map(str, widths)), tuple(terms), sum(t.n_parameters for t in terms), counted, hyper, tuple(notes)
    )


def run_parameters(name: str, config: RunConfig) -> Parameters:
    """The parameters of a recipe's or a run's model by formula, with every setting of it that is not learned."""
    model = config.model
    values = model.formula_names()
    terms = []
    for row in model.parameter_rows():
        substituted = re.sub(r"[a-z_]+", lambda found: str(values[found[0]]), row.formula)
        terms.append(Term(row.module, row.formula, substituted, row.n_parameters))
    counted = sum(shape.numel() for shape in parameter_shapes(model))
    hyper = tuple(f"{path} = {value}" for path, value in flatten(config).items() if value not in (None, ""))
    notes = ["learned are the terms above, all of them, by gradient descent; nothing below is"]
    if model.shares_embedding:
        notes.append("the output head is the embedding matrix again (tied), so it is counted once")
    return Parameters(name, tuple(terms), sum(t.n_parameters for t in terms), counted, hyper, tuple(notes))

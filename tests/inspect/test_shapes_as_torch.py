"""Hundreds of small shape questions: real tensors decide what is accepted, its shape, and which sizes fit a `?`."""

import ast
import random
import re

import pytest
import torch
import torch.nn.functional as F

from windtunnel.errors import ConfigError
from windtunnel.inspect.explain_operations import OPERATIONS, SIGNS, show
from windtunnel.inspect.explain_products import PRODUCTS, explain_product
from windtunnel.inspect.explain_shapes import explain_chain

SHAPES = [(), (0,), (1,), (4,), (2, 3), (3, 1), (1, 1), (0, 3), (2, 3, 4), (1, 3, 1), (2, 0, 3), (1, 2, 1, 3)]
WORDS = ["0", "1", "2", "3", "-1", "-2", "-3", "4", "6", "12", "24", "2.0", "True", "None", "'a'", "(1,0)"]
PAIRS = (*SIGNS, "matmul")
N_CHAINS, N_PRODUCTS, LARGEST = 300, 120, 13


def real_step(name, shape, words):
    """A real tensor, and what torch makes of it or says when it refuses."""
    tensor = torch.zeros(shape)
    given = ast.literal_eval(words if name in PAIRS else f"({words},)" if words else "()")
    try:
        if name in PAIRS:
            return tensor, OPERATIONS[name].run(tensor, torch.zeros(given))
        return tensor, getattr(tensor, name)(*given)
    except (RuntimeError, IndexError, TypeError) as error:
        return tensor, error


def questions(name):
    draw = random.Random(name)
    for _ in range(N_CHAINS):
        if name in PAIRS:
            words = str(draw.choice(SHAPES))
        else:
            n = draw.choice([0, 1, 1, 2, 2, 3]) if name != "transpose" else 2
            few = WORDS[:7] if name in ("permute", "transpose") else WORDS[:11]
            words = ",".join(draw.choice(few if draw.random() < 0.9 else WORDS) for _ in range(n))
        yield draw.choice(SHAPES), words


CLAIMS = {
    r"there is no dimension (-?\d+); it can be 0 to (\d+),": lambda d, n: not -int(n) - 1 <= int(d) <= int(n),
    r"(\d+) elements? cannot be cut .*no multiple of (\d+)": lambda n, m: int(m) == 0 or int(n) % int(m),
    r"multiply to 0, so any size": lambda: True,
    r"takes .*?(\d+) elements?, and there (?:is|are) (\d+)": lambda a, b: a != b,
    r"is (\d+) and the (?:rows|numbers) of .* are (\d+); they": lambda a, b: a != b,
    r"of \S+ is (\d+) and of \S+ is (\d+); they": lambda a, b: a != b and "1" not in (a, b),
    r"takes whole numbers, given (.*)$": lambda value: not isinstance(ast.literal_eval(value), int),
    r"a size is 0 or more, or one -1 .* given (-?\d+)": lambda size: int(size) < -1,
    r"has (\d+) dimensions?, fewer than the (\d+)": lambda a, b: int(a) < int(b),
    r"has size (\d+), and only a size of 1": lambda size: size != "1",
    r"each of the (\d+) dimensions once, given (\d+)": lambda a, b: a != b,
    r"named twice in \((.*)\)": lambda dims: True,
    r"leaves (\d+) sizes open": lambda n: int(n) > 1,
    r"a single number has no rows": lambda: True,
}
"""Our sentences, each with what must hold of its numbers."""


def is_true(says, error):
    """A reason is torch's own first line, or one of our sentences whose numbers bear it out."""
    line = str(error).splitlines()[0].removesuffix(", but expected one of:")[:200]
    found = [(claim, match) for pattern, claim in CLAIMS.items() if (match := re.search(pattern, says))]
    return says.endswith(line) or (found and all(claim(*match.groups()) for claim, match in found))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_step_is_accepted_refused_and_shaped_as_by_torch(name):
    accepted = 0
    for shape, words in questions(name):
        before, after = real_step(name, shape, words)
        asked = f"{show(shape)} -> {name}" + (words if name in PAIRS else f"({words})")
        if isinstance(after, torch.Tensor):
            step = explain_chain(asked)[-1]
            shares = after.untyped_storage()._cdata == before.untyped_storage()._cdata
            assert (step.shape, step.is_view) == (tuple(after.shape), shares), asked
            accepted += 1
        else:
            with pytest.raises(ConfigError) as refused:
                explain_chain(asked)
            assert is_true(str(refused.value), after), (asked, str(refused.value), str(after))
    assert 10 < accepted < N_CHAINS


def real_product(name, shapes):
    """The shape of a product of real tensors; None when torch refuses it."""
    tensors = [torch.zeros(s, dtype=torch.int64 if name == "embedding" and i else None) for i, s in enumerate(shapes)]
    try:
        if name == "embedding":
            return tuple(F.embedding(tensors[1], tensors[0]).shape)
        if name in ("linear", "conv1d"):
            return tuple(getattr(F, name)(*tensors).shape)
        result = tensors[0]
        for tensor in tensors[1:]:
            result = getattr(torch, name)(result, tensor)
        return tuple(result.shape)
    except (RuntimeError, IndexError):
        return None


RANKS = {
    "bmm": ((3,), (3,), (3,)),
    "matmul": ((1, 2, 3), (1, 2, 3, 4), (1, 2)),
    "embedding": ((2,), (0, 1, 2)),
    "linear": ((1, 2, 3), (2, 2, 1), (0, 1, 1)),
    "conv1d": ((3, 3, 2), (3,), (1, 1, 1, 2)),
}


def products(name):
    """Shapes of few different sizes, so that many fit; half of them with the result that torch gives."""
    draw = random.Random(name)
    for _ in range(N_PRODUCTS):
        sizes = [*draw.sample(range(7), 2), 1]
        ranks = RANKS[name][: draw.choice((2, 2, 3))]
        shapes = [tuple(draw.choice(sizes) for _ in range(draw.choice(rank))) for rank in ranks]
        yield shapes, draw


def text_of(name, shapes, result, hidden=None):
    written = [[*map(str, shape)] for shape in (*shapes, *(() if result is None else (result,)))]
    if hidden is not None:
        written[hidden[0]][hidden[1]] = "?"
    words = [f"({','.join(shape)})" for shape in written]
    return f"{name} {' '.join(words[: len(shapes)])}" + ("" if result is None else f" = {words[-1]}")


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_accepted_refused_and_shaped_as_by_torch(name):
    for shapes, _ in products(name):
        result, asked = real_product(name, shapes), text_of(name, shapes, None)
        if result is None:
            with pytest.raises(ConfigError):
                explain_product(asked)
        else:
            assert explain_product(asked).result == result, asked


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_sizes_that_fit_a_question_mark_are_those_that_torch_takes(name):
    """No size, one, or several: those of 0 to 12 that real tensors of that size work with."""
    kinds = set()
    for shapes, draw in products(name):
        result = real_product(name, shapes)
        result = result if draw.random() < 0.7 else None
        places = [(t, d) for t, s in enumerate((*shapes, *([result] if result else []))) for d in range(len(s))]
        if not places:
            continue
        t, d = draw.choice(places)
        fits = []
        for size in range(LARGEST):
            tried = [list(shape) for shape in (*shapes, *([] if result is None else [result]))]
            tried[t][d] = size
            made = real_product(name, tried[: len(shapes)])
            if made is not None and (result is None or made == tuple(tried[-1])):
                fits.append(size)
        asked = text_of(name, shapes, result, (t, d))
        kinds.add(min(len(fits), 2))
        if len(fits) == 1:
            solved = explain_product(asked).solved[0]
            assert (solved.size, bool(solved.reason)) == (fits[0], True), asked
            continue
        with pytest.raises(ConfigError) as refused:
            explain_product(asked)
        says = str(refused.value)
        if not fits:
            assert "no size for the ? makes this work" in says, (asked, says)
        elif fits[-1] == LARGEST - 1:
            assert (f"any size from {fits[0]} would" if fits[0] else "any size would") in says, (asked, fits, says)
        else:
            two = re.search(r"(\d+), as well as (\d+) would fit", says)
            assert two, (asked, fits, says)
            assert {*map(int, two.groups())} <= {*fits}, (asked, fits, says)
    assert kinds >= {0, 1}

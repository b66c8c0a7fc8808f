"""004-1.3: a convolution and a max pooling as attention with relative positions, and where that is not so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.report.charts import heat, lines

CONVOLUTION, POOLING, E26, E27 = Row("004-1.3.1"), Row("004-1.3.2"), Row("E26"), Row("E27")
KERNEL = (2.0, 0.0, 1.0)
"""z_i = 2 x_{i+1} + 0 x_i + 1 x_{i-1}."""
SHORT, CHANNELS = 4, 4
EXACT = 1e-14
COUNTS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""The C of W_Q = W_K = C that were tried."""
WINDOW = {-1: 0.0, 0: 0.0, 1: 0.0}


@dataclass(frozen=True)
class Head:
    """One head with a learned score for each relative position: softmax_j(q_i k_j + p_{j-i}) v_j.

    Queries and keys are numbers, q_i = query x_i + query_bias and k_j = key x_j; v_j = value x_j is as wide as x_j.
    p: by j - i; what is not named is -inf.
    """

    p: Mapping[int, float]
    value: float = 1.0
    query: float = 0.0
    key: float = 0.0
    query_bias: float = 0.0

    def weights(self, x_TD: Tensor) -> Tensor:
        """By how much each position takes each other, (T, T); a row without any finite score is NaN."""
        places = torch.arange(len(x_TD))
        bias = torch.full((len(x_TD), len(x_TD)), -torch.inf, dtype=x_TD.dtype)
        for offset, score in self.p.items():
            bias[places[None] - places[:, None] == offset] = score
        first = x_TD[:, 0]
        return (torch.outer(self.query * first + self.query_bias, self.key * first) + bias).softmax(dim=1)

    def __call__(self, x_TD: Tensor) -> Tensor:
        """The sequence that comes out, (T, D)."""
        return self.weights(x_TD) @ (self.value * x_TD)


def convolved(x_TD: Tensor, kernel: Sequence[float]) -> Tensor:
    """The true convolution of each channel, z_i = sum_m kernel_m x_{i-m} with m = -1, 0, 1 and zeros beyond the edges.

    `conv1d` does not flip its kernel, a convolution does.
    """
    flipped = torch.tensor(kernel, dtype=x_TD.dtype).flip(0)[None, None]
    return F.conv1d(x_TD.T[:, None], flipped, padding=1)[:, 0].T


def padded(head: Head, x_TD: Tensor) -> Tensor:
    """The head on x with one token of zeros at each side, whose own outputs are left out."""
    return head(F.pad(x_TD, (0, 0, 1, 1)))[1:-1]


def head_of(kernel: Sequence[float]) -> Head:
    """The one head of a kernel whose numbers all have one sign: p = ln of its shares, W_V = their sum."""
    total = sum(kernel)
    return Head({-m: math.log(k / total) for m, k in zip((-1, 0, 1), kernel, strict=True) if k}, total)


def two_heads(kernel: Sequence[float]) -> tuple[Head, Head]:
    """The positive and the negative part of a kernel; their outputs are to be added."""
    positive, negative = ([sign * max(sign * k, 0.0) for k in kernel] for sign in (1, -1))
    return head_of(positive), head_of(negative)


def attention_as_convolution(at: Setting) -> Findings:
    """Attention as convolution and as max pooling.

    Heads with a score for each relative position were run in float64 beside `conv1d` and `max_pool1d`, on normal
    sequences, on positive ones, and on those that are hardest for them.
    """
    n, length = at.size(400, quick=40), 64
    yield Given({"sequences": n, "length": length, "channels": CHANNELS, "kernel": str([*KERNEL]), "C": list(COUNTS)})
    generator = torch.Generator().manual_seed(at.seed)
    sequences = torch.randn(n, length, CHANNELS, dtype=torch.float64, generator=generator)
    yield Progress("convolution", 0, 2)
    yield from convolution(sequences)
    yield from other_kernels(sequences, generator)
    yield draw_weights(sequences[0, :SHORT])
    yield Progress("max pooling", 1, 2)
    yield from pooling(sequences[..., :1])


# -------------------------------------------------------------------------------------------------------- convolution


def largest_gap(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of any two numbers; NaN if one is."""
    return max((float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)), default=0.0)


def convolution(sequences: Tensor) -> Findings:
    """004-1.3.1 and E26: inside, at the edges, with zeros beside them, and with a sequence of one."""
    printed = Head({1: math.log(2), -1: 0.0}, value=3.0)
    truth = [convolved(x, KERNEL) for x in sequences]
    bare, edged = [printed(x) for x in sequences], [padded(printed, x) for x in sequences]
    inside = largest_gap([z[1:-1] for z in bare], [z[1:-1] for z in truth])
    shown = f"{len(sequences)} sequences of {sequences.shape[1]}"
    statement = "p_1 = ln 2, p_-1 = 0, W_V = 3I convolve with [2, 0, 1]: inside the sequence"
    yield CONVOLUTION.equal(statement, inside, EXACT, "equals the convolution", shown)
    edges = [float((z[[0, -1]] - t[[0, -1]]).abs().amax()) for z, t in zip(bare, truth, strict=True)]
    yield E26.equal("the same at its two ends, without padding", edges, EXACT, "no word on the edges", shown)
    ends = torch.stack([torch.stack((z[0] / x[1], z[-1] / x[-2])) for z, x in zip(bare, sequences, strict=True)])
    first, last = ends.mean((0, 2)).tolist()
    said = f"z_1 = {first:.4g} x_2 (right: {KERNEL[0]:g}), z_T = {last:.4g} x_T-1 (right: {KERNEL[2]:g})"
    all_of_it = (ends - printed.value).abs().numpy()
    yield E26.equal("an end gives its one neighbour the whole W_V = 3", all_of_it, EXACT, shown=said)
    statement = "with one token of zeros at each side: the whole sequence"
    yield E26.equal(statement, largest_gap(edged, truth), EXACT, shown=shown)
    unflipped = largest_gap([convolved(x, KERNEL[::-1]) for x in sequences], truth)
    yield CONVOLUTION.equal("`conv1d` with the kernel as it stands is the same", unflipped, EXACT, shown=shown)
    alone = sequences[0, :1]
    broken = int(printed(alone).isnan().sum())
    said = f"{broken} of {CHANNELS} outputs are NaN: every score is -inf"
    yield E26.shows("a sequence of one token has an output, without padding", not broken, said, nan=broken)
    gap = largest_gap([padded(printed, alone)], [convolved(alone, KERNEL)])
    yield E26.equal("a sequence of one token, with the zeros", gap, EXACT)
    rows = [
        (i + 1, *(float(z[i, 0]) for z in (short, truth_of_short, printed(short), padded(printed, short))))
        for short, truth_of_short in [(sequences[0, :SHORT], convolved(sequences[0, :SHORT], KERNEL))]
        for i in range(SHORT)
    ]
    heads = ("position", "x", "convolution", "attention", "with zeros at both sides")
    yield table("A short sequence, first channel", heads, rows)


def other_kernels(sequences: Tensor, generator: torch.Generator) -> Findings:
    """004-1.3.1: which kernels one head can be, and two."""
    positive = torch.rand(20, 3, dtype=torch.float64, generator=generator).tolist()
    mixed = [[a, -b, c] for a, b, c in positive]
    short = sequences[:20]
    kinds = {"of numbers above 0": positive, "of numbers below 0": [[-a for a in k] for k in positive]}
    for name, kernels in kinds.items():
        gaps = [largest_gap([padded(head_of(k), x)], [convolved(x, k)]) for k, x in zip(kernels, short, strict=True)]
        statement = f"one head is any kernel {name}, with W_V = its sum"
        yield CONVOLUTION.equal(statement, gaps, EXACT, shown=f"{len(kernels)} random kernels")
    kernel = [2.0, 0.0, -1.0]
    error, best = nearest_head(kernel)
    statement = f"one head is the kernel {kernel}, too"
    said = f"the nearest of one head is {np.round(best, 3).tolist()}"
    yield CONVOLUTION.equal(statement, error, 1e-3, shown=said)
    gaps = [
        largest_gap([padded(plus, x) + padded(minus, x)], [convolved(x, k)])
        for k, x in zip([kernel, *mixed[1:]], short, strict=True)
        for plus, minus in [two_heads(k)]
    ]
    statement = "two heads are any kernel of both signs: one for each sign"
    yield CONVOLUTION.equal(statement, gaps, EXACT, shown=f"{len(gaps)} kernels, {kernel} among them")


def nearest_head(kernel: Sequence[float]) -> tuple[float, list[float]]:
    """How far the nearest kernel value x softmax(p) of one head is from this one, and which it is, by descent."""
    found: list[tuple[float, list[float]]] = []
    for sign in (1.0, -1.0):
        p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        value = torch.tensor(sign, dtype=torch.float64, requires_grad=True)
        target = torch.tensor(kernel, dtype=torch.float64)
        optimizer = torch.optim.Adam([p, value], lr=0.05)
        for _ in range(1000):
            own = value * p.softmax(0)
            loss = (own - target).square().sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        found.append((float(loss.detach().sqrt()), own.tolist()))
    return min(found)


def draw_weights(x_TD: Tensor) -> Drawing:
    """Who takes what of whom in a short sequence; then what comes out."""
    printed, n = Head({1: math.log(2), -1: 0.0}, value=3.0), len(x_TD)
    labels = [f"x{i}" for i in range(1, n + 1)]
    edged = printed.weights(F.pad(x_TD, (0, 0, 1, 1))).nan_to_num()
    names = {"xlabel": "looked at", "ylabel": "position"}
    places = np.arange(1, n + 1)
    out = {
        "with zeros": (places, padded(printed, x_TD)[:, 0]),
        "attention": (places, printed(x_TD)[:, 0]),
        "convolution": (places, convolved(x_TD, KERNEL)[:, 0]),
    }
    return draw(
        "convolution",
        heat(printed.weights(x_TD), labels, title="weights", **names),
        heat(edged, ["0", *labels, "0 "], title="with a zero at each side", **names),
        lines(out, joined=["convolution"], title="z, first channel", xlabel="position", ticks=places.tolist()),
        size=(14.0, 4.8),
    )


# -------------------------------------------------------------------------------------------------------- max pooling


def hardest_gap() -> tuple[float, float]:
    """(d, e): with C = 1 a mean over three falls furthest below the largest, by e, where both others are d below it.

    The mean misses 2 d / (exp(C d) + 2); its derivative is 0 where exp(u) (u - 1) = 2, u = C d, and there it misses
    (u - 1) / C = W(2/e) / C, with Lambert's W.
    """
    from scipy.special import lambertw

    missed = float(lambertw(2 / math.e).real)
    return missed + 1, missed


def pooled(x_T1: Tensor) -> Tensor:
    """The largest of each number and its two neighbours, (T, 1)."""
    return F.max_pool1d(x_T1.T[None], 3, stride=1, padding=1)[0].T


def errors(head: Head, sequences: Tensor) -> Tensor:
    """How far each output lies from max pooling, (N, T)."""
    return torch.stack([(head(x) - pooled(x)).abs()[:, 0] for x in sequences])


def pooling(sequences: Tensor) -> Findings:
    """004-1.3.2 and E27: W_Q = W_K = C on positive and on signed numbers, and a query that does not depend on x."""
    u, missed = hardest_gap()
    positive = sequences.abs()
    tried: dict[str, tuple[Callable[[float], Head], Tensor]] = {
        "W_Q = W_K = C, x > 0": (lambda c: Head(WINDOW, query=c, key=c), positive),
        "W_Q = W_K = C, x of both signs": (lambda c: Head(WINDOW, query=c, key=c), sequences),
        "query 1, W_K = C, x of both signs": (lambda c: Head(WINDOW, query_bias=1.0, key=c), sequences),
    }
    found = {name: {c: errors(make(c), x) for c in COUNTS} for name, (make, x) in tried.items()}
    of_positive, signed, constant = found.values()
    at = 100.0
    yield from product_queries(of_positive, signed, positive, sequences, missed, at)
    most = {c: float(own.max()) for c, own in constant.items()}
    said = ", ".join(f"C = {c:g}: {own:.2g}" for c, own in most.items())
    statement = "a constant query pools numbers of both signs: the error is at most .46/C"
    holds = all(own <= missed / c * (1 + 1e-9) for c, own in most.items())
    yield E27.shows(statement, holds, said, most=list(most.values()), bound=missed)
    worst = [float(errors(Head(WINDOW, query_bias=1.0, key=c), hardest(u / c))[0, 1]) for c in COUNTS]
    far = [abs(own * c - missed) for own, c in zip(worst, COUNTS, strict=True)]
    statement = "that bound is W(2/e)/C, and two neighbours lower by 1.46/C attain it"
    yield E27.equal(statement, far, 1e-9, ".46", f"error x C: {worst[0] * COUNTS[0]:.6f}")
    said = f"C = {COUNTS[-1]:g}: still {worst[-1]:.2g}"
    yield E27.shows("with some finite C it is exactly max pooling of all numbers", worst[-1] == 0, said, worst=worst)
    rows = ((name, *(f"{float(own[c].max()):.2g}" for c in COUNTS)) for name, own in found.items())
    hard = ("constant query, hardest x", *(f"{own:.2g}" for own in worst))
    yield table("The largest error of max pooling", ("head", *(f"C = {c:g}" for c in COUNTS)), [*rows, hard])
    curves = {name: (COUNTS, [float(own[c].max()) for c in COUNTS]) for name, own in found.items()}
    curves["constant query, hardest x"] = (COUNTS, worst)
    curves["W(2/e)/C"] = (COUNTS, [missed / c for c in COUNTS])
    alone = [name for name in curves if "hardest" not in name]
    panel = lines(curves, joined=alone, log="xy", ticks=COUNTS, xlabel="C", ylabel="largest error")
    yield draw("pooling", panel, size=(7.0, 4.8))


def hardest(gap: float) -> Tensor:
    """One sequence whose second number has two neighbours lower by so much, (1, 3, 1)."""
    return torch.tensor([-gap, 0.0, -gap], dtype=torch.float64)[None, :, None]


def product_queries(
    of_positive: Mapping[float, Tensor], signed: Mapping[float, Tensor], positive: Tensor, sequences: Tensor,
    missed: float, at: float,
) -> Findings:  # fmt: skip
    """E27: the score C² x_i x_j has the temperature C² x_i, whose sign is that of x_i."""
    wrong = signed[at]
    share = 100 * float((wrong > 0.01).double().mean())
    said = f"C = {at:g}: {share:.0f} % of outputs off by more than .01, up to {wrong.max():.2f}"
    yield POOLING.equal("W_Q = W_K = C is max pooling (within .01)", wrong.numpy(), 0.01, "max pooling", said)
    bound = missed / (at**2 * positive[..., 0])
    ratio = float((of_positive[at] / bound).max())
    said = f"C = {at:g}: errors up to {of_positive[at].max():.2g}, at most {ratio:.4f} of that bound"
    statement = "for x > 0 it is, up to W(2/e) / (C² x_i)"
    yield POOLING.shows(statement, ratio <= 1 + 1e-9, said, "0.0", ratio=ratio, largest=float(of_positive[at].max()))
    lowest = -torch.stack([pooled(-x) for x in sequences])[..., 0]
    out = torch.stack([Head(WINDOW, query=at, key=at)(x) for x in sequences])[..., 0]
    below = sequences[..., 0] < -0.1
    far = (out - lowest)[below].abs().numpy()
    statement = "where x_i < 0 it pools the smallest instead (x_i < -.1, within .01)"
    yield E27.equal(statement, far, 0.01, "the largest", f"C = {at:g}")
    zero = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)[:, None]
    got = float(Head(WINDOW, query=at, key=at)(zero)[1])
    yield E27.equal("where x_i = 0 it takes the mean", abs(got - 1.0), EXACT, "the largest", f"of 1, 0, 2: {got:.4f}")

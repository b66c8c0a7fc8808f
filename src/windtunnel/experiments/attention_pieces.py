"""004-2.1: scaled dot-product attention, its causal version and sinusoidal positions, each beside a truth."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.experiments.frame import Claim, Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.nn.attention import CAUSAL, Mask, attend, attend_reference, attention_weights
from windtunnel.nn.positions import sinusoidal
from windtunnel.report.charts import field, heat, lines

PLAIN, MASKED, POSITIONS = Row("004-2.1.1"), Row("004-2.1.2"), Row("004-2.1.3")
NEG_INF = -1e7
EVERYTHING = Mask(causal=False)
B, K, S, H = 3, 5, 7, 16
"""Sequences, queries and keys of each, and the width of the first row."""
SCALES = (1.0, 1e3, 1e6, 1e7, 1e8)
"""By what normal scores were multiplied before the future was hidden."""
WIDTH, FARTHEST = 64, 200

Attended = tuple[Tensor, Tensor]
"""Context (B, k, H), and weights."""


def plain_as_written(q_BKH: Tensor, k_BSH: Tensor, v_BSH: Tensor) -> Attended:
    """The source's plain attention, after its projections; weights (B, k, S)."""
    weights = (torch.bmm(q_BKH, k_BSH.transpose(1, 2)) / q_BKH.shape[-1] ** 0.5).softmax(dim=-1)
    return torch.bmm(weights, v_BSH), weights


def causal_as_written(q_BSH: Tensor, k_BSH: Tensor, v_BSH: Tensor, neg_inf: float = NEG_INF) -> Attended:
    """The source's causal attention, after its projections; its weights have a row for each key, (B, S, k)."""
    scores = torch.bmm(k_BSH, q_BSH.transpose(1, 2)) / q_BSH.shape[-1] ** 0.5
    future = torch.ones_like(scores, dtype=torch.bool).tril(-1)
    weights = scores.masked_fill(future, neg_inf).softmax(dim=1)
    return torch.bmm(weights.transpose(1, 2), v_BSH), weights


def attended(q: Tensor, k_BSH: Tensor, v_BSH: Tensor, mask: Mask = EVERYTHING) -> Attended:
    """The same with windtunnel's functions, for queries (B, H) and (B, k, H); weights (B, k, S)."""
    q_B1KH = (q[:, None] if q.dim() == 2 else q)[:, None]
    context = attend_reference(q_B1KH, k_BSH[:, None], v_BSH[:, None], mask)
    return context[:, 0], attention_weights(q_B1KH, k_BSH[:, None], mask)[:, 0]


def attention_pieces(at: Setting) -> Findings:
    """Attention's pieces.

    The two attentions as the source wrote them and windtunnel's own ran on the same normal queries, keys and values, in
    float32, beside torch's `scaled_dot_product_attention`; then the sinusoidal positions.
    """
    n, length, positions = at.size(200, quick=20), 32, at.size(1000, quick=200)
    yield Given({"draws": n, "tokens": length, "width": H, "width of positions": WIDTH, "positions": positions})
    generator = torch.Generator().manual_seed(at.seed)
    yield Progress("plain attention", 0, 3)
    yield from plain(generator, n)
    yield Progress("causal attention", 1, 3)
    yield from causal(generator, n, length)
    yield Progress("positions", 2, 3)
    yield from order(generator)
    yield from sines(positions)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers in float32."""
    return torch.randn(*shape, generator=generator)


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of two numbers at the same place."""
    return float((a - b).abs().max())


def shape_of(found: Attended) -> str:
    """The sizes of context and weights."""
    return " and ".join(str(tuple(part.shape)) for part in found)


# ---------------------------------------------------------------------------------------------------- plain attention


def plain(generator: torch.Generator, n: int) -> Findings:
    """004-2.1.1: shapes, sums and torch's own."""
    q, k, v = normal(generator, B, K, H), normal(generator, B, S, H), normal(generator, B, S, H)
    yield takes("2-D", q[:, 0], k, v)
    yield takes("3-D", q, k, v)
    for name, queries, expected in (("2-D", q[:, 0], 1), ("3-D", q, K)):
        statement = f"with a dimension added where one is missing: {name} queries"
        right = f"{(B, expected, H)} and {(B, expected, S)}"
        yield PLAIN.same(statement, shape_of(attended(queries, k, v)), right, "context and weights {}")
    yield PLAIN.equal("2-D queries give what the same query in 3-D does", gap(attended(q[:, 0], k, v)[0],
                      attended(q[:, :1], k, v)[0]))  # fmt: skip
    sums, written, reference, fast = [], [], [], []
    for _ in range(n):
        q, k, v = normal(generator, B, K, H), normal(generator, B, S, H), normal(generator, B, S, H)
        truth = F.scaled_dot_product_attention(q, k, v)
        context, weights = attended(q, k, v)
        sums.append(gap(weights.sum(-1), torch.ones(B, K)))
        written.append(gap(plain_as_written(q, k, v)[0], truth))
        reference.append(gap(context, truth))
        fast.append(gap(attend(q[:, None], k[:, None], v[:, None], EVERYTHING)[:, 0], truth))
    yield PLAIN.equal("the weights of each query sum to 1", sums, shown=f"{n} draws")
    for name, gaps in (("the source's", written), ("`attend_reference`", reference), ("`attend`", fast)):
        yield PLAIN.equal(f"3-D: {name} equals torch's", gaps, shown=f"{n} draws")


def takes(name: str, q: Tensor, k: Tensor, v: Tensor) -> Claim:
    """Whether the source's code runs with such queries."""
    statement = f"the source's code takes {name} queries"
    try:
        found = plain_as_written(q, k, v)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        return PLAIN.shows(statement, False, f"RuntimeError: {said}", "[H]", error=said)
    return PLAIN.shows(statement, True, f"context and weights {shape_of(found)}", "[H]", shapes=shape_of(found))


# --------------------------------------------------------------------------------------------------- causal attention


def causal(generator: torch.Generator, n: int, length: int) -> Findings:
    """004-2.1.2: torch's own, what is seen of the future, and the shape of the weights."""
    torchs, ours = [], []
    for _ in range(n):
        q, k, v = (normal(generator, B, length, H) for _ in range(3))
        context = causal_as_written(q, k, v)[0]
        torchs.append(gap(context, F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        ours.append(gap(context, attended(q, k, v, CAUSAL)[0]))
    statement = "causal with -1e7 equals {}"
    yield MASKED.equal(statement.format("torch's is_causal"), torchs, shown=f"{n} draws")
    yield MASKED.equal(statement.format("`attend_reference`"), ours, shown=f"{n} draws")
    q, k, v = (normal(generator, 1, length, H) for _ in range(3))
    ahead, behind = future_gradients(q, k, v)
    said = f"largest gradient from a later key or value, beside {behind:.4g} from an earlier one"
    yield MASKED.equal("no output depends on what stands after it", ahead, 0.0, shown=said)
    yield from masks(normal(generator, 64, length, H), normal(generator, 64, length, H))
    written, right = causal_as_written(q, k, v)[1], attended(q, k, v, CAUSAL)[1]
    sums = written.sum(-1)
    said = f"its rows sum to {sums.min():.4f} up to {sums.max():.4f}"
    statement = "the causal version returns weights (k, S), as the plain one does"
    yield MASKED.equal(statement, gap(written, right), printed="weights", shown=said)
    yield MASKED.equal("it returns them transposed, (S, k)", gap(written.transpose(1, 2), right))
    q, k, v = (part[:, :4] for part in (q, k, v))
    yield weights_figure(attended(q, k, v, CAUSAL)[1][0], causal_as_written(q, k, v)[1][0])


def future_gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[float, float]:
    """The largest derivative of an output by a later key or value, and by one that is not later."""

    def context(keys: Tensor, values: Tensor) -> Tensor:
        return causal_as_written(q, keys, values)[0][0]

    slopes = torch.func.jacrev(context, argnums=(0, 1))(k, v)
    size = torch.stack([own[:, :, 0].abs().amax((1, 3)) for own in slopes]).amax(0)  # (output, key)
    later = torch.ones_like(size, dtype=torch.bool).triu(1)
    return float(size[later].max()), float(size[~later].max())


def masks(q: Tensor, k: Tensor) -> Findings:
    """How much weight falls on the future as scores grow, for -1e7 and -inf."""
    found = {
        name: [float(causal_as_written(scale * q, k, k, value)[1].tril(-1).sum(1).max()) for scale in SCALES]
        for name, value in (("-1e7", NEG_INF), ("-inf", -math.inf))
    }
    for name, own in found.items():
        leaks = [f"{share:.4g} at x {scale:.0e}" for scale, share in zip(SCALES, own, strict=True) if share]
        said = f"most weight on the future: {', '.join(leaks) or '0'}; scores N(0, 1) x 1 to {SCALES[-1]:.0e}"
        yield MASKED.shows(f"{name} hides the future whatever the scores", not leaks, said, shares=own)
    rows = ((name, *own) for name, own in found.items())
    heads = ("hidden by", *(f"scores x {scale:.0e}" for scale in SCALES))
    yield table("The most weight that a query gives to the future", heads, rows)


def weights_figure(right: Tensor, written: Tensor) -> Drawing:
    """The causal weights as they are, and as the source returns them."""
    labels = [str(i + 1) for i in range(len(right))]
    return draw(
        "weights",
        heat(right, labels, title="causal weights (k, S): rows sum to 1", xlabel="key", ylabel="query"),
        heat(written, labels, title="as the source returns them (S, k)", xlabel="query", ylabel="key"),
        size=(9.0, 4.4),
    )


# ---------------------------------------------------------------------------------------------------------- positions


def order(generator: torch.Generator) -> Findings:
    """004-2.1.3, why positions: without them attention does not see an order."""
    x = normal(generator, 1, S, WIDTH)
    shuffled = torch.randperm(S, generator=generator)
    places = sinusoidal(torch.arange(S), WIDTH)
    gaps = []
    for added in (torch.zeros(S, WIDTH), places):
        before, after = (attended(own + added, own + added, own + added)[0] for own in (x, x[:, shuffled]))
        gaps.append(gap(after, before[:, shuffled]))
    statement = "shuffled tokens give the same outputs, shuffled: {}"
    shown = f"{S} tokens"
    yield POSITIONS.equal(statement.format("without positions"), gaps[0], shown=shown)
    yield POSITIONS.equal(statement.format("with sinusoidal positions added"), gaps[1], shown=shown)


def sines(n: int) -> Findings:
    """004-2.1.3, why sines: what the dot product of two positions depends on, and how it goes with their distance."""
    table_TD = sinusoidal(torch.arange(n + FARTHEST), WIDTH).double()
    distances = np.arange(FARTHEST + 1)
    products = np.array([(table_TD[p : p + FARTHEST + 1] @ table_TD[p]).numpy() for p in range(0, n, max(1, n // 50))])
    by_cosines = np.cos(np.outer(distances, rates())).sum(1)
    statement = "PE(p)·PE(p+k) depends on k alone (within .001)"
    said = f"{len(products)} p to {n - 1}, k to {FARTHEST}"
    yield POSITIONS.equal(statement, np.ptp(products, axis=0), 1e-3, shown=said)
    statement = "it is the sum of cos(rate k) over the D/2 rates (within .001)"
    yield POSITIONS.equal(statement, np.abs(products - by_cosines), 1e-3, shown=f"D/2 = {by_cosines[0]:g} at k = 0")
    gaps = [gap(turned(table_TD[:n], k), table_TD[k : k + n]) for k in (1, 10, FARTHEST)]
    statement = "PE(p+k) is PE(p) times a matrix that depends on k alone (within .001)"
    yield POSITIONS.equal(statement, gaps, 1e-3, shown=f"k = 1, 10, {FARTHEST}; p to {n - 1}")
    steps = np.diff(by_cosines)
    rises = np.flatnonzero(steps > 0)
    first = int(rises[0]) if len(rises) else FARTHEST
    said = (
        f"it falls to {by_cosines[first]:.4f} at k = {first}; from there {len(rises)} of {FARTHEST - first} steps rise"
    )
    statement = "the farther apart, the smaller PE(p)·PE(p+k)"
    yield POSITIONS.shows(statement, not len(rises), said, first=first, rises=len(rises))
    others = float(by_cosines[1:].max())
    said = f"{by_cosines[0]:g} at k = 0, at most {others:.4f} beyond"
    yield POSITIONS.shows("it is largest at k = 0", others < by_cosines[0], said, most_beyond=others)
    yield positions_figure(table_TD[:32].numpy(), products, by_cosines)


def rates() -> np.ndarray:
    """Radians a position of each pair of columns, (D/2,), in float64: 10000^(-2i/D)."""
    return 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)


def turned(table_TD: Tensor, k: int) -> Tensor:
    """Each pair (sin, cos) rotated by k times its rate."""
    angles = torch.from_numpy(k * rates())
    sin, cos = table_TD[:, 0::2], table_TD[:, 1::2]
    pairs = (sin * angles.cos() + cos * angles.sin(), cos * angles.cos() - sin * angles.sin())
    return torch.stack(pairs, dim=-1).flatten(1)


def positions_figure(shown_TD: np.ndarray, products: np.ndarray, by_cosines: np.ndarray) -> Drawing:
    """The encoding, and its dot products by distance from some positions."""
    distances = np.arange(FARTHEST + 1)
    curves = {f"{len(products)} positions p": (distances, products), "Σ cos(rate k)": (distances, by_cosines)}
    return draw(
        "positions",
        field(shown_TD, "PE", title=f"sinusoidal positions, D = {WIDTH}", xlabel="column", ylabel="position"),
        lines(curves, title="PE(p)·PE(p+k)", xlabel="distance k", ylabel="dot product"),
        size=(10.5, 4.4),
    )

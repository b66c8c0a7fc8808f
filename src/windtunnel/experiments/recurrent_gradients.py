"""004-1.1 and 1.2: how large a gradient can be behind a chain of ReLUs, and behind a recurrence through a sigmoid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.experiments.sigmoid_recurrence import (
    QUARTER,
    Recurrence,
    jacobians,
    largest,
    log_sizes,
    open_names,
    rescaled,
    run,
    train,
)
from windtunnel.report.charts import lines
from windtunnel.stats.intervals import mean_interval, paired_difference
from windtunnel.text.batches import IGNORED, Batch

ONES, WEIGHTED, RECURRENCE, E25 = Row("004-1.1.1"), Row("004-1.1.2"), Row("004-1.2.1"), Row("E25")
STEP = QUARTER * QUARTER
"""What each step of the bound multiplies by: the largest slope of a sigmoid times sigma_max(W)."""
SPREADS = (1.0, math.exp((np.euler_gamma + math.log(2)) / 2), 3.0)
"""Standard deviations of normal weights; with the middle one the mean of ln|w| is 0."""
WIDTHS, WIDTH = (2, 8, 32), 32
DISTANCES = 8
"""Letters over which a trained recurrence is measured, on names of at least as many."""
ZERO_IN_FLOAT32 = 39
"""The first n whose (1/16)^(n-1) is below the smallest float32; `underflow` measures it."""
ROUNDING = 1e-12
LOG10 = math.log(10)
FREE, HELD, AFTER = "trained", "σ_max(W) held at 1/4", "rescaled afterwards"


def recurrent_gradients(at: Setting) -> Findings:
    """Gradients through depth and time.

    Chains of ReLUs with random weights, random recurrences through a sigmoid whose W has the largest singular value
    1/4, and recurrences trained to predict the next letter of `names`. Derivatives are taken by autograd or as products
    of Jacobians, in float64.
    """
    depth, chains = at.size(40, quick=12), at.size(20_000, quick=2000)
    yield Given({"depth": depth, "chains": chains, "widths of W": list(WIDTHS), "W of each width": at.size(200, 100)})
    yield from relu_chains(depth, chains, at.seed)
    yield from random_recurrences(at.size(50, quick=12), at.size(200, quick=100), at.seed)
    yield from corrections(at.seed)
    yield from underflow()
    yield from trained_recurrences(at)


# ---------------------------------------------------------------------------------------------------- chains of ReLUs


def chain_gradients(weights_ND: Tensor, x_N: Tensor) -> Tensor:
    """df/dx of x -> ReLU(w_n ... ReLU(w_1 x)) at every depth n, (N, depth)."""
    x_N = x_N.clone().requires_grad_()
    h_N, found = x_N, []
    for w_N in weights_ND.unbind(1):
        h_N = torch.relu(w_N * h_N)
        found.append(torch.autograd.grad(h_N.sum(), x_N, retain_graph=True)[0])
    return torch.stack(found, dim=1)


def relu_chains(depth: int, n: int, seed: int) -> Findings:
    """004-1.1: bounds on the size of df/dx, which values it takes, and its sign."""
    generator = torch.Generator().manual_seed(seed)
    weights, x = torch.randn(n, depth, dtype=torch.float64, generator=generator), torch.randn(n, generator=generator)
    yield Progress("chains of ReLUs", 0, 1)
    plain = chain_gradients(torch.ones_like(weights), x.double())
    said = f"{n} x: from {plain.abs().min():g} to {plain.abs().max():g}"
    holds = bool((plain.abs() <= 1).all())
    yield ONES.shows("weights 1: 0 ≤ |df/dx| ≤ 1", holds, said, "0 ≤ |df/dx| ≤ 1", largest=float(plain.abs().max()))
    found = sorted(set(plain.flatten().tolist()))
    between = sum(0 < abs(value) < 1 for value in found)
    said = f"values found: {', '.join(f'{value:g}' for value in found)}"
    yield ONES.shows("weights 1: every value between 0 and 1 can occur", between > 0, said, values=found)

    gradients, bound = chain_gradients(weights, x.double()), weights.abs().cumprod(1)
    ratios = (gradients / bound).abs()
    said = f"|df/dx| / ∏|w_i| of {n} chains to depth {depth}: at most {ratios.max():.15g}"
    holds = bool((ratios <= 1 + ROUNDING).all())
    yield WEIGHTED.shows("|df/dx| ≤ ∏|w_i|", holds, said, "0 ≤ |df/dx| ≤ ∏|w_i|", largest=float(ratios.max()))
    live = gradients != 0
    yield WEIGHTED.equal("|df/dx| is either 0 or ∏|w_i|", (ratios - live.double()).abs().numpy(), ROUNDING)
    negative = int((gradients < 0).sum())
    said = f"{negative} of {int(live.sum())} derivatives that are not 0 are negative, down to {gradients.min():.4g}"
    statement = "df/dx itself, without the bars, is at least 0"
    yield WEIGHTED.shows(statement, negative == 0, said, negative=negative, smallest=float(gradients.min()))
    open_ND = torch.cat((weights[:, :1] * x[:, None] > 0, weights[:, 1:] > 0), dim=1).cumprod(1).bool()
    wrong = int((open_ND != live).sum())
    said = f"{wrong} of {live.numel()} say otherwise; alive at depth 1 to 4: "
    said += ", ".join(f"{share:.4f}" for share in live.double().mean(0)[:4])
    statement = "df/dx is not 0 exactly where w_1 x > 0 and w_2 ... w_n > 0: half of the chains die at each layer"
    yield WEIGHTED.shows(statement, wrong == 0, said, exceptions=wrong)
    yield from gradient_against_depth(live, depth, n, generator)


def gradient_against_depth(live: Tensor, depth: int, n: int, generator: torch.Generator) -> Findings:
    """How the size of a gradient that is not 0 goes with depth, for three spreads of the weights."""
    depths = np.arange(1, depth + 1)
    logs = {}
    for spread in SPREADS:
        weights = spread * torch.randn(n, depth, dtype=torch.float64, generator=generator).abs()
        logs[spread] = (chain_gradients(weights, torch.ones(n, dtype=torch.float64)).log() / LOG10).numpy()
    rows, factors = [], {}
    for spread, own in logs.items():
        expected = math.exp(math.log(spread) - math.log(SPREADS[1]))
        factor = mean_interval((LOG10 * own[:, -1] / depth).tolist())
        factors[spread] = (factor, math.log(expected))
        rows.append((f"{spread:.3f}", expected, math.exp(factor.estimate), *np.quantile(own[:, -1], (0.05, 0.5, 0.95))))
    heads = ("spread of w", "e^E ln|w|", "a layer", f"log10 at depth {depth}: 5 %", "median", "95 %")
    yield table("Gradients of positive weights: by what a layer multiplies", heads, rows)
    far = [abs(factor.estimate - expected) for factor, expected in factors.values()]
    said = "; ".join(f"spread {s:.3g}: {f.estimate:+.4f}, expected {e:+.4f}" for s, (f, e) in factors.items())
    statement = "ln|df/dx| of a living chain changes by E ln|w| a layer (within .02), so it vanishes or explodes"
    yield WEIGHTED.equal(statement, far, 0.02, shown=said)
    seen = depths[: int(math.log2(n / 32))]  # deeper, fewer than 32 chains are expected to live
    share = {"share of chains": (seen, live.double().mean(0)[: len(seen)]), "2⁻ⁿ": (seen, 0.5**seen)}
    alive = lines(share, joined=["2⁻ⁿ"], log="y", title="df/dx is not 0, weights of either sign", xlabel="depth n",
                  ylabel="share")  # fmt: skip
    curves = {f"spread {spread:.2f}": (depths, own[:30]) for spread, own in logs.items()}
    panel = lines(curves, title="size of df/dx, weights above 0", xlabel="depth n", ylabel="log10 |df/dx|")
    yield draw("chains", alive, panel, size=(9.0, 4.0))


# --------------------------------------------------------------------------------------- recurrences with a random W


def random_recurrences(n: int, each: int, seed: int) -> Findings:
    """004-1.2.1: the bound for random W, and where it is attained."""
    generator = torch.Generator().manual_seed(seed)
    bound = math.log(STEP) * np.arange(1, n)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    ratios: list[float] = []
    for i, width in enumerate(WIDTHS):
        yield Progress("random W, widths", i, len(WIDTHS))
        w = rescaled(torch.randn(each, width, width, dtype=torch.float64, generator=generator))
        x = torch.randn(each, width, dtype=torch.float64, generator=generator)
        logs = log_sizes(jacobians(w, run(w, x, n - 1))).numpy()
        ratios.append(float(np.exp((logs - bound).max())))
        curves[f"largest of {each}, width {width}"] = (np.arange(2, n + 1), logs.max(0) / LOG10)
    said = f"{each * len(WIDTHS)} random W, n to {n}: the nearest is {1 - max(ratios):.1e} of the bound below it"
    holds = max(ratios) <= 1 + ROUNDING
    statement = "σ_max(∂x_n/∂x_1) ≤ (1/16)ⁿ⁻¹ where σ_max(W) = 1/4"
    yield RECURRENCE.shows(statement, holds, said, "0 ≤ σ_max ≤ (1/16)ⁿ⁻¹", ratios=ratios)
    first = float(log_sizes(attaining(torch.eye(8, dtype=torch.float64) * QUARTER, 1))[0, 0].exp())
    yield RECURRENCE.same("attained at n = 2 by W = I/4, x = 0", first, 0.0625)
    logs = log_sizes(attaining(centring(8) * QUARTER, n - 1))[0].numpy()
    statement = f"attained at every n to {n} by W = (I - 11ᵀ/d)/4, x = 0, where W x_t stays 0"
    yield RECURRENCE.equal(statement, np.abs(np.exp(logs - bound) - 1), ROUNDING * n)
    curves["W = (I - 11ᵀ/d)/4, x = 0"] = (np.arange(2, n + 1)[::6], logs[::6] / LOG10)
    curves["(1/16)ⁿ⁻¹"] = (np.arange(2, n + 1), bound / LOG10)
    yield bound_figure(curves, n)


def bound_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], n: int) -> Drawing:
    """The sizes, and their ratios to the bound, which is the last curve."""
    *others, last = curves
    below = {name: (x, own - math.log10(STEP) * (x - 1)) for name, (x, own) in curves.items()}
    settings: Mapping[str, Any] = {"joined": [*others[:-1], last], "xlabel": "n"}
    down = {"float32: (1/16)ⁿ⁻¹ is 0 from here": ZERO_IN_FLOAT32} if n >= ZERO_IN_FLOAT32 else None
    sizes = lines(curves, down=down, ylabel="log10 σ_max(∂x_n/∂x_1)", **settings)
    return draw(
        "bound", sizes, lines(below, down=down, ylabel="log10 of its ratio to the bound", **settings), size=(9.5, 4.8)
    )


def centring(width: int) -> Tensor:
    """I - 11ᵀ/d: it takes the mean away, so that of a constant vector nothing is left."""
    return torch.eye(width, dtype=torch.float64) - 1 / width


def attaining(w: Tensor, steps: int) -> Tensor:
    """The Jacobians of one recurrence from x_1 = 0, (1, steps, D, D)."""
    return jacobians(w[None], run(w[None], torch.zeros(1, len(w), dtype=torch.float64), steps))


def corrections(seed: int) -> Findings:
    """E25: the largest slope, which factors belong to ∂x_n/∂x_i, and the exponent for any i."""
    generator = torch.Generator().manual_seed(seed)
    w = rescaled(torch.randn(300, 8, 8, dtype=torch.float64, generator=generator))
    x = torch.randn(300, 8, dtype=torch.float64, generator=generator)
    after = run(w, x, 1)[:, 1]
    slopes = (after * (1 - after)).amax(1)
    low, high = float(slopes.min()), float(slopes.max())
    said = f"300 random W and x: from {low:.6f} to {high:.6f}"
    yield E25.shows("σ_max(Diag) = 1/4", low == high == QUARTER, said, "1/4", low=low, high=high)
    yield E25.shows("σ_max(Diag) ≤ 1/4", high <= QUARTER, said, high=high)
    away = x - torch.einsum("ni,ni->n", w[:, 0], x)[:, None] * w[:, 0] / (w[:, 0] ** 2).sum(1, keepdim=True)
    after = run(w, away, 1)[:, 1]
    least = float(torch.einsum("nij,nj->ni", w, away).abs().amax(1).min())
    statement = "one component of W x at 0 is enough for 1/4, the whole of it need not be"
    said = f"W x has others whose size is at least {least:.4f}"
    yield E25.equal(statement, ((after * (1 - after)).amax(1) - QUARTER).abs().numpy(), ROUNDING, "at Wx = 0", said)
    yield from factors(w[0], x[0])

    bound, n = math.log(STEP), 8
    steps = attaining(centring(8) * QUARTER, n - 1)
    over = {i: log_sizes(steps[:, i - 1 :])[0, -1].item() for i in range(1, n)}
    far = [abs(math.exp(own - (n - i) * bound) - 1) for i, own in over.items()]
    yield E25.equal(f"the exponent is n - i: attained for n = {n} and every i", far, 1e-9, "n - 1")
    beyond = {i: math.exp(own - (n - 1) * bound) for i, own in over.items()}
    said = f"n = {n}: " + ", ".join(f"i = {i}: {ratio:.6g} times the bound" for i, ratio in list(beyond.items())[:3])
    statement = "σ_max(∂x_n/∂x_i) ≤ (1/16)ⁿ⁻¹ for any i"
    yield E25.shows(statement, max(beyond.values()) <= 1 + 1e-9, said, "(1/16)ⁿ⁻¹", ratios=list(beyond.values()))


def factors(w: Tensor, x: Tensor, i: int = 3, n: int = 6) -> Findings:
    """Which product of ∂x_k/∂x_{k-1} is ∂x_n/∂x_i by autograd."""
    states = run(w[None], x[None], n - 1)
    steps = jacobians(w[None], states)[0]  # the first is k = 2

    def ending(start: Tensor) -> Tensor:
        return run(w[None], start[None], n - i)[0, -1]

    truth = torch.func.jacrev(ending)(states[0, i - 1])
    size = float(largest(truth))
    gaps = {}
    for name, first in (("i+1 to n", i + 1), ("the beginning to n", 2)):
        product = torch.linalg.multi_dot([*steps[first - 2 : n - 1].flip(0)])
        gaps[name] = float(largest(product - truth)) / size
    right, wrong = gaps.values()
    statement = "∂x_n/∂x_i is the product of the steps ∂x_k/∂x_k₋₁ over k = {}"
    shown = f"i = {i}, n = {n}, relative to autograd"
    yield E25.equal(statement.format("i+1 ... n"), right, ROUNDING, shown=shown)
    yield E25.equal(statement.format("0 ... n"), wrong, ROUNDING, "∏ from 0", shown)


def underflow() -> Findings:
    """From which n on the bound is 0 in a float: a comparison there compares nothing."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        powers = torch.tensor(STEP, dtype=dtype).repeat(300).cumprod(0)
        found[str(dtype).removeprefix("torch.")] = int((powers == 0).nonzero()[0]) + 2
    yield RECURRENCE.same("the bound is 0 in float32 from n on", found["float32"], ZERO_IN_FLOAT32)
    single = attaining(centring(8) * QUARTER, 45).float()[0]
    product, zero = torch.eye(8), 0
    for n, step in enumerate(single, start=2):
        product = step @ product
        zero = zero or (n if not product.any() else 0)
    said = (
        f"float32: the product is 0 from n = {zero} on, the bound from {found['float32']}; float64: {found['float64']}"
    )
    yield RECURRENCE.shows("float32 is enough for n to 50", zero == 0, said, product=zero, bound=found)


# ------------------------------------------------------------------------------------------------ trained recurrences


def trained_recurrences(at: Setting) -> Findings:
    """004-1.2.1 for recurrences that predict letters: the bound with their own σ_max(W), and what 1/4 costs."""
    steps, seeds = at.size(2000, quick=60), at.seeds(8)
    yield Given({"trained: seeds": len(seeds), "trained: steps": steps, "trained: width": WIDTH, "letters": DISTANCES})
    rows, dev = open_names()
    models: dict[str, list[Recurrence]] = {FREE: [], HELD: []}
    for i, seed in enumerate(seeds):
        yield Progress("recurrences trained on names", i, len(seeds))
        models[FREE].append(train(rows, WIDTH, steps, seed))
        models[HELD].append(train(rows, WIDTH, steps, seed, rescaled))
    models[AFTER] = [Recurrence(rescaled(m.w), m.u, m.v, m.b) for m in models[FREE]]
    sizes = {name: np.array([letter_sizes(model, dev) for model in own]) for name, own in models.items()}
    losses = {name: [float(model.loss(dev)) for model in own] for name, own in models.items()}
    yield from trained_claims(models, sizes, losses)
    yield trained_figure(models, sizes)


def letter_sizes(model: Recurrence, rows: Batch, n: int = 200) -> np.ndarray:
    """ln σ_max(∂x_{k+1}/∂x_1) of names that are long enough, (N, DISTANCES)."""
    long = (rows.targets != IGNORED).sum(1) >= DISTANCES
    states = model.states(rows.ids[long][:n, :DISTANCES])
    return log_sizes(jacobians(model.w[None], states)).numpy()


def trained_claims(
    models: Mapping[str, list[Recurrence]], sizes: Mapping[str, np.ndarray], losses: Mapping[str, list[float]]
) -> Findings:
    """What holds of a W that was trained, and of one with the largest singular value 1/4."""
    top = {name: [float(largest(model.w)) for model in own] for name, own in models.items()}
    distances = np.arange(1, DISTANCES + 1)
    excess = {}
    for name, own in sizes.items():
        bounds = np.log(np.array(top[name]) * QUARTER)[:, None, None] * distances
        excess[name] = float(np.exp((own - bounds).max()))
    said = ", ".join(f"{name}: at most {ratio:.4f} of the bound" for name, ratio in excess.items())
    statement = "on names: σ_max(∂x_n/∂x_1) ≤ (σ_max(W)/4)ⁿ⁻¹, trained or not"
    yield RECURRENCE.shows(statement, max(excess.values()) <= 1 + ROUNDING, said, ratios=excess)
    statement = "training leaves σ_max(W) at 1/4 or below, where the bound says that gradients vanish"
    yield RECURRENCE.within(statement, mean_interval(top[FREE]), high=QUARTER, printed="1/4", shown="σ_max(W) {}")
    rates = {name: [math.exp(one.mean(0)[-1] / DISTANCES) for one in own] for name, own in sizes.items()}
    shown = f"a letter multiplies by {{}}, over {DISTANCES} letters"
    statement = "a trained recurrence forgets at least as fast as 1/16 a step"
    yield RECURRENCE.within(statement, mean_interval(rates[FREE]), high=STEP, printed="1/16", shown=shown)
    costs = paired_difference(losses[FREE], losses[HELD])
    statement = "holding σ_max(W) at 1/4 in training costs no loss (less than .01 nats)"
    yield RECURRENCE.within(statement, costs, high=0.01, shown="{} nats per letter on dev")
    heads = ("recurrence", "σ_max(W)", "dev loss, nats per letter", "a letter multiplies by", "most of the bound")
    rows = (
        (name, mean_interval(top[name]), mean_interval(losses[name]), mean_interval(rates[name]), excess[name])
        for name in models
    )
    yield table("Recurrences on names, means over seeds with 95 % intervals", heads, rows)


def trained_figure(models: Mapping[str, list[Recurrence]], sizes: Mapping[str, np.ndarray]) -> Drawing:
    """The largest singular value by distance, one thin line a seed."""
    distances = np.arange(1, DISTANCES + 1)
    curves = {name: (distances, own.mean(1) / LOG10) for name, own in sizes.items()}
    own = np.array([math.log10(float(largest(model.w)) * QUARTER) for model in models[FREE]])
    curves["(σ_max(W)/4)ᵏ, trained"] = (distances, own[:, None] * distances)
    curves["(1/16)ᵏ"] = (distances, math.log10(STEP) * distances)
    panel = lines(curves, xlabel="distance k = n - 1, letters", ylabel="log10 σ_max(∂x_n/∂x_1), mean over names")
    return draw("trained", panel, size=(7.0, 4.6))

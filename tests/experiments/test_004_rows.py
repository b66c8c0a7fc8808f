"""The rows of 004 without a network: bounds on gradients, attention that convolves, and attention's pieces."""

import math

import numpy as np
import pytest
import torch

from windtunnel.experiments.attention_as_convolution import (
    WINDOW,
    Head,
    convolved,
    hardest,
    hardest_gap,
    head_of,
    nearest_head,
    padded,
    pooled,
    two_heads,
)
from windtunnel.experiments.attention_pieces import (
    WIDTH,
    attended,
    causal_as_written,
    future_gradients,
    plain_as_written,
    turned,
)
from windtunnel.experiments.recurrent_gradients import SPREADS, attaining, centring, chain_gradients
from windtunnel.experiments.sigmoid_recurrence import (
    Recurrence,
    jacobians,
    largest,
    log_sizes,
    open_names,
    rescaled,
    run,
    train,
)
from windtunnel.nn.attention import CAUSAL
from windtunnel.nn.positions import sinusoidal
from windtunnel.text.batches import IGNORED, Batch

# ------------------------------------------------------------------------------------------------ recurrent-gradients


def test_a_chain_of_relus_has_the_product_of_its_weights_or_nothing_for_a_gradient():
    weights = torch.tensor([[2.0, 3.0, 0.5], [-2.0, 3.0, 0.5], [2.0, -3.0, 0.5], [-2.0, 3.0, 0.5]])
    found = chain_gradients(weights, torch.tensor([1.0, -1.0, 1.0, 1.0]))
    assert found.tolist() == [[2, 6, 3], [-2, -6, -3], [2, 0, 0], [0, 0, 0]]


def test_sizes_are_those_of_the_product_also_where_it_underflows():
    generator = torch.Generator().manual_seed(1)
    w, x = torch.randn(3, 4, 4, generator=generator).double(), torch.randn(3, 4, generator=generator).double()
    steps = jacobians(w, run(w, x, 5))
    logs = log_sizes(steps)
    for i in range(3):
        truth = torch.func.jacrev(lambda start, i=i: run(w[i : i + 1], start[None], 5)[0, -1])(x[i])
        assert logs[i, -1].item() == pytest.approx(math.log(np.linalg.norm(truth.numpy(), 2)), abs=1e-12)
    deep = log_sizes(attaining(centring(4) / 4, 400))[0]
    assert deep[[0, -1]].tolist() == pytest.approx([-math.log(16), -400 * math.log(16)], rel=1e-12)
    assert math.exp(deep[-1]) == 0


def test_gradients_through_depth_and_time(claims_of):
    found = claims_of("recurrent-gradients")
    wrong = {
        ("004-1.1.1", "weights 1: every value between 0 and 1 can occur"),
        ("004-1.1.2", "df/dx itself, without the bars, is at least 0"),
        ("E25", "σ_max(Diag) = 1/4"),
        ("E25", "∂x_n/∂x_i is the product of the steps ∂x_k/∂x_k₋₁ over k = 0 ... n"),
        ("E25", "σ_max(∂x_n/∂x_i) ≤ (1/16)ⁿ⁻¹ for any i"),
        ("004-1.2.1", "float32 is enough for n to 50"),
    }
    trained = {key for key in found if "train" in key[1] and "on names" not in key[1]}  # two seeds decide nothing
    assert {key for key, claim in found.items() if claim.verdict == "does not hold"} - trained == wrong
    assert {claim.verdict for key, claim in found.items() if key not in wrong | trained} == {"holds"}
    assert len(trained) == 3
    assert found.one("004-1.1.1", "every value").values["values"] == [0, 1]
    assert found.one("004-1.2.1", "n = 2").values["got"] == 0.0625
    assert 0.99 < max(found.one("004-1.2.1", "where σ_max(W)").values["ratios"]) <= 1
    ratios = found.one("E25", "for any i").values["ratios"]
    assert ratios == pytest.approx([16.0**i for i in range(7)])
    assert found.one("E25", "k = 0").values["most_apart"] > 0.9
    assert found.one("004-1.2.1", "float32 is enough").values["bound"] == {"float32": 39, "float64": 270}
    assert SPREADS[1] == pytest.approx(1.887, abs=5e-4)


def test_a_recurrence_learns_the_names_and_its_letters_do_not_touch_the_bound():
    rows, dev = open_names()
    assert int((rows.targets != IGNORED).sum()) > 150_000
    name = rows.targets[0][rows.targets[0] != IGNORED]
    assert (int(rows.ids[0, 0]), int(name[-1])) == (0, 0)
    assert rows.ids[0, 1 : len(name)].tolist() == name[:-1].tolist()
    free, held = train(rows, 16, 300, 0), train(rows, 16, 300, 0, rescaled)
    assert float(held.loss(dev)) < 2.7 < math.log(27)
    assert float(free.loss(dev)) < float(held.loss(dev)) - 0.05
    assert float(largest(held.w)) == pytest.approx(0.25, abs=1e-6)
    assert float(largest(free.w)) > 1
    states = free.states(dev.ids[:20, :6])
    logs = log_sizes(jacobians(free.w[None], states))
    assert (logs <= math.log(float(largest(free.w)) / 4) * torch.arange(1, 7)).all()

    def last(start):
        x = start
        for id in dev.ids[3, :6]:
            x = (free.w @ x + free.u[id]).sigmoid()
        return x

    truth = torch.func.jacrev(last)(torch.zeros(16, dtype=torch.float64))
    assert logs[3, -1].item() == pytest.approx(math.log(float(largest(truth))), abs=1e-10)


def test_a_loss_leaves_out_what_stands_behind_a_name():
    model = Recurrence(torch.zeros(2, 2), torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([0.0, 1.0, 2.0]))
    one_name = Batch({"ids": torch.tensor([[0, 1, 0]])}, torch.tensor([[1, 0, IGNORED]]))
    expected = math.log(1 + math.e + math.e**2) - 0.5
    assert float(model.loss(one_name)) == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------- attention-as-convolution


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_a_head_of_relative_positions_by_hand():
    x = column(1, 10, 100)
    assert convolved(x, [2, 0, 1])[:, 0].tolist() == [20, 201, 10]
    assert convolved(x, [5, 3, 1])[:, 0].tolist() == [53, 531, 310]
    printed = Head({1: math.log(2), -1: 0.0}, value=3.0)
    assert printed(x)[:, 0].tolist() == pytest.approx([30, 201, 30])
    assert padded(printed, x)[:, 0].tolist() == pytest.approx([20, 201, 10])
    assert printed(x[:1]).isnan().all()
    assert head_of([2, 0, 1]) == Head({1: math.log(2 / 3), -1: math.log(1 / 3)}, 3)
    plus, minus = two_heads([2, 0, -1])
    assert (padded(plus, x) + padded(minus, x))[:, 0].tolist() == pytest.approx([20, 199, -10])
    error, nearest = nearest_head([0.5, 0, -2])
    assert error == pytest.approx(0.5, abs=5e-3)
    assert nearest == pytest.approx([0, 0, -2], abs=0.02)


def test_max_pooling_by_hand_and_its_largest_error():
    x = column(1, -2, 3, -4, -5)
    assert pooled(x)[:, 0].tolist() == [1, 3, 3, 3, -4]
    sharp = Head(WINDOW, query=100, key=100)(x)[:, 0]
    assert sharp.tolist() == pytest.approx([1, -2, 3, -5, -5])  # below 0 the smallest
    constant = Head(WINDOW, query_bias=1.0, key=100)
    assert constant(x)[:, 0].tolist() == pytest.approx([1, 3, 3, 3, -4], abs=1e-12)
    u, missed = hardest_gap()
    assert (u, missed) == pytest.approx((1.4631, 0.4631), abs=1e-4)
    tried = [float(-Head(WINDOW, query_bias=1.0, key=1.0)(hardest(d)[0])[1]) for d in np.linspace(0.1, 6, 400)]
    assert max(tried) == pytest.approx(missed, abs=1e-4)
    assert max(tried) <= missed


def test_attention_as_convolution(claims_of):
    found = claims_of("attention-as-convolution")
    wrong = {claim.statement for claim in found.values() if claim.verdict == "does not hold"}
    assert wrong == {
        "the same at its two ends, without padding",
        "`conv1d` with the kernel as it stands is the same",
        "a sequence of one token has an output, without padding",
        "one head is the kernel [2.0, 0.0, -1.0], too",
        "W_Q = W_K = C is max pooling (within .01)",
        "with some finite C it is exactly max pooling of all numbers",
    }
    assert {claim.verdict for claim in found.values()} == {"holds", "does not hold"}
    assert found.one("004-1.3.1", "inside").values["most_apart"] <= 1e-14
    assert found.one("E26", "one token of zeros").values["most_apart"] <= 1e-14
    assert found.one("E26", "two ends").values["most_apart"] > 1
    assert found.one("004-1.3.1", "two heads").values["most_apart"] <= 1e-14
    assert found.one("004-1.3.2", "is max pooling").values["most_apart"] > 2
    assert found.one("E27", "a constant query").values["bound"] == pytest.approx(0.463, abs=1e-3)
    worst = found.one("E27", "finite C").values["worst"]
    assert [own * c for own, c in zip(worst, (1, 3, 10, 30, 100, 300), strict=True)] == pytest.approx(
        [0.463] * 6, abs=1e-3
    )


# --------------------------------------------------------------------------------------------------- attention-pieces


def test_the_attentions_of_the_source_by_hand():
    q = torch.tensor([[[2.0], [0.0]]])
    k, v = torch.tensor([[[math.log(3) / 2], [0.0]]]), torch.tensor([[[8.0], [4.0]]])
    context, weights = plain_as_written(q, k, v)
    assert (context.flatten().tolist(), weights[0, 0].tolist()) == (pytest.approx([7, 6]), pytest.approx([0.75, 0.25]))
    context, weights = causal_as_written(q, k, v)
    assert context.flatten().tolist() == pytest.approx([8, 6])
    assert weights[0].tolist() == [[1, 0.5], [0, 0.5]]  # a row for each key
    assert attended(q, k, v, CAUSAL)[1][0].tolist() == [[1, 0], [0.5, 0.5]]
    assert attended(q[:, 0], k, v)[0].tolist() == [[[pytest.approx(7)]]]
    with pytest.raises(RuntimeError, match="3D"):
        plain_as_written(q[:, 0], k, v)
    ahead, behind = future_gradients(q, k, v)
    assert (ahead, behind) == (0, 1)


def test_a_rotation_carries_a_position_forward():
    table = sinusoidal(torch.arange(30), WIDTH).double()
    assert (turned(table[:20], 7) - table[7:27]).abs().max() < 1e-5
    assert (turned(table[:20], 7) - table[6:26]).abs().max() > 0.1


def test_attention_pieces(claims_of):
    found = claims_of("attention-pieces")
    wrong = {claim.statement for claim in found.values() if claim.verdict == "does not hold"}
    assert wrong == {
        "the source's code takes 2-D queries",
        "-1e7 hides the future whatever the scores",
        "the causal version returns weights (k, S), as the plain one does",
        "shuffled tokens give the same outputs, shuffled: with sinusoidal positions added",
        "the farther apart, the smaller PE(p)·PE(p+k)",
    }
    assert {claim.verdict for claim in found.values()} == {"holds", "does not hold"}
    assert found.one("004-2.1.1", "takes 2-D").values["error"] == "batch1 must be a 3D tensor"
    assert found.one("004-2.1.1", "missing: 2-D").values["got"] == "(3, 1, 16) and (3, 1, 7)"
    assert found.one("004-2.1.2", "stands after it").values["most_apart"] == 0
    assert found.one("004-2.1.2", "-1e7 hides").values["shares"][:3] == [0, 0, 0]
    assert found.one("004-2.1.2", "-1e7 hides").values["shares"][-1] > 0.99
    falls = found.one("004-2.1.3", "farther apart").values
    k = np.arange(201)
    cosines = sum(np.cos(k * 10000 ** (-2 * i / WIDTH)) for i in range(WIDTH // 2))
    assert falls["first"] == int(np.flatnonzero(np.diff(cosines) > 0)[0]) == 5
    assert falls["rises"] == int((np.diff(cosines) > 0).sum()) > 50
    assert found.one("004-2.1.3", "largest at").values["most_beyond"] == pytest.approx(cosines[1])

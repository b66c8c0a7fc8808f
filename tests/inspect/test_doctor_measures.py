"""The doctor's measurements of quantities that are known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from windtunnel.inspect.doctor.activations import activations, summarise
from windtunnel.inspect.doctor.curvature import largest_curvature, sharpness
from windtunnel.inspect.doctor.gradients import gradient_flow
from windtunnel.inspect.doctor.history import late_fall, spikes
from windtunnel.inspect.doctor.initial_loss import culprit, initial_loss
from windtunnel.inspect.doctor.noise import noise_scale
from windtunnel.text.batches import Batch
from windtunnel.training.optimizer import OptimizerConfig

V = 50


class ByName(nn.Sequential):
    """Takes its input by the name that batches give it."""

    def forward(self, ids):
        return super().forward(ids)


class Constant(nn.Module):
    """Logits that do not depend on the input."""

    def __init__(self, logits_V):
        super().__init__()
        self.logits_V = nn.Parameter(logits_V)

    def forward(self, ids):
        return self.logits_V.expand(*ids.shape, -1)


def batches_of(n=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [
        Batch({"ids": torch.randint(V, (8, 16), generator=draw)}, torch.randint(V, (8, 16), generator=draw))
        for _ in range(n)
    ]


def hessian_of(eigenvalues, seed=0):
    q, _ = torch.linalg.qr(
        torch.randn(len(eigenvalues), len(eigenvalues), generator=torch.Generator().manual_seed(seed))
    )
    return q @ torch.diag(torch.tensor(eigenvalues)) @ q.T


def test_equal_logits_cost_exactly_ln_v():
    found = initial_loss(Constant(torch.full((V,), 3.0)), batches_of())
    assert found.loss.estimate == pytest.approx(math.log(V), abs=1e-6)
    assert found.blind == math.log(V)
    assert found.logit_std == 0


def test_normal_logits_cost_half_their_variance_more():
    torch.manual_seed(0)
    for std in (0.3, 1.0):
        model = ByName(nn.Embedding(V, 4000 // V * V))  # logits of V = 4000 for any id
        nn.init.normal_(model[0].weight, std=std)
        wide = [b._replace(targets=torch.randint(4000, b.ids.shape)) for b in batches_of()]
        found = initial_loss(model, wide)
        assert found.logit_std == pytest.approx(std, rel=0.02)
        assert found.loss.low < found.blind + std**2 / 2 < found.loss.high


def test_the_culprit_is_the_parameter_whose_size_it_is():
    torch.manual_seed(0)
    model = ByName(nn.Embedding(V, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, V))
    model[0].weight.data.mul_(100)  # the norm behind it takes this out again
    model[4].weight.data.mul_(100)
    name, loss = culprit(model, batches_of()[0])
    assert name == "4.weight"
    assert loss < initial_loss(model, batches_of()).loss.estimate / 5


@pytest.mark.parametrize(
    ("eigenvalues", "largest"),
    [([1.0, 2.0, 7.0, 3.0], 7.0), ([-9.0, 1.0, 4.0], 4.0), ([-3.0, -1.0, -2.0], -1.0), ([5.0], 5.0)],
)
def test_the_largest_curvature_of_a_quadratic(eigenvalues, largest):
    x = torch.randn(len(eigenvalues), requires_grad=True)
    loss = 0.5 * x @ hessian_of(eigenvalues) @ x
    value, change = largest_curvature(loss, [x], iterations=300, enough=1e-9)
    assert value == pytest.approx(largest, rel=1e-4)
    assert change < 1e-3


def test_a_preconditioner_divides_the_curvature():
    x, y = (torch.randn(3, requires_grad=True) for _ in range(2))
    loss = 0.5 * (torch.tensor([1.0, 4.0, 9.0]) * x**2).sum() + 0.5 * (5.0 * y**2).sum()
    scales = [torch.tensor([1.0, 2.0, 9.0]), torch.full((3,), 0.5)]
    assert largest_curvature(loss, [x, y], 200, scales, 1e-9)[0] == pytest.approx(10.0, rel=1e-4)


def test_gradient_descent_grows_above_the_limit_and_shrinks_below():
    """2 (1 + b) / eigenvalue for heavy ball momentum, as torch's SGD has it."""
    model, batch = Constant(torch.zeros(V)), batches_of(1)[0]
    config = OptimizerConfig(name="sgd", momentum=0.9)
    found = sharpness(model, batch, config, {}, iterations=400)
    exact = torch.autograd.functional.hessian(
        lambda z: nn.functional.cross_entropy(z.expand(128, -1), batch.targets.flatten()), torch.zeros(V)
    )
    assert found.eigenvalue == pytest.approx(torch.linalg.eigvalsh(exact).max().item(), rel=1e-3)
    for factor, grows in ((0.98, False), (1.02, True)):
        x = torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([x], lr=factor * found.largest_lr, momentum=0.9)
        for _ in range(400):
            optimizer.zero_grad()
            (0.5 * found.eigenvalue * x**2).sum().backward()
            optimizer.step()
        assert (not x.abs().item() < 1) == grows  # it may be NaN by then


def test_the_noise_scale_of_gradients_with_a_known_covariance_is_covered():
    """tr = 200 x 4, |G|^2 = 200 x .01: B = 400. Its 95 % interval must hold it in about 95 of 100 samples."""
    inside = 0
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        rows = [0.1 + 2 * torch.randn(200, generator=draw) / math.sqrt(16) for _ in range(32)]
        found = noise_scale(lambda rows=rows: rows, size=16)
        inside += found.low <= 400 <= found.high
    assert 0.89 <= inside / 200 <= 0.99


def test_gradients_without_a_signal_have_no_upper_end():
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randn(500, generator=draw) for _ in range(16)]
    found = noise_scale(lambda: rows, size=4)
    assert found.high == math.inf
    assert found.low > 100


def test_equal_gradients_have_no_noise():
    assert noise_scale(lambda: [torch.ones(10)] * 5, size=2).estimate < 1e-9


def test_dead_saturated_and_extreme_values_are_counted():
    x = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    fired = x.clamp(min=0)
    fired[:, :3] = 0
    assert summarise("relu", fired).dead == pytest.approx(0.3)
    assert summarise("relu", fired).zero == pytest.approx(0.3 + 0.7 / 2, abs=0.01)
    # |tanh(s x)| > .97 when |x| > 2.092 / s
    share = 2 * 0.5 * math.erfc(2.0923 / 3 / math.sqrt(2))
    assert summarise("tanh", (3 * x).tanh()).saturated == pytest.approx(share, abs=0.01)
    assert summarise("sigmoid", (20 * x).sigmoid()).saturated > 0.8
    assert summarise("normal", x).saturated == 0
    outlier = x.clone()
    outlier[0, 0] = 100.0
    assert summarise("outlier", outlier).extreme == pytest.approx(1e-4)
    assert sum(summarise("normal", x).counts) == pytest.approx(10_000, abs=5)


def test_a_function_between_two_linear_maps_is_seen_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Embedding(V, 8), nn.Linear(8, V)

        def forward(self, ids):
            return self.b(self.a(ids).relu())

    places = [a.place for a in activations(Net(), batches_of()[0].inputs)]
    assert places == ["a", "b (input)", "b"]


def test_gradient_states():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Embedding(V, 8), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, V)
            self.shift = nn.Parameter(torch.zeros(1))  # the same for all units: the norm subtracts it again
            self.unused, self.silent = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(8))
            self.b.bias.requires_grad_(False)

        def forward(self, ids):
            return self.b(self.norm(self.a(ids) + self.shift) + 0.0 * self.silent)

    torch.manual_seed(0)
    found = {g.name: g.state for g in gradient_flow(Net(), batches_of()[0])}
    assert found == {
        "a.weight": "flows", "b.weight": "flows", "b.bias": "frozen", "shift": "cancels", "unused": "unused",
        "silent": "zero",
    }  # fmt: skip


def test_normal_noise_has_no_spikes_and_a_planted_one_is_found():
    draw = torch.Generator().manual_seed(0)
    losses = (2 + 0.1 * torch.randn(5000, generator=draw)).tolist()
    assert spikes(losses) == []
    losses[1234] = 4.0
    assert spikes(losses) == [1234]


def test_the_late_fall_of_a_line_is_covered():
    inside = 0
    for seed in range(200):
        noise = 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(seed))
        found = late_fall((3 - torch.arange(400) / 400 + noise).tolist())
        inside += found.low <= 99 / 400 <= found.high
    assert 0.89 <= inside / 200 <= 0.99

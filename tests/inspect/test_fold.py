"""Batch norm folded into the weights: the same function, whatever the gains, and what cannot be folded."""

import pytest
import torch

from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.inspect.fold import agreement, fold, fold_run
from windtunnel.models import MLPConfig, TransformerConfig, build
from windtunnel.training.data import open_task
from windtunnel.training.loop import fit
from windtunnel.training.recipes import mlp
from windtunnel.training.run import load

SHORT = [
    "train.steps=200", "train.eval_every=200", "train.save_every=200", "train.threads=1", "train.sample_tokens=0",
    "train.compile=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three hidden layers, its statistics and gains far from where they began."""
    config = override(mlp("names"), [*SHORT, "model.n_layers=3", "model.d_hidden=32", "model.batch_norm_momentum=0.1"])
    folder = tmp_path_factory.mktemp("runs") / "trained" / "seed-0"
    list(fit(config, folder))
    return folder


def shaken(config, seed=0):
    """A model whose norms have random gains, shifts and statistics."""
    model, draw = build(config, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.layers:
            for value in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
                value.copy_(torch.randn(value.shape, generator=draw))
            layer.norm.running_std.copy_(torch.rand(layer.norm.running_std.shape, generator=draw) + 0.5)
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_bias": False},
        {"direct": True, "n_layers": 2},
        {"n_layers": 3, "d_hidden": 40, "hidden_bias": False},
    ],
    ids=str,
)
def test_the_folded_model_is_the_same_function(changes):
    model = shaken(MLPConfig(**changes))
    ids = torch.randint(27, (500, 3), generator=torch.Generator().manual_seed(1))
    folded = fold(model)
    assert not folded.config.batch_norm
    assert folded.config.hidden_bias
    assert not any("norm" in name for name in folded.state_dict())
    assert torch.allclose(folded(ids), model(ids), atol=1e-4, rtol=1e-4)
    exact = model.double()
    difference = (fold(exact)(ids) - exact(ids)).abs().max().item()
    assert 0 < difference < 1e-13
    assert sum(p.numel() for p in folded.parameters()) == sum(
        p.numel() for p in build(MLPConfig(**{**changes, "batch_norm": False, "hidden_bias": True}), 0).parameters()
    )


def test_a_folded_model_does_not_mind_who_is_in_the_batch():
    model = shaken(MLPConfig(n_layers=2))
    ids = torch.randint(27, (64, 3), generator=torch.Generator().manual_seed(1))
    folded = fold(model).train()
    assert torch.allclose(folded(ids)[:4], folded(ids[:4]), atol=1e-6)
    assert not torch.allclose(model.train()(ids)[:4], model(ids[:4]), atol=1e-2)


def test_a_run_is_folded_into_a_run(trained, tmp_path):
    found = fold_run(trained, tmp_path / "folded" / "seed-0")
    assert found.after.loss == pytest.approx(found.before.loss, abs=1e-6)
    assert found.before.loss < 2.82
    assert found.agreement.n == found.before.n_tokens == 9_821 + 1_562
    assert found.agreement.same == found.agreement.n
    assert 0 < found.agreement.largest < 1e-4
    assert (found.n_before, found.n_after) == (found.n_after + 3 * 32, 30 * 32 + 2 * 32 * 32 + 3 * 32 + 33 * 27 + 270)
    original, again = load(trained), load(found.run.folder)
    gains = torch.cat([layer.norm.weight for layer in original.model.layers])
    assert gains.std() > 0.01
    assert agreement(original.model, again.model, open_task(found.run.config, found.run.store())) == found.agreement
    assert again.run.record["made"] == "folded"
    assert again.run.record["folded_from"]["step"] == 200


def test_what_cannot_be_folded_is_refused_in_a_sentence(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"^nothing to fold: batch norm is .*, and this mlp has none$"):
        fold(build(MLPConfig(batch_norm=False), 0))
    with pytest.raises(ConfigError, match=r"^nothing to fold: .*, and this transformer has none$"):
        fold(build(TransformerConfig(n_layers=1, n_heads=1, d_model=8, vocab_size=27, context_length=8), 0))
    with pytest.raises(ConfigError, match="is not empty"):
        fold_run(trained, trained)
    folded = fold_run(trained, tmp_path / "folded" / "seed-0").run.folder
    with pytest.raises(ConfigError, match="this mlp has none"):
        fold_run(folded, tmp_path / "again" / "seed-0")

"""A classifier: what it pools, and that padding changes nothing."""

import pytest
import torch

from windtunnel.models import ClassifierConfig, TransformerConfig

V, LENGTH = 13, 8
TRUNK = {"n_layers": 2, "n_heads": 2, "d_model": 16, "dropout": 0.0}


def classifier(pool, **trunk):
    config = ClassifierConfig(
        vocab_size=V, context_length=LENGTH, n_labels=3, pool=pool, trunk=TransformerConfig(**TRUNK, **trunk)
    )
    model = config.build(0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    return model


def rows():
    ids = torch.randint(V, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    kept = torch.arange(LENGTH) < torch.tensor([8, 5, 1])[:, None]
    return ids, kept


@pytest.mark.parametrize("pool", ["mean", "last", "first"])
@pytest.mark.parametrize(
    "trunk", [{"causal": False}, {}, {"position": "rope"}, {"causal": False, "norm_position": "post"}]
)
def test_logits_do_not_depend_on_padding(pool, trunk):
    model, (ids, kept) = classifier(pool, **trunk), rows()
    logits = model(ids, kept)
    assert logits.shape == (3, 1, 3)
    other = model(torch.where(kept, ids, (ids + 1) % V), kept)
    assert torch.equal(other, logits)
    for row in range(3):
        alone = model(ids[row : row + 1, kept[row]])[0]
        torch.testing.assert_close(logits[row], alone, rtol=1e-4, atol=1e-5)
    left = [torch.cat([a[~k], a[k]]) for a, k in zip(ids, kept, strict=True)]
    before = model(torch.stack(left), kept.flip(1))
    torch.testing.assert_close(before, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "last", "first"])
def test_the_pool_is_what_it_is_called(pool):
    of = {"mean": lambda x: x.mean(0), "last": lambda x: x[-1], "first": lambda x: x[0]}[pool]
    model, (ids, kept) = classifier(pool, causal=False), rows()
    hidden = model.trunk.hidden(ids, kept=kept)
    for row, vector in enumerate(model.pooled(ids, kept)):
        torch.testing.assert_close(vector, of(hidden[row, kept[row]]))


def test_the_trunk_of_a_model_with_a_head_of_its_own_has_none():
    model = classifier("mean", tie_embeddings=False, head_bias=True)
    assert model.trunk.head is None
    assert {name.split(".")[0] for name in model.state_dict()} == {"trunk", "head"}

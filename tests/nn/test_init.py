"""Initial weights are a function of (seed, name, shape)."""

import torch

from windtunnel.models import TransformerConfig, build
from windtunnel.nn.init import stream

SMALL = TransformerConfig(vocab_size=300, context_length=64, n_layers=8, n_heads=4, d_model=128)


def weights(config, seed=0):
    return dict(build(config, seed).named_parameters())


def test_standard_deviations_are_gpt2s():
    found = weights(SMALL)
    for name in ("embedding.weight", "blocks.0.attention.qkv.weight", "blocks.7.feed_forward.widen.weight"):
        assert abs(found[name].std().item() / 0.02 - 1) < 0.03
    for name in ("blocks.3.attention.out.weight", "blocks.0.feed_forward.narrow.weight"):
        assert abs(found[name].std().item() / (0.02 / 16**0.5) - 1) < 0.03
    for name, value in found.items():
        if name.endswith("bias"):
            assert not value.any()
        elif "norm" in name:
            assert (value == 1).all()
        else:
            assert abs(value.mean().item()) < 4 * value.std().item() / value.numel() ** 0.5


def test_untied_heads_are_initialised_too():
    found = weights(SMALL.replace(tie_embeddings=False))
    assert abs(found["head.weight"].std().item() / 0.02 - 1) < 0.03
    assert not torch.equal(found["head.weight"], found["embedding.weight"])


def test_architectures_share_the_weights_whose_name_and_shape_they_share():
    base = weights(SMALL)
    other = weights(SMALL.replace(position="rope", norm="rms", activation="relu", n_kv_heads=2, tie_embeddings=False))
    shared = [name for name in base if name in other and base[name].shape == other[name].shape]
    assert {"embedding.weight", "blocks.5.attention.out.weight", "blocks.2.feed_forward.widen.weight"} <= set(shared)
    for name in shared:
        assert torch.equal(base[name], other[name]), name


def test_the_same_seed_repeats_and_others_are_independent():
    first, again, second = weights(SMALL, 1), weights(SMALL, 1), weights(SMALL, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("embedding.weight", "blocks.0.attention.qkv.weight"):
        a, b = first[name].flatten(), second[name].flatten()
        assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1].item()) < 4 / a.numel() ** 0.5
    a, b = (first[f"blocks.{layer}.attention.qkv.weight"].flatten() for layer in (0, 1))
    assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1].item()) < 4 / a.numel() ** 0.5


def test_weights_do_not_depend_on_the_global_generator():
    results = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        results.append(weights(SMALL, 5)["embedding.weight"])
    assert torch.equal(*results)


def test_streams_differ_in_every_label():
    labels = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), (1, "a", 1), (11, "a"), (1, "1/a")]
    assert len({stream(*label) for label in labels}) == len(labels)
    assert all(0 <= stream(*label) < 2**63 for label in labels)

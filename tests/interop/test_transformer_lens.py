"""What is recorded, ablated, patched and attributed is what TransformerLens says of the same GPT-2.

Its loader asks a hub, so the config is made by hand and random weights are copied. It is no part of the extra `test`,
for it brings some thirty packages: `pip install -c constraints.txt '.[interop]'`; .ci/run does.
"""

import pytest
import torch

from windtunnel.config import parse
from windtunnel.inspect.lens import attribution, lens
from windtunnel.inspect.sites import ablated, patched, recorded
from windtunnel.models import build
from windtunnel.models.transformer import TransformerConfig

transformer_lens = pytest.importorskip("transformer_lens", reason="needs the extra interop")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
OTHER = torch.tensor([[2, 7, 1, 8, 2, 8, 1, 8]])
L, H, D, K = 3, 2, 16, 8
SAME = {
    theirs.format(i=i): ours.format(i=i)
    for i in range(L)
    for theirs, ours in {
        "blocks.{i}.hook_resid_pre": "blocks.{i}.in",
        "blocks.{i}.hook_resid_post": "blocks.{i}.resid",
        "blocks.{i}.hook_attn_out": "blocks.{i}.attention",
        "blocks.{i}.hook_mlp_out": "blocks.{i}.feed_forward",
        "blocks.{i}.attn.hook_pattern": "blocks.{i}.attention.pattern",
    }.items()
}


@pytest.fixture(scope="module")
def both():
    """Our model, every parameter random, and theirs with the same weights."""
    sizes = {"vocab_size": 11, "context_length": 8, "n_layers": L, "n_heads": H, "d_model": D}
    model = build(parse(TransformerConfig, sizes), 0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    config = transformer_lens.HookedTransformerConfig(
        n_layers=L, d_model=D, n_ctx=8, d_head=K, n_heads=H, d_vocab=11, act_fn="gelu_new", normalization_type="LN"
    )
    theirs = transformer_lens.HookedTransformer(config).eval()
    state = theirs.state_dict()
    with torch.no_grad():
        state["embed.W_E"].copy_(model.embedding.weight)
        state["pos_embed.W_pos"].copy_(model.position.embedding.weight)
        state["unembed.W_U"].copy_(model.embedding.weight.T)
        state["unembed.b_U"].zero_()
        state["ln_final.w"].copy_(model.norm.weight)
        state["ln_final.b"].copy_(model.norm.bias)
        for i, block in enumerate(model.blocks):
            for name, norm in (("ln1", block.norm_1), ("ln2", block.norm_2)):
                state[f"blocks.{i}.{name}.w"].copy_(norm.weight)
                state[f"blocks.{i}.{name}.b"].copy_(norm.bias)
            for part, weight, bias in zip(
                "QKV", block.attention.qkv.weight.chunk(3), block.attention.qkv.bias.chunk(3), strict=True
            ):
                state[f"blocks.{i}.attn.W_{part}"].copy_(weight.view(H, K, D).transpose(1, 2))
                state[f"blocks.{i}.attn.b_{part}"].copy_(bias.view(H, K))
            state[f"blocks.{i}.attn.W_O"].copy_(block.attention.out.weight.T.reshape(H, K, D))
            state[f"blocks.{i}.attn.b_O"].copy_(block.attention.out.bias)
            for way, layer in (("in", block.feed_forward.widen), ("out", block.feed_forward.narrow)):
                state[f"blocks.{i}.mlp.W_{way}"].copy_(layer.weight.T)
                state[f"blocks.{i}.mlp.b_{way}"].copy_(layer.bias)
    return model, theirs


def ours_of(model, ids):
    with torch.no_grad():
        return model(ids)


def near(a, b, atol=1e-5):
    return a.shape == b.shape and torch.allclose(a, b, atol=atol)


def test_every_site_has_their_value(both):
    model, theirs = both
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(IDS)
    with recorded(model, [*SAME.values(), "blocks.*.attention.heads"]) as seen:
        assert near(ours_of(model, IDS), logits)
    for name, site in SAME.items():
        assert near(seen[site], cache[name]), name
    for i in range(L):
        assert near(seen[f"blocks.{i}.attention.heads"].transpose(1, 2), cache[f"blocks.{i}.attn.hook_z"])


def test_an_ablated_head_is_theirs(both):
    model, theirs = both

    def without(z, hook):
        z[:, :, 1] = 0
        return z

    with torch.no_grad():
        expected = theirs.run_with_hooks(IDS, fwd_hooks=[("blocks.1.attn.hook_z", without)])
    with ablated(model, ["blocks.1.attention.heads.1"]):
        assert near(ours_of(model, IDS), expected)


def test_a_patched_position_is_theirs(both):
    model, theirs = both
    with torch.no_grad():
        _, cache = theirs.run_with_cache(OTHER)

        def patch(resid, hook):
            resid[:, 3] = cache["blocks.1.hook_resid_post"][:, 3]
            return resid

        expected = theirs.run_with_hooks(IDS, fwd_hooks=[("blocks.1.hook_resid_post", patch)])
    with recorded(model, ["blocks.1.resid"]) as seen:
        ours_of(model, OTHER)
    with patched(model, {"blocks.1.resid": seen["blocks.1.resid"].clone()}, [3]):
        assert near(ours_of(model, IDS), expected)


def test_lens_and_attribution_are_theirs(both):
    model, theirs = both
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(IDS)
        streams, _ = cache.accumulated_resid(return_labels=True)  # (L + 1, 1, T, D), the last being the final stream
        expected = torch.stack([theirs.unembed(theirs.ln_final(stream))[0] for stream in streams])
        assert near(lens(model, IDS[0].tolist()), expected)
        found = attribution(model, IDS[0].tolist(), 7)
        heads = cache.stack_head_results(layer=-1, pos_slice=-1, apply_ln=True)[:, 0]  # (L * H, D), centred and scaled
        direct = heads @ (theirs.ln_final.w * theirs.unembed.W_U[:, 7])
    for i in range(L):
        for head in range(H):
            ours = found.parts[f"blocks.{i}.attention.heads.{head}"]
            assert ours == pytest.approx(float(direct[i * H + head]), abs=1e-5)
    assert found.logit == pytest.approx(float(logits[0, -1, 7]), abs=1e-5)

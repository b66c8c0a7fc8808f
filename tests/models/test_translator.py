"""The encoder-decoder: its two halves differ where told, and the course's blocks are settings."""

import pytest
import torch

from windtunnel.config import ConfigError
from windtunnel.inspect.cost import count_forward_flops
from windtunnel.models import TransformerConfig, TranslatorConfig
from windtunnel.models.translator import EncoderConfig

COURSE = {
    "norm": "none", "n_heads": 1, "out_projection": False, "feed_forward_layers": 1, "activation": "relu",
    "position": "sinusoidal", "tie_embeddings": False, "head_bias": True, "dropout": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("width", "n_parameters"), [(16, 4862), (32, 17886), (48, 39102), (64, 68510), (96, 151902), (128, 268062)]
)
def test_the_blocks_of_the_course_are_settings(width, n_parameters):
    """Rows 004-2.2 and 2.3: four decoder-only layers on 30 tokens, without embeddings and positions."""
    config = TransformerConfig(vocab_size=30, context_length=64, n_layers=4, d_model=width, **COURSE)
    model = config.build(0)
    assert sum(p.numel() for p in model.parameters()) - model.embedding.weight.numel() == n_parameters
    assert sum(row.n_parameters for row in config.parameter_rows() if not row.is_embedding) == n_parameters
    assert n_parameters == 4 * (3 * width**2 + 3 * width + width**2 + width) + width * 30 + 30


def test_a_block_of_the_course_is_attention_and_one_layer_added_to_the_stream():
    model = TransformerConfig(vocab_size=30, context_length=8, n_layers=1, d_model=16, **COURSE).build(0).double()
    ids = torch.tensor([[5, 6, 29, 6]])
    x = model.embedding.weight[ids] + model.position.embed(torch.arange(4))
    block = model.blocks[0]
    q, k, v = block.attention.qkv(x).chunk(3, dim=-1)
    scores = (q @ k.transpose(1, 2) / 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
    x = x + scores.softmax(-1) @ v
    x = x + torch.relu(x @ block.feed_forward.linear.weight.T + block.feed_forward.linear.bias)
    torch.testing.assert_close(model(ids), x @ model.head.weight.T + model.head.bias)


def test_the_encoder_differs_where_it_is_told():
    config = TranslatorConfig(n_layers=2, d_model=32, n_heads=4, norm="rms", encoder=EncoderConfig(n_layers=5, d_ff=8))
    encoder, decoder = config.parts
    assert (encoder.n_layers, encoder.d_ff, encoder.norm, encoder.d_model, encoder.causal) == (5, 8, "rms", 32, False)
    assert (decoder.n_layers, decoder.ff_width, decoder.causal) == (2, 128, True)
    assert config.replace(window=4).parts[0].window is None  # the encoder sees all of the source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"d_model": 30}}, "the encoder: d_model 30 is not divisible by n_heads 4"),
        ({"position": "alibi"}, "looks back, as an encoder cannot; give model.encoder.position"),
        ({"feed_forward_layers": 1, "activation": "swiglu"}, "no second matrix for a gate"),
        ({"head_bias": True}, "needs a head of its own"),
        ({"out_projection": False, "d_head": 4}, "must be d_model, given 4 \\* 4 and 32"),
        ({"encoder": {"layers": 3}}, "there is no setting encoder.layers; did you mean encoder.n_layers"),
    ],
)
def test_what_does_not_fit_is_said(settings, message):
    with pytest.raises(ConfigError, match=message):
        TranslatorConfig(n_heads=4, d_model=32).replace(**settings)


def test_a_source_of_another_length_costs_what_torch_counts():
    config = TranslatorConfig(vocab_size=30, context_length=16, n_layers=2, d_model=12, n_heads=2, dropout=0.0,
                              encoder=EncoderConfig(n_layers=3, d_model=8))  # fmt: skip
    assert sum(config.flops_by_part(9, source=5).values()) == count_forward_flops(config, 9, source=5)
    assert config.flops_by_part(9) == config.flops_by_part(9, source=9) != config.flops_by_part(9, source=5)

"""The same numbers as transformers' GPT-2 and Llama, from the same weights: logits and gradients."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from windtunnel.models import Transformer, TransformerConfig


def randomised(model, seed=0):
    """Every parameter random, also the biases and norms that begin as zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1 + noise if is_norm else noise)
    return model.eval()


def gpt2_names(n_layers):
    """Their name, our name, whether theirs is stored transposed (GPT-2's Conv1D)."""
    yield "transformer.wte.weight", "embedding.weight", False
    yield "transformer.wpe.weight", "position.embedding.weight", False
    parts = {
        "ln_1": "norm_1",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.out",
        "ln_2": "norm_2",
        "mlp.c_fc": "feed_forward.widen",
        "mlp.c_proj": "feed_forward.narrow",
    }
    for layer in range(n_layers):
        for theirs, ours in parts.items():
            transposed = ".c_" in f".{theirs}"
            yield f"transformer.h.{layer}.{theirs}.weight", f"blocks.{layer}.{ours}.weight", transposed
            yield f"transformer.h.{layer}.{theirs}.bias", f"blocks.{layer}.{ours}.bias", False
    yield "transformer.ln_f.weight", "norm.weight", False
    yield "transformer.ln_f.bias", "norm.bias", False


def from_gpt2(theirs, config):
    """Our model on their weights."""
    given = dict(theirs.named_parameters())
    tensors = {
        ours: given.pop(name).detach().T.contiguous() if transposed else given.pop(name).detach().clone()
        for name, ours, transposed in gpt2_names(config.n_layers)
    }
    assert not given
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_().eval()


def random_ids(vocab_size, rows, length):
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


def loss(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.fixture(scope="module")
def tiny_gpt2():
    config = GPT2Config(vocab_size=97, n_positions=24, n_embd=48, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0)
    theirs = randomised(GPT2LMHeadModel(config))
    ours = from_gpt2(theirs, TransformerConfig(vocab_size=97, context_length=24, d_model=48, n_layers=3, n_heads=4))
    return ours, theirs


def test_tiny_gpt2_has_the_same_logits(tiny_gpt2):
    ours, theirs = tiny_gpt2
    ids = random_ids(97, rows=3, length=24)
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-4


def test_tiny_gpt2_has_the_same_gradients(tiny_gpt2):
    ours, theirs = tiny_gpt2
    ids = random_ids(97, rows=3, length=24)
    for model, logits in ((ours, ours(ids)), (theirs, theirs(ids).logits)):
        model.zero_grad()
        loss(logits, ids).backward()
    found, expected = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for name, our_name, transposed in gpt2_names(3):
        gradient = expected[name].grad.T if transposed else expected[name].grad
        assert gradient.abs().max() > 1e-4, name
        assert (found[our_name].grad - gradient).abs().max() < 1e-4, name


def test_gpt2_small_with_124_million_parameters_has_the_same_logits():
    theirs = GPT2LMHeadModel(GPT2Config()).eval()
    ours = from_gpt2(theirs, TransformerConfig())
    assert sum(parameter.numel() for parameter in ours.parameters()) == 124_439_808
    ids = random_ids(50257, rows=1, length=12)
    with torch.no_grad():
        found, expected = ours(ids), theirs(ids).logits
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4


def test_llama_has_the_same_logits_and_gradients():
    theirs = randomised(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=97,
                hidden_size=48,
                intermediate_size=80,
                num_hidden_layers=2,
                num_attention_heads=6,
                num_key_value_heads=2,
                max_position_embeddings=32,
                rms_norm_eps=1e-5,
                tie_word_embeddings=False,
            )
        )
    )
    ours = from_llama(theirs)
    ids = random_ids(97, rows=2, length=32)
    found, expected = ours(ids), theirs(ids).logits
    assert (found - expected).abs().max() < 1e-4
    loss(found, ids).backward()
    loss(expected, ids).backward()
    ours_by_name, theirs_by_name = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for our_name, names in llama_names(2):
        gradient = torch.cat([theirs_by_name[name].grad for name in names])
        assert gradient.abs().max() > 1e-5, our_name
        assert (ours_by_name[our_name].grad - gradient).abs().max() < 1e-4, our_name


def llama_names(n_layers):
    """Our name, and theirs, whose rows follow each other in ours."""
    yield "embedding.weight", ["model.embed_tokens.weight"]
    parts = {
        "norm_1": ["input_layernorm"],
        "attention.qkv": [f"self_attn.{part}_proj" for part in "qkv"],
        "attention.out": ["self_attn.o_proj"],
        "norm_2": ["post_attention_layernorm"],
        "feed_forward.gate": ["mlp.gate_proj"],
        "feed_forward.widen": ["mlp.up_proj"],
        "feed_forward.narrow": ["mlp.down_proj"],
    }
    for layer in range(n_layers):
        for ours, theirs in parts.items():
            yield f"blocks.{layer}.{ours}.weight", [f"model.layers.{layer}.{name}.weight" for name in theirs]
    yield "norm.weight", ["model.norm.weight"]
    yield "head.weight", ["lm_head.weight"]


def from_llama(theirs):
    config = TransformerConfig(
        vocab_size=97,
        context_length=32,
        d_model=48,
        d_ff=80,
        n_layers=2,
        n_heads=6,
        n_kv_heads=2,
        position="rope",
        norm="rms",
        activation="swiglu",
        bias=False,
        tie_embeddings=False,
    )
    model = Transformer(config)
    given = dict(theirs.named_parameters())
    model.load_state_dict({ours: torch.cat([given[name].detach() for name in names]) for ours, names in llama_names(2)})
    return model.eval()

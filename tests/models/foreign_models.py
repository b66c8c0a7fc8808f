"""Small models of transformers with random weights, saved as it saves them."""

import json

import torch
from transformers import (
    ArceeConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
    Starcoder2Config,
)
from transformers.utils import logging

from windtunnel.text.tokenizers import bytes_tokenizer

logging.disable_progress_bar()

VOCAB = 300
TOKENIZER = bytes_tokenizer(end=True)

_GPT2 = {"vocab_size": VOCAB, "n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4}
_LLAMA = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_NEOX = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6,
    "max_position_embeddings": 64, "eos_token_id": None, "bos_token_id": None,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip

CONFIGS = {
    "gpt2": GPT2Config(**_GPT2),
    "gpt2 untied, relu, wide": GPT2Config(
        **_GPT2, tie_word_embeddings=False, activation_function="relu", n_inner=100, layer_norm_epsilon=1e-3
    ),
    "gpt2 reordered, exact gelu": GPT2Config(
        **_GPT2, activation_function="gelu", reorder_and_upcast_attn=True, attn_implementation="eager"
    ),
    "llama": LlamaConfig(**_LLAMA),
    "llama with biases, tied": LlamaConfig(
        **_LLAMA, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=16, rms_norm_eps=1e-4
    ),
    "llama 3 scaling": LlamaConfig(**_LLAMA, rope_parameters=_LLAMA3),
    "llama linear scaling": LlamaConfig(
        **_LLAMA, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 3000.0}
    ),
    "gpt_neox": GPTNeoXConfig(**_NEOX),
    "gpt_neox in turn, half turned": GPTNeoXConfig(
        **_NEOX | {"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True},
        rope_parameters={"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5},
    ),
    "qwen2": Qwen2Config(**_LLAMA, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**_LLAMA, head_dim=16),
    "qwen3 with biases": Qwen3Config(**_LLAMA, head_dim=8, attention_bias=True),
    "olmo2": Olmo2Config(**_LLAMA, bos_token_id=None, eos_token_id=None),
    "starcoder2": Starcoder2Config(**_LLAMA, sliding_window=7, bos_token_id=None, eos_token_id=None),
    "starcoder2 without biases": Starcoder2Config(
        **_LLAMA, use_bias=False, tie_word_embeddings=False, hidden_act="gelu", bos_token_id=None, eos_token_id=None
    ),
    "arcee": ArceeConfig(**_LLAMA, bos_token_id=None, eos_token_id=None),
    "arcee with biases": ArceeConfig(**_LLAMA, mlp_bias=True, bos_token_id=None, eos_token_id=None),
    "llama with biases in one half": LlamaConfig(**_LLAMA, attention_bias=True),
    "mistral with a window": MistralConfig(**_LLAMA, sliding_window=7),
    "mistral with wide heads": MistralConfig(**{**_LLAMA, "hidden_size": 50}, head_dim=20, sliding_window=None),
}


def randomised(model, seed=0, spread=0.1):
    """Every parameter moved at random, also the biases and norms that begin as zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval()


def make(name):
    """A model of transformers, in evaluation mode, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomised(AutoModelForCausalLM.from_config(CONFIGS[name]))


def save(model, folder, **how):
    """As transformers saves it, with a tokenizer beside it."""
    model.save_pretrained(folder, **how)
    TOKENIZER.save(folder / "tokenizer.json")
    return folder


def change_config(folder, **changes):
    """Other values in a saved config.json; None there is null."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def random_ids(rows, length, vocab_size=VOCAB, seed=1):
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))

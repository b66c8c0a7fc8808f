"""Write a model as a stock architecture of transformers: it loads without remote code and gives the same logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models.pretrained import gpt2, llama
from windtunnel.models.pretrained.parts import scatter
from windtunnel.models.transformer import Transformer, TransformerConfig
from windtunnel.text.tokenizer_json import END
from windtunnel.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Exported:
    """The files of an exported model by name, and what differs from the model it was made of, a sentence each."""

    files: dict[str, bytes]
    notes: tuple[str, ...]


def huggingface_files(
    config: TransformerConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer | None
) -> Exported:
    """config.json, model.safetensors and, with a tokenizer, its files, for `AutoModelForCausalLM.from_pretrained`.

    Raises:
        ConfigError: when no stock architecture has the model's settings, naming them.
    """
    architecture = stock_architecture(config)
    config, weights, notes = adapt(config, weights, architecture)
    module = gpt2 if architecture == "gpt2" else llama
    end = None if tokenizer is None else tokenizer.end_id
    fields = {**module.fields(config), "bos_token_id": end, "eos_token_id": end, "dtype": "float32"}
    files = {
        "config.json": _json(fields),
        "model.safetensors": safetensors.torch.save(scatter(module.parts(config), weights), metadata={"format": "pt"}),
    }
    if tokenizer is not None:
        files |= _tokenizer_files(tokenizer, config)
    return Exported(files, notes)


def stock_architecture(config: TransformerConfig) -> str:
    """ "gpt2", "llama" or "mistral": the architecture of transformers that has all of the model's settings.

    Raises:
        ConfigError: when there is none, naming what stands in the way of each.
    """
    in_gpt2, in_llama = gpt2.obstacles(config), llama.obstacles(config)
    if not in_gpt2:
        return "gpt2"
    if not in_llama:
        return "mistral" if llama.is_mistral(config) else "llama"
    raise ConfigError(
        "no stock architecture of transformers is this model: "
        f"GPT-2 (learned positions, pre layer norm, gelu or relu, no grouped queries, no window) has not "
        f"{', '.join(in_gpt2)}; Llama and Mistral (rope, pre rms norm, swiglu, one window) have not "
        f"{', '.join(in_llama)}; train with settings that one of them has"
    )


def adapt(
    config: TransformerConfig, weights: Mapping[str, Tensor], architecture: str
) -> tuple[TransformerConfig, dict[str, Tensor], tuple[str, ...]]:
    """The same function of the ids in an architecture's own terms, and in what the two differ otherwise."""
    weights, notes = dict(weights), []
    if architecture == "gpt2" and not config.bias:
        config = config.replace(bias=True)
        with torch.device("meta"):
            shapes = {name: parameter.shape for name, parameter in Transformer(config).named_parameters()}
        weights |= {name: torch.zeros(shape) for name, shape in shapes.items() if name not in weights}
        notes.append("GPT-2 has biases: they were written as zeros, which gives the same logits")
    if architecture != "gpt2" and config.dropout:
        notes.append(f"dropout {config.dropout}, which acts in training only, was left out: {architecture} has none")
    return config, weights, tuple(notes)


def _tokenizer_files(tokenizer: Tokenizer, config: TransformerConfig) -> dict[str, bytes]:
    """tokenizer.json and what tells transformers to take it as it is."""
    named: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.context_length}
    if tokenizer.end_id is not None:
        named |= {"bos_token": END, "eos_token": END}
    return {
        "tokenizer.json": tokenizer.to_json().encode(),
        "tokenizer_config.json": _json({**named, "clean_up_tokenization_spaces": False}),
    }


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()

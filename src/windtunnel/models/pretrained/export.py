"""Write a model as a stock architecture of transformers: it loads without remote code and gives the same logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models.pretrained.architectures import ARCHITECTURES, obstacles, with_biases
from windtunnel.models.pretrained.marks import GENERATION, Marks, ids_of
from windtunnel.models.pretrained.parts import scatter
from windtunnel.models.transformer import TransformerConfig
from windtunnel.text.tokenizer_json import END
from windtunnel.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Exported:
    """The files of an exported model by name, and what differs from the model it was made of, a sentence each."""

    files: dict[str, bytes]
    notes: tuple[str, ...]


def huggingface_files(
    config: TransformerConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer | None, marks: Marks | None = None
) -> Exported:
    """config.json, model.safetensors and, with a tokenizer, its files, for `AutoModelForCausalLM.from_pretrained`.

    Args:
        marks: what came with the model, which is written as it was.

    Raises:
        ConfigError: when no stock architecture has the model's settings, naming them.
    """
    name = stock_architecture(config)
    config, weights, notes = adapt(config, weights, name)
    architecture = ARCHITECTURES[name]
    end = None if tokenizer is None else tokenizer.end_id
    marks = marks or Marks()
    fields = {**architecture.write(config), "bos_token_id": end, "eos_token_id": end, **marks.ids, "dtype": "float32"}
    tensors = scatter(architecture.parts(config), weights)
    tensors = {theirs: architecture.outward(theirs, tensor, config) for theirs, tensor in tensors.items()}
    files = {
        "config.json": as_json(fields),
        "model.safetensors": safetensors.torch.save(tensors, metadata={"format": "pt"}),
    }
    if tokenizer is not None:
        files |= tokenizer_files(tokenizer, config.context_length, marks)
    if marks.generation:
        files[GENERATION] = as_json(marks.generation)
    return Exported(files, notes)


def stock_architecture(config: TransformerConfig, where: str = "model") -> str:
    """The first architecture of transformers that has all of the model's settings, of `ARCHITECTURES`.

    Args:
        where: what the settings are called in a run's.

    Raises:
        ConfigError: when there is none, naming the nearest, what it has not, and the settings that cure it.
    """
    found = {name: obstacles(config, name) for name in ARCHITECTURES}
    nearest = min(found, key=lambda name: len(found[name]))
    if found[nearest]:
        raise ConfigError(refusal("stock architecture of transformers", config, nearest, found[nearest], where))
    return nearest


def refusal(
    wanted: str, config: TransformerConfig, nearest: str, missing: Mapping[str, Any], where: str = "model"
) -> str:
    """That no such architecture is this model, what the nearest has not, and what to train with instead."""
    named = ", ".join(f"{where}.{name}={getattr(config, name)}" for name in missing)
    cure = " ".join(f"--set {where}.{name}={_setting(value)}" for name, value in missing.items())
    return f"no {wanted} is this model; the nearest, {nearest}, has not {named}; train with {cure}"


def _setting(value: Any) -> str:
    """A value as --set takes it."""
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def adapt(
    config: TransformerConfig, weights: Mapping[str, Tensor], architecture: str
) -> tuple[TransformerConfig, dict[str, Tensor], tuple[str, ...]]:
    """The same function of the ids in an architecture's own terms, and in what the two differ otherwise."""
    notes, dropout = [], config.dropout
    config, added, zeros = with_biases(config, weights, architecture)
    if zeros:
        notes.append(f"{architecture} has more biases: they were written as zeros, which gives the same logits")
    if dropout and architecture not in ("gpt2", "gpt_neox", "starcoder2"):
        notes.append(f"dropout {dropout}, which acts in training only, was left out: {architecture} has none")
    return config, added, tuple(notes)


def tokenizer_files(tokenizer: Tokenizer, context_length: int, marks: Marks | None = None) -> dict[str, bytes]:
    """tokenizer.json and what tells transformers to take it as it is."""
    named: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context_length}
    if tokenizer.end_id is not None:
        named |= {"bos_token": END, "eos_token": END}
    if marks is not None:
        spelled = {id: text for text, id in tokenizer.specials.items()}
        first = {name: ids_of(id)[0] for name, id in marks.ids.items() if ids_of(id)}
        named |= {name.removesuffix("_id"): spelled[id] for name, id in first.items() if id in spelled}
        named |= marks.chat
    return {
        "tokenizer.json": tokenizer.to_json().encode(),
        "tokenizer_config.json": as_json({**named, "clean_up_tokenization_spaces": False}),
    }


def as_json(data: Mapping[str, Any]) -> bytes:
    """Indented, with a final newline."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()

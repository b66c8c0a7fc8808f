"""Write an encoder as transformers' BertModel, whatever it was read from: the same vectors from the same ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models.encoder import EncoderConfig
from windtunnel.models.pretrained.architectures import computes
from windtunnel.models.pretrained.encoders import ENCODERS, TYPES, encoder_config, encoder_parts
from windtunnel.models.pretrained.export import Exported, as_json, tokenizer_files
from windtunnel.models.pretrained.fields import take_fields
from windtunnel.models.pretrained.gpt2 import WRITTEN
from windtunnel.models.pretrained.parts import Part, bare, scatter
from windtunnel.text.tokenizers import Tokenizer

NAMES = ENCODERS["bert"]


def encoder_files(config: EncoderConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer | None) -> Exported:
    """config.json, model.safetensors and, with a tokenizer, its files, for `AutoModel.from_pretrained`.

    Raises:
        ConfigError: when BERT has not the encoder's settings, naming them.
    """
    d, notes = config.trunk.d_model, []
    added = {TYPES: torch.zeros(1, d)}
    if not config.pooler:
        added |= {"head.weight": torch.zeros(d, d), "head.bias": torch.zeros(d)}
        notes.append("BertModel has a pooler and this encoder has none: it was written as zeros; read the last vectors")
    tensors = scatter(bert_parts(config), {**weights, **added})
    files = {
        "config.json": as_json(_fields(config)),
        "model.safetensors": safetensors.torch.save(tensors, metadata={"format": "pt"}),
    }
    if tokenizer is not None:
        files |= tokenizer_files(tokenizer, config.context_length)
        if {"cls", "end"} <= tokenizer.marks.keys():
            files |= _with_marks(tokenizer, json.loads(files["tokenizer_config.json"]))
    return Exported(files, tuple(notes))


def bert_parts(config: EncoderConfig) -> list[Part]:
    """Our tensors and those of a BertModel with a pooler and one token type.

    Raises:
        ConfigError: as `encoder_files` does.
    """
    values = take_fields(_fields(config), NAMES.fields, "bert")
    ours, theirs = computes(config.body), computes(encoder_config(values, "bert", True, "bert").body)
    wrong = [name for name, value in ours.items() if theirs[name] != value]
    if wrong:
        named = ", ".join(f"{name}={ours[name]} (it has {theirs[name]})" for name in wrong)
        raise ConfigError(f"this encoder is no BertModel: its trunk has {named}; begin with one that is")
    return bare(encoder_parts(config.replace(pooler=True), "bert", 1), NAMES.prefix)


def _fields(config: EncoderConfig) -> dict[str, Any]:
    trunk = config.body
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": trunk.d_model,
        "num_hidden_layers": trunk.n_layers,
        "num_attention_heads": trunk.n_heads,
        "intermediate_size": trunk.ff_width,
        "hidden_act": WRITTEN.get(trunk.activation, "relu"),
        "hidden_dropout_prob": trunk.dropout,
        "attention_probs_dropout_prob": trunk.dropout,
        "max_position_embeddings": config.context_length,
        "layer_norm_eps": trunk.norm_epsilon,
        "type_vocab_size": 1,
    }


def _with_marks(tokenizer: Tokenizer, told: dict[str, Any]) -> dict[str, bytes]:
    """The tokenizer's files, which put a text between its marks, as an encoder reads it."""
    data = json.loads(tokenizer.to_json())
    spelled = {token["id"]: token["content"] for token in data["added_tokens"]}
    names = {"cls": "cls_token", "end": "sep_token", "pad": "pad_token", "mask": "mask_token"}
    marks = {names[name]: spelled[id] for name, id in tokenizer.marks.items() if name in names and id in spelled}
    cls, sep = ({"SpecialToken": {"id": marks[name], "type_id": 0}} for name in ("cls_token", "sep_token"))
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    ids = {marks["cls_token"]: tokenizer.marks["cls"], marks["sep_token"]: tokenizer.marks["end"]}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [cls, texts[0], sep],
        "pair": [cls, texts[0], sep, texts[1], sep],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in ids.items()},
    }
    told = {name: value for name, value in told.items() if name not in ("bos_token", "eos_token")} | marks
    return {"tokenizer.json": as_json(data), "tokenizer_config.json": as_json(told)}

"""A GPT-2 or Llama out of a GGUF file: settings, weights and tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from windtunnel.config import parse
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.models.pretrained.gguf import gpt2_parts, halves, llama_parts, rope_divisors
from windtunnel.models.pretrained.gguf_reader import GGUF, read_gguf
from windtunnel.models.pretrained.gguf_tokenizer import gguf_marks, gguf_tokenizer
from windtunnel.models.pretrained.huggingface import Pretrained
from windtunnel.models.pretrained.parts import check_tensors, gather
from windtunnel.models.transformer import TransformerConfig
from windtunnel.nn.positions import RopeScaling

EMBEDDING, HEAD, DIVISORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
BUFFERS = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd")
SHARED = {
    "context_length": "context_length", "block_count": "n_layers", "embedding_length": "d_model",
    "feed_forward_length": "d_ff", "attention.head_count": "n_heads", "attention.head_count_kv": "n_kv_heads",
}  # fmt: skip
OWN: dict[str, dict[str, str]] = {
    "gpt2": {**SHARED, "attention.layer_norm_epsilon": "norm_epsilon"},
    "llama": {**SHARED, "attention.layer_norm_rms_epsilon": "norm_epsilon", "rope.freq_base": "rope_base"},
}
"""The settings of an architecture that are ours, too, under another name."""

CHECKED = {
    "vocab_size", "attention.key_length", "attention.value_length", "rope.dimension_count", "rope.scaling.type",
    "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.finetuned", "tensor_data_layout",
}  # fmt: skip
"""Those that are read in another way, or say nothing of the logits."""
NEEDED = ("context_length", "block_count", "embedding_length", "attention.head_count")


def read_gguf_model(path: Path) -> Pretrained:
    """A model of llama.cpp's architectures gpt2 and llama; every setting and tensor of it is accounted for.

    Raises:
        ArtifactError: when the file is damaged, or asks for what this model cannot be.
        DataError: when its tokenizer is none, or has more tokens than the model.
    """
    file = read_gguf(path)
    origin = str(file.settings.get("general.architecture"))
    if origin not in OWN:
        raise ArtifactError(f"{path}: the architecture is {origin[:40]!r}; known are {', '.join(OWN)}")
    config, notes = _config(file, origin)
    if config.n_layers > len(file.tensors):
        raise ArtifactError(f"{path} says {config.n_layers:,} layers, and has {len(file.tensors):,} tensors")
    parts = list(gpt2_parts(config) if origin == "gpt2" else llama_parts(config))
    check_tensors(parts, {name: stored.shape for name, stored in file.tensors.items()}, BUFFERS, path)
    tokenizer = gguf_tokenizer(file.settings, path)
    if tokenizer.vocab_size > config.vocab_size:
        raise DataError(f"{path}: {tokenizer.vocab_size:,} tokens, and the embedding has {config.vocab_size:,} rows")
    kinds = sorted({stored.kind for stored in file.tensors.values()} - {"F32"})
    if kinds:
        notes.append(f"weights stored as {', '.join(kinds)} were read into float32")
    weights = gather(parts, lambda name: halves(name, file.read(name), config))
    return Pretrained(config, weights, tokenizer, origin, tuple(notes), gguf_marks(file.settings))


def _config(file: GGUF, origin: str) -> tuple[TransformerConfig, list[str]]:
    """Our settings, and what is worth saying."""
    given = {
        name.removeprefix(f"{origin}."): value for name, value in file.settings.items() if name.startswith(f"{origin}.")
    }
    unknown = [f"{name}={str(given[name])[:40]}" for name in given if name not in OWN[origin] and name not in CHECKED]
    unknown = [text for text in unknown if text not in ("expert_count=0", "expert_used_count=0")]
    missing = [name for name in NEEDED if name not in given]
    if unknown or missing:
        both = (("unknown here", unknown), ("missing", missing))
        told = [f"{kind}: {', '.join(names)}" for kind, names in both if names]
        raise ArtifactError(f"{file.path}: what its settings ask for cannot be honoured; {'; '.join(told)}")
    if EMBEDDING not in file.tensors:
        raise ArtifactError(f"{file.path} has no tensor {EMBEDDING}; it is incomplete, or no language model")
    settings = {ours: given[theirs] for theirs, ours in OWN[origin].items() if theirs in given}
    tied, notes = _tied(file)
    settings |= {
        "vocab_size": file.tensors[EMBEDDING].shape[0],
        "tie_embeddings": tied,
        "dropout": 0.0,
    }
    if origin == "llama":
        settings |= {"position": "rope", "norm": "rms", "activation": "swiglu"}
        parts = {"qkv": "attn_q", "out": "attn_output", "feed_forward": "ffn_up"}
        biases = {f"{part}_bias": f"blk.0.{name}.bias" in file.tensors for part, name in parts.items()}
        settings |= {"bias": False, **biases} if len(set(biases.values())) > 1 else {"bias": biases["qkv_bias"]}
        settings |= _heads(given, file)
        settings["rope_scaling"] = _scaling(given, file)
    try:
        config = parse(TransformerConfig, settings)
    except ConfigError as error:
        raise ArtifactError(f"{file.path} describes no model that can be built: {error}") from None
    if DIVISORS in file.tensors and config.rope_scaling and config.rope_scaling.kind == "llama3":
        _check_divisors(file, config)
    return config, notes


def _tied(file: GGUF) -> tuple[bool, list[str]]:
    """Whether the head is the token embedding: when it is missing, or the same numbers a second time."""
    embedding, head = file.tensors[EMBEDDING], file.tensors.get(HEAD)
    if head is None:
        return True, []
    if (head.shape, head.kind) != (embedding.shape, embedding.kind):
        return False, []
    if not torch.equal(file.read(HEAD), file.read(EMBEDDING)):
        return False, []
    del file.tensors[HEAD]
    return True, [f"{HEAD} is the token embedding a second time, and tied"]


def _heads(given: Mapping[str, Any], file: GGUF) -> dict[str, Any]:
    """The width of a head, all of which is turned."""
    d_model, n_heads = given["embedding_length"], given["attention.head_count"]
    usual = d_model // n_heads if isinstance(n_heads, int) and isinstance(d_model, int) and n_heads > 0 else None
    widths = {
        given.get(name, usual) for name in ("attention.key_length", "attention.value_length", "rope.dimension_count")
    }
    if len(widths) != 1:
        raise ArtifactError(
            f"{file.path}: keys, values and the part of a head that is turned have the widths "
            f"{', '.join(str(width) for width in widths)}; here they are one"
        )
    (width,) = widths
    return {"d_head": None if width == usual and d_model % n_heads == 0 else width}


def _scaling(given: Mapping[str, Any], file: GGUF) -> dict[str, Any] | None:
    """Rotary scaling; that of Llama 3 is known from the numbers in a tensor only."""
    kind, factor = given.get("rope.scaling.type", "none"), given.get("rope.scaling.factor", 1.0)
    if kind == "linear":
        return {"kind": "linear", "factor": factor}
    if kind != "none":
        raise ArtifactError(f"{file.path}: rope.scaling.type={kind!r} is not built in; known are none and linear")
    if DIVISORS not in file.tensors:
        return None
    divisors = file.read(DIVISORS)
    original = given.get("rope.scaling.original_context_length", 8192)
    return {"kind": "llama3", "factor": divisors.max().item(), "original_context_length": original}


def _check_divisors(file: GGUF, config: TransformerConfig) -> None:
    found, expected = file.read(DIVISORS), rope_divisors(config)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-5):
        assert isinstance(config.rope_scaling, RopeScaling)
        raise ArtifactError(
            f"{file.path}: {DIVISORS} is not Llama 3's scaling by {config.rope_scaling.factor:g} from a context of "
            f"{config.rope_scaling.original_context_length:,}; use the model's Hugging Face folder"
        )

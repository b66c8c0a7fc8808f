"""Read a Hugging Face folder: config.json, model.safetensors (or shards) and the tokenizer's files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from windtunnel.config import parse
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import read_given
from windtunnel.models.clip import CLIP, CLIPConfig
from windtunnel.models.encoder import Encoder, EncoderConfig
from windtunnel.models.pretrained import gpt2
from windtunnel.models.pretrained.architectures import ARCHITECTURES, Architecture
from windtunnel.models.pretrained.fields import Fields, computing, take_fields
from windtunnel.models.pretrained.marks import Marks, read_marks
from windtunnel.models.pretrained.parts import check_tensors, gather, listing
from windtunnel.models.pretrained.safetensors_files import INDEX, SINGLE, Entry, list_tensors, read_tensors
from windtunnel.models.transformer import Transformer, TransformerConfig
from windtunnel.text.tokenizers import Tokenizer

HEAD = "lm_head.weight"
OLD_HEAD = "embed_out.weight"
"""The head of a GPT-NeoX, as older versions and Pythia's files call it."""
_HEAD = re.compile(re.escape(HEAD))
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "encoder.json")


@dataclass(frozen=True)
class Pretrained:
    """A model from elsewhere.

    Attributes:
        weights: float32, under our names, each parameter of the config's model once.
        tokenizer: None when the folder has none that can be read.
        origin: its model_type: "gpt2", "llama", "bert", …
        notes: what was read otherwise than it was stored, or left out, a sentence each.
        marks: where its texts begin and end, and its conversations.
    """

    config: TransformerConfig | EncoderConfig | CLIPConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer | None
    origin: str
    notes: tuple[str, ...]
    marks: Marks


def read_huggingface(folder: Path) -> Pretrained:
    """A decoder of `ARCHITECTURES` out of a Hugging Face folder; every field and tensor is accounted for.

    Raises:
        ArtifactError: when config.json asks for something that this model cannot be, the weights are missing, pickled,
            incomplete, do not fit the config, or hold a NaN.
        DataError: when the tokenizer's files cannot be used or have more tokens than the model.
    """
    path = folder / "config.json"
    origin, data = read_fields(path, ARCHITECTURES)
    config, notes = _config(origin, data, path)
    weights, more = read_weights(folder, config, ARCHITECTURES[origin])
    tokenizer, about_tokenizer = tokenizer_of(folder, config.vocab_size)
    marks = read_marks(folder, data)
    if tokenizer is not None and tokenizer.end_id is None and not marks.ends(tokenizer):
        about_tokenizer.append(
            "config.json names no eos_token_id and the tokenizer has no <|endoftext|>, so generated text ends at its "
            "length only"
        )
    return Pretrained(config, weights, tokenizer, origin, (*notes, *more, *about_tokenizer), marks)


@overload
def to_model(config: TransformerConfig, weights: Mapping[str, Tensor]) -> Transformer: ...
@overload
def to_model(config: EncoderConfig, weights: Mapping[str, Tensor]) -> Encoder: ...
@overload
def to_model(config: CLIPConfig, weights: Mapping[str, Tensor]) -> CLIP: ...
def to_model(
    config: TransformerConfig | EncoderConfig | CLIPConfig, weights: Mapping[str, Tensor]
) -> Transformer | Encoder | CLIP:
    """The model with these weights, in evaluation mode; it takes the tensors themselves, not copies."""
    with torch.device("meta"):
        model = config.create()
    if not isinstance(model, CLIP):  # whose positions are weights
        trunk = model.trunk if isinstance(model, Encoder) else model
        trunk.position.build()  # what is no weight but a table (ALiBi's slopes) must be real
    model.load_state_dict(dict(weights), assign=True)
    return model.eval()


def _config(origin: str, data: Mapping[str, Any], path: Path) -> tuple[TransformerConfig, list[str]]:
    """Our config for the fields of a config.json, and what is worth saying.

    Raises:
        ArtifactError: when one of the fields cannot be honoured.
    """
    architecture = ARCHITECTURES[origin]
    values = take_fields(data, architecture.fields, path)
    try:
        config = parse(TransformerConfig, architecture.settings(values, path))
    except ConfigError as error:
        raise ArtifactError(f"{path} describes no model that can be built: {error}") from None
    return config, list(gpt2.notes(values)) if origin == "gpt2" else []


def read_fields(path: Path, known: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The model_type of a config.json, one of the known ones, and all of its fields."""
    try:
        data = json.loads(read_given(path, 1 << 24))
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.strerror}); expected a Hugging Face model's folder"
        ) from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path} is not JSON; expected a Hugging Face model's config.json") from None
    origin = data.get("model_type") if isinstance(data, dict) else None
    if not isinstance(origin, str) or origin not in known:
        shown = repr(origin)[:60]
        raise ArtifactError(f"{path}: model_type {shown} is not one that can be read: {', '.join(known)}")
    return origin, data


def link_what_computes(source: Path, folder: Path, fields: Mapping[str, Fields]) -> None:
    """Give `folder` what decides the logits of the model in `source`: its weights, and its known fields only.

    Whatever else lies in `source`, code above all, another program that reads `folder` does not see.

    Args:
        fields: of every architecture, by its model_type.

    Raises:
        ArtifactError: when config.json or the weights cannot be read.
    """
    (folder / "config.json").write_text(known_config(source / "config.json", fields), encoding="utf-8")
    link_weights(source, folder)


def link_weights(source: Path, folder: Path) -> None:
    """Give `folder` the weights of the model in `source`. Raises ArtifactError when they cannot be read."""
    entries = list_tensors(source)
    files = {entry.file for entry in entries.values()}
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
    if {file.name for file in files} != {SINGLE}:
        places = {name: entry.file.name for name, entry in entries.items()}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def known_config(path: Path, fields: Mapping[str, Fields]) -> str:
    """The known fields of a config.json, as JSON. Raises ArtifactError as `read_fields` does."""
    origin, data = read_fields(path, fields)
    no_marks = {"bos_token_id": None, "eos_token_id": None}  # else transformers warns of its own in a small vocabulary
    return json.dumps(computing(data, fields[origin]) | no_marks)


def read_weights(
    folder: Path, config: TransformerConfig, architecture: Architecture
) -> tuple[dict[str, Tensor], list[str]]:
    """Our weights in float32 out of a folder's safetensors files, every tensor used exactly once, and notes.

    Raises:
        ArtifactError: listing what does not fit, before any tensor is read.
    """
    entries = canonical(list_tensors(folder), architecture.prefix, folder, _HEAD)
    if config.n_layers > len(entries):
        raise ArtifactError(
            f"{folder}: config.json says {config.n_layers} layers, and there are {len(entries)} tensors"
        )
    parts = list(architecture.parts(config))
    head = entries.pop(HEAD, None) if config.tie_embeddings else None
    check_tensors(parts, {name: entry.shape for name, entry in entries.items()}, architecture.buffers, folder)
    used = {name: entries[name] for part in parts for name in part.theirs}
    notes = []
    if head is not None:
        _check_tied(head, used[parts[0].theirs[0]], folder)
        notes.append(f"{HEAD} is the token embedding a second time, and tied")
    buffers = sorted({re.sub(r"\d+", "*", name) for name in entries.keys() - used.keys()})
    if buffers:
        notes.append(f"buffers that can be computed were left out: {listing(buffers)}")
    narrow = sorted({entry.dtype for entry in used.values()} - {"F32"})
    if narrow:
        notes.append(f"weights stored as {', '.join(narrow)} were read into float32")
    tensors = read_tensors(used)
    return gather(parts, lambda name: architecture.inward(name, tensors.pop(name), config)), notes


def canonical(entries: Mapping[str, Entry], prefix: str, folder: Path, heads: re.Pattern[str]) -> dict[str, Entry]:
    """The tensors by the names that they have in the model with a head: the bare model's lack the prefix."""
    named: dict[str, Entry] = {}
    for stored, entry in entries.items():
        name = HEAD if stored == OLD_HEAD else stored
        full = name if heads.fullmatch(name) or name.startswith(prefix) else prefix + name
        if full in named:
            twice = listing([named[full].name, stored])
            raise ArtifactError(f"{folder} has the tensor {listing([full])} twice, as {twice}; remove one")
        named[full] = entry
    return named


def _check_tied(head: Entry, embedding: Entry, folder: Path) -> None:
    """A head that is stored although it is tied must equal the embedding."""
    if head.shape == embedding.shape:
        read = read_tensors({"head": head, "embedding": embedding})
        if torch.equal(read["head"], read["embedding"]):
            return
    raise ArtifactError(
        f"{folder}: config.json ties the head to the token embedding, and {HEAD} is another tensor; "
        "set tie_word_embeddings to false in config.json if the head is meant"
    )


def tokenizer_of(
    folder: Path, vocab_size: int, other: Callable[[], Tokenizer] | None = None
) -> tuple[Tokenizer | None, list[str]]:
    """The folder's tokenizer, if there is one, and how its vocabulary compares with the embedding.

    Args:
        other: makes it of other files than `TOKENIZER_FILES`.

    Raises:
        DataError: when it cannot be used, or has tokens that the embedding has no row for.
    """
    if other is None and not any((folder / name).exists() for name in TOKENIZER_FILES):
        return None, [f"no tokenizer: the folder has none of {', '.join(TOKENIZER_FILES)}"]
    tokenizer = Tokenizer.load(folder) if other is None else other()
    if tokenizer.vocab_size > vocab_size:
        raise DataError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model's embedding {vocab_size:,} "
            "rows; use the tokenizer that the model was trained with"
        )
    notes = []
    if tokenizer.vocab_size < vocab_size:
        notes.append(f"the embedding has {vocab_size - tokenizer.vocab_size} rows more than the tokenizer tokens")
    return tokenizer, notes

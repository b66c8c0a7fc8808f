"""What came with a model from elsewhere beside its weights: where its texts begin and end, and its conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windtunnel.files import read_given
from windtunnel.text.tokenizers import Tokenizer

CHAT, TEMPLATE, GENERATION = "tokenizer_config.json", "chat_template.jinja", "generation_config.json"
CHAT_FIELDS = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
LARGEST = 1 << 22
"""Bytes of a file that is read here."""


@dataclass(frozen=True)
class Marks:
    """What a run keeps of it in its record, for generating and for its export.

    Attributes:
        chat: chat_template and special tokens, as tokenizer_config.json names them; those that are known.
        ids: bos_token_id, eos_token_id and pad_token_id of config.json: an id, or a list of them.
        generation: generation_config.json as it was; empty where there is none.
    """

    chat: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)

    def ends(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The ids that end a text, by any of the three; ids that the tokenizer has not are left out."""
        given = [self.ids.get("eos_token_id"), self.generation.get("eos_token_id")]
        given.append(tokenizer.specials.get(self.chat.get("eos_token", "")))
        return frozenset(id for one in given for id in ids_of(one) if id < tokenizer.vocab_size)

    def to_record(self) -> dict[str, Any]:
        """For the record of a run; `marks_of` reads it."""
        return {"chat": dict(self.chat), "marks": dict(self.ids), "generation": dict(self.generation)}


def marks_of(record: Mapping[str, Any]) -> Marks | None:
    """Those of a run that was imported, or begun from one; None of another run."""
    found = [record.get(name) or {} for name in ("chat", "marks", "generation")]
    return Marks(*found) if "chat" in record and all(isinstance(one, dict) for one in found) else None


def ids_of(given: Any) -> list[int]:
    """The ids that a file gives as one or as a list."""
    return [id for id in (given if isinstance(given, list) else [given]) if type(id) is int and id >= 0]


def read_marks(folder: Path, config: Mapping[str, Any]) -> Marks:
    """Those of a Hugging Face folder, where they can be read.

    Args:
        config: all fields of its config.json.
    """
    told = _table(folder / CHAT)
    if (folder / TEMPLATE).exists():
        told["chat_template"] = _text(folder / TEMPLATE)
    if isinstance(named := told.get("chat_template"), list):  # several by name, once: [{"name": …, "template": …}]
        templates = [one for one in named if isinstance(one, dict)]
        told["chat_template"] = next((one.get("template") for one in templates if one.get("name") == "default"), None)
    given = {name: told.get(name) for name in CHAT_FIELDS}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in given.items()}
    return Marks(
        {name: text for name, text in texts.items() if isinstance(text, str)},
        {name: config[name] for name in IDS if ids_of(config.get(name))},
        _table(folder / GENERATION),
    )


def _table(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str | None:
    try:
        return read_given(path, LARGEST)
    except (OSError, UnicodeDecodeError):
        return None

"""Older tokenizer files of GPT-2 and CLIP, vocab.json and merges.txt with what is beside them, as a tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from windtunnel.errors import DataError
from windtunnel.files import read_given
from windtunnel.text.tokenizer_json import CLIP_BEGIN, END

LARGEST = 1 << 28
"""Bytes of a tokenizer file."""
BESIDE = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
"""What may lie beside the two files, and decides ids as well."""
WORD_END = "</w>"
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def read_text(path: Path) -> str:
    """The text of a tokenizer's file.

    Raises:
        DataError: when it cannot be read, or is not UTF-8.
    """
    try:
        return read_given(path, LARGEST)
    except OSError as error:
        raise DataError(f"{path}: cannot read this tokenizer file ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a tokenizer file, it is not UTF-8 at byte {error.start}") from None


def from_vocab_files(vocab_file: Path, merges_file: Path) -> str:
    """The tokenizer.json of GPT-2 style files: token -> id as JSON, and one merge a line after `#version`.

    As in transformers, tokenizer_config.json (`add_prefix_space`, `add_bos_token`, `added_tokens_decoder`),
    added_tokens.json and special_tokens_map.json beside them are respected.

    Raises:
        DataError: when a file cannot be read, or is not what its name says.
    """
    vocab = _table(vocab_file, "GPT-2's vocab.json (token -> id)")
    lines = read_text(merges_file).split("\n")
    merges = [line.split(" ") for line in lines[lines[0].startswith("#version") :] if line]
    told, ids, named = (
        _table(path, "a table") if (path := vocab_file.parent / name).exists() else {} for name in BESIDE
    )
    like_clip = CLIP_BEGIN in vocab and any(token.endswith(WORD_END) for token in vocab)
    special = {END, *_texts(told), *_texts(named), *([CLIP_BEGIN] if like_clip else [])}
    numbers = {**vocab, **ids}
    added = {text: {"id": numbers[text], "special": text in special} for text in [*ids, *special] if text in numbers}
    try:
        added |= {one["content"]: {**one, "id": int(id)} for id, one in told.get("added_tokens_decoder", {}).items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        raise DataError(
            f"{vocab_file.parent / BESIDE[0]}: added_tokens_decoder must hold a token with id each"
        ) from None
    for text, one in added.items():
        if type(one["id"]) is not int:
            raise DataError(f"{vocab_file.parent}: the id of {text!r} is {one['id']!r}, expected a whole number")
    first = _texts({"bos_token": told.get("bos_token", END)}) if told.get("add_bos_token") is True else []
    given = [{**_FLAGS, **one, "content": text} for text, one in added.items()]
    given.sort(key=lambda one: one["id"])
    if like_clip:
        return clip_words(vocab, merges, given)
    return byte_level(vocab, merges, True, given, told.get("add_prefix_space") is True, first[0] if first else None)


def byte_level(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    use_regex: bool,
    added: Sequence[Mapping[str, Any]] | None = None,
    prefix_space: bool = False,
    begin: str | None = None,
) -> str:
    """The tokenizer.json of a byte-level BPE; as JSON, so that it is checked before Rust sees it.

    Args:
        use_regex: whether text is cut into GPT-2's words.
        added: as tokenizer.json lists them; None is the end mark, where the vocabulary has it.
        prefix_space: whether a text without a first space gets one.
        begin: the token to be put in front of every text.
    """
    pre = {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": True, "use_regex": use_regex}
    if added is None:
        added = [{"id": vocab[END], "content": END, **_FLAGS, "special": True}] if END in vocab else []
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    data: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": pre,
        "decoder": {**pre, "add_prefix_space": True, "use_regex": True},
        "model": {**model, "vocab": vocab, "merges": merges},
    }
    ids = {**vocab, **{one["content"]: one["id"] for one in added}}
    if begin is not None and begin in ids:
        data["post_processor"] = begin_with(begin, ids[begin])
    return json.dumps(data)


def clip_words(vocab: Mapping[str, int], merges: Sequence[Sequence[str]], added: Sequence[Mapping[str, Any]]) -> str:
    """The tokenizer.json of CLIP's BPE, as transformers has it: small letters, words that end in </w>."""
    data = json.loads(byte_level(vocab, merges, True, added))
    cut = {"type": "Split", "pattern": {"Regex": _CLIP_WORDS}, "behavior": "Removed", "invert": True}
    space = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, space, {"type": "Lowercase"}]}
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, data["pre_tokenizer"]]}
    data["model"] |= {"unk_token": END, "continuing_subword_prefix": "", "end_of_word_suffix": WORD_END}
    return json.dumps(data)


def begin_with(text: str, id: int) -> dict[str, Any]:
    """The post-processor that puts a token in front of every text."""
    first, texts = {"SpecialToken": {"id": text, "type_id": 0}}, [{"Sequence": {"id": x, "type_id": 0}} for x in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [first, texts[0]],
        "pair": [first, texts[0], first, texts[1]],
        "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
    }


def _table(path: Path, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: not JSON; expected {expected}")
    return found


def _texts(named: Mapping[str, Any]) -> list[str]:
    """The special tokens that a table of them names."""
    more = named.get("additional_special_tokens")
    given = [value for name, value in named.items() if name.endswith("_token")] + (more if type(more) is list else [])
    texts = [value.get("content") if isinstance(value, dict) else value for value in given]
    return [text for text in texts if isinstance(text, str)]

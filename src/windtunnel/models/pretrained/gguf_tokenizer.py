"""The tokenizer of a GGUF file as a tokenizer.json: SentencePiece's, or a byte-level BPE with words as the file names.

Of a byte-level BPE GGUF stores tokens, merges and, of what cuts a text into words, the name alone
(`tokenizer.ggml.pre`); what stands behind a name is in llama.cpp's llama-vocab.cpp. A name that is not known here is
refused: other words, other ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from windtunnel.errors import ArtifactError, DataError
from windtunnel.models.pretrained.gguf_sentencepiece import sentencepiece
from windtunnel.models.pretrained.marks import Marks, ids_of
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.text.vocab_files import begin_with

NO_MERGE = "! !"
"""llama.cpp wants at least one merge; this one makes no token of the vocabulary, so it is taken apart again."""

_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


_SPLIT = {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False}
_SINGLE_DIGITS = _sequence({"type": "Digits", "individual_digits": True}, {**_BYTES, "use_regex": True})
_LLAMA3_WORDS = _sequence(_SPLIT, {**_BYTES, "use_regex": False})

WORDS: dict[str, dict[str, Any]] = {
    "gpt-2": {**_BYTES, "use_regex": True},
    "smollm": _SINGLE_DIGITS,
    "llama-bpe": _LLAMA3_WORDS,
    "llama3": _LLAMA3_WORDS,
}
"""What cuts a text into words, by the name of it."""
_BEGUN = ("llama-bpe", "llama3")


def gguf_tokenizer(settings: Mapping[str, Any], where: object) -> Tokenizer:
    """The tokenizer among the settings of a GGUF file; rows at the end that no token uses are left out.

    Raises:
        ArtifactError: for another kind than a byte-level BPE or SentencePiece's, an unknown pre-tokenizer, or lists
            that do not fit.
        DataError: when the lists are no tokenizer.
    """
    model = settings.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise ArtifactError(
            f"{where}: its tokenizer is of the kind {str(model)[:40]!r}; a byte-level BPE (gpt2) and SentencePiece's "
            "(llama) are read, so use the model's Hugging Face folder"
        )
    tokens = _texts(settings, "tokens", where)
    kinds = _numbers(settings, "token_type", where)
    if kinds is None:
        kinds = [_NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise ArtifactError(f"{where}: it has {len(tokens):,} tokens and {len(kinds):,} types of tokens")
    while kinds and kinds[-1] == _UNUSED:
        kinds.pop()
    tokens = tokens[: len(kinds)]
    if len(set(tokens)) < len(tokens):
        raise ArtifactError(f"{where}: a token is there twice")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": token, **flags, "special": kind == _CONTROL}
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER)
    ]
    if model == "llama":
        begun = bool(settings.get("tokenizer.ggml.add_space_prefix", True))
        parts = sentencepiece(tokens, kinds, _numbers(settings, "scores", where) or [], begun, where)
    else:
        parts = _bpe(settings, tokens, where)
    try:
        return Tokenizer.from_json(
            json.dumps({"version": "1.0", "added_tokens": added, **parts, **_front(settings, tokens)})
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _bpe(settings: Mapping[str, Any], tokens: Sequence[str], where: object) -> dict[str, Any]:
    """The parts of a tokenizer.json of a byte-level BPE."""
    pre = str(settings.get("tokenizer.ggml.pre"))
    if pre not in WORDS:
        raise ArtifactError(
            f"{where}: its pre-tokenizer is {pre[:40]!r}, and the file says no more of it; known are "
            f"{', '.join(WORDS)}; use the model's Hugging Face folder, which has the tokenizer whole"
        )
    merges = _texts(settings, "merges", where)
    whole = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    return {
        "normalizer": None,
        "pre_tokenizer": WORDS[pre],
        "decoder": {**_BYTES, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            **whole,
            "ignore_merges": WORDS[pre] is _LLAMA3_WORDS,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [] if merges == [NO_MERGE] else [merge.split(" ") for merge in merges],
        },
    }


def gguf_marks(settings: Mapping[str, Any]) -> Marks:
    """Where texts begin and end and the template of a conversation, as a Hugging Face folder names them."""
    tokens = settings.get("tokenizer.ggml.tokens")
    chat: dict[str, str] = {}
    ids: dict[str, Any] = {}
    for name, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        number = settings.get(f"tokenizer.ggml.{theirs}_token_id")
        if isinstance(tokens, list) and type(number) is int and 0 <= number < len(tokens):
            chat[f"{name}_token"], ids[f"{name}_token_id"] = tokens[number], number
    if ids_of(turn := settings.get("tokenizer.ggml.eot_token_id")) and turn != ids.get("eos_token_id"):
        ids["eos_token_id"] = [*ids_of(ids.get("eos_token_id")), turn]
    template = settings.get("tokenizer.chat_template")
    return Marks({**chat, "chat_template": template} if isinstance(template, str) else chat, ids)


def _front(settings: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """The post-processor that puts the begin token in front, where the file wants it.

    Where it says nothing llama.cpp does so for SentencePiece's and Llama 3's tokenizers.
    """
    usual = settings.get("tokenizer.ggml.model") == "llama" or settings.get("tokenizer.ggml.pre") in _BEGUN
    number = settings.get("tokenizer.ggml.bos_token_id", 1 if usual else None)
    if not settings.get("tokenizer.ggml.add_bos_token", usual) or type(number) is not int:
        return {}
    return {"post_processor": begin_with(tokens[number], number)} if 0 <= number < len(tokens) else {}


def _texts(settings: Mapping[str, Any], name: str, where: object) -> list[str]:
    given = settings.get(f"tokenizer.ggml.{name}")
    if not isinstance(given, list):
        raise ArtifactError(f"{where}: it has no tokenizer.ggml.{name}, so no text can be turned into ids")
    return given


def _numbers(settings: Mapping[str, Any], name: str, where: object) -> list[float] | None:
    """A list of numbers; None where there is none."""
    given = settings.get(f"tokenizer.ggml.{name}")
    try:
        return None if given is None else [float(number) for number in given]
    except (TypeError, ValueError):
        raise ArtifactError(f"{where}: tokenizer.ggml.{name} is no list of numbers; download the file again") from None

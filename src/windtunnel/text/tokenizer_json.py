"""Check a Hugging Face `tokenizer.json` before Rust reads it, and read off what it is.

The library panics on some files and takes others that would break later (ids that are there twice, dropout), so the
parts that must fit together are checked here: model type, ids, merges that refer to the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from windtunnel.errors import DataError

END = "<|endoftext|>"
MARKS = {END: "end", **{f"<|{name}|>": name for name in ("begin", "turn", "cls", "pad")}}
"""How the special marks are spelled in a tokenizer.json, and their names. All but the end are marks only where the file
calls them special: others would be read out of a user's text."""
ENCODER_MARKS = (
    {"[MASK]": "mask", "[CLS]": "cls", "[SEP]": "end", "[PAD]": "pad"},
    {"<mask>": "mask", "<s>": "cls", "</s>": "end", "<pad>": "pad"},
)
"""The marks of BERT's and RoBERTa's tokenizers: a text stands between cls and end. The first tells the kind."""
MOST_HOLES = 2
"""How many times as large as the number of tokens the ids may be: models with room for later tokens leave some out."""
CLIP_BEGIN = "<|startoftext|>"
"""Stands before a text in CLIP's tokenizers, whose words end in a suffix."""
_CHARACTERS = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}


@dataclass(frozen=True)
class Structure:
    """What a tokenizer.json is.

    Attributes:
        vocab_size: one more than the largest id; some before it may have no token.
        marks: the ids of the special marks that it has, by name.
        byte_level: tokens are spelled in GPT-2's byte characters.
        gpt2_words: text is cut into words by GPT-2's expression and nothing else, so no token crosses from a
            character to white space behind it.
        complete: every text has tokens (all 256 bytes are in the vocabulary).
        keeps_text: nothing alters the text before it is tokenized, so a character without a token is unknown.
        unknown_id: the id that stands for what has no token, if there is one and a text with it is to be refused.
        byte_ids: the tokens <0x00> to <0xFF> that stand for bytes, where the decoder reads a run of them as one text.
        has_holes: some ids below vocab_size have no token.
        has_words: a token is a whole word, and a word that is none has no parts that are.
        word_end: what the last token of a word ends in, "" where there is no such thing.
    """

    kind: str
    vocab_size: int
    marks: Mapping[str, int]
    byte_level: bool
    gpt2_words: bool
    complete: bool
    keeps_text: bool
    unknown_id: int | None
    byte_ids: frozenset[int]
    has_holes: bool
    has_words: bool
    word_end: str


def byte_characters() -> list[str]:
    """GPT-2's printable character for each byte value 0 .. 255 (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def check_structure(text: str) -> Structure:
    """Check the JSON of a tokenizer and say what it is.

    Raises:
        DataError: what is wrong in one sentence.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError("not a tokenizer.json: it is not JSON; give a file of the tokenizers library") from None
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise DataError("not a tokenizer.json: expected an object with a model and its vocabulary")
    kind = model.get("type", "BPE" if "merges" in model else "WordLevel")
    if kind not in ("BPE", "WordLevel", "WordPiece", "Unigram"):
        raise DataError(f"model type {kind!r} is unknown; expected BPE, WordLevel, WordPiece or Unigram")
    vocab = _vocabulary(kind, model["vocab"])
    ids = {**vocab, **_added(data.get("added_tokens"))}
    _check_ids(ids)
    if kind == "BPE":
        _check_bpe(model, vocab)
    special = {END, *(token["content"] for token in data.get("added_tokens") or [] if token.get("special"))}
    marks = {name: ids[text] for text, name in MARKS.items() if text in special & ids.keys()}
    for spelled in ENCODER_MARKS:
        if spelled.keys() <= special & ids.keys():
            marks |= {name: ids[text] for text, name in spelled.items()}
    if model.get("end_of_word_suffix") and CLIP_BEGIN in special & ids.keys():
        marks["cls"] = ids[CLIP_BEGIN]
    return _structure(data, model, kind, vocab, ids, marks)


def fixed_ids(text: str) -> str:
    """The JSON of a tokenizer with holes, with its added tokens in the vocabulary, too.

    The library would number those that are not there anew, whatever id they have.
    """
    data = json.loads(text)
    if isinstance(vocab := data["model"]["vocab"], dict):
        vocab |= _added(data.get("added_tokens"))
    return json.dumps(data)


def _vocabulary(kind: str, vocab: Any) -> dict[str, int]:
    if kind == "Unigram" and isinstance(vocab, list):
        if all(isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) for v in vocab):
            return {entry[0]: number for number, entry in enumerate(vocab)}
    elif isinstance(vocab, dict) and all(type(number) is int for number in vocab.values()):
        return dict(vocab)
    raise DataError(f"the vocabulary of this {kind} model is not a table of tokens and whole numbers")


def _added(added: Any) -> dict[str, int]:
    try:
        tokens = [(token["content"], token["id"]) for token in added or []]
    except (TypeError, KeyError):
        raise DataError("added_tokens must be a list of objects with content and id") from None
    for content, number in tokens:
        if not isinstance(content, str) or not content or type(number) is not int:
            given = f"{str(content)[:60]!r} and {str(number)[:60]!r}"
            raise DataError(f"added_tokens must have text as content and a whole number as id, given {given}")
    ids = dict(tokens)
    if len(ids) < len(tokens):
        raise DataError("added_tokens has a token twice; each must be there once")
    return ids


def _check_ids(ids: dict[str, int]) -> None:
    if not ids:
        raise DataError("the vocabulary is empty")
    numbers = sorted(ids.values())
    wrong = next((b for a, b in zip([-1, *numbers], numbers, strict=False) if a >= b), None)
    if wrong is not None:
        raise DataError(
            f"the ids of tokens must be whole numbers from 0 on, each once; {wrong} is wrong or there twice"
        )
    if numbers[-1] >= MOST_HOLES * len(ids):
        raise DataError(
            f"the ids of {len(ids)} tokens may leave out some, and here they go up to {numbers[-1]}; use the tokenizer "
            "that the model was trained with"
        )


def _check_bpe(model: dict[str, Any], vocab: dict[str, int]) -> None:
    if model.get("dropout"):
        raise DataError("BPE dropout would encode the same text differently each time; set dropout to null")
    prefix = model.get("continuing_subword_prefix") or ""
    merges = model.get("merges", [])
    if not isinstance(merges, list) or not isinstance(prefix, str):
        raise DataError("the merges of this BPE model are not a list")
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise DataError(f"merge {number} is not a pair of tokens: {str(merge)[:60]!r}")
        for part in (*pair, pair[0] + pair[1][len(prefix) :]):
            if part not in vocab:
                raise DataError(f"merge {number} needs the token {part[:60]!r}, which the vocabulary has not")
        if not pair[1].startswith(prefix):
            raise DataError(f"merge {number}: {pair[1][:60]!r} does not start with the prefix {prefix!r}")


def _structure(
    data: dict[str, Any],
    model: dict[str, Any],
    kind: str,
    vocab: dict[str, int],
    ids: dict[str, int],
    marks: Mapping[str, int],
) -> Structure:
    pre, keeps_text = data.get("pre_tokenizer") or {}, not data.get("normalizer")
    byte_level = "'ByteLevel'" in str(pre) and "'ByteLevel'" in str(data.get("decoder"))
    word_end = str(model.get("end_of_word_suffix") or "")
    spelled = {byte + end for byte in byte_characters() for end in {"", word_end}}
    all_bytes = byte_level and kind == "BPE" and vocab.keys() >= spelled
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    plain = isinstance(pre, dict) and keeps_text and not affixes and ids.keys() - vocab.keys() <= {END}
    gpt2 = plain and pre.get("type") == "ByteLevel" and not pre.get("add_prefix_space", True)
    unknown = model.get("unk_id") if kind == "Unigram" else ids.get(str(model.get("unk_token")))
    unknown = None if kind == "WordPiece" else unknown  # there it is a word like any other
    words = bool(gpt2 and all_bytes and pre.get("use_regex", True))
    order = sorted(ids, key=ids.__getitem__)
    rest = order[1:] if order[0] == END else order
    unmarked = dropwhile(lambda token: MARKS.get(token) in marks, order)
    if gpt2 and kind == "BPE" and rest == byte_characters() and not model.get("merges"):
        ours = "bytes"
    elif plain and kind == "WordLevel" and pre == _CHARACTERS and all(len(token) == 1 for token in unmarked):
        ours = "characters"
    elif words and len(ids) == 50257 and ids.get(END) == 50256:
        ours = "gpt2"
    else:
        ours = "bpe" if words and ids.get(END) == 0 else "file"
    names = [f"<0x{byte:02X}>" for byte in range(256)] if "'ByteFallback'" in str(data.get("decoder")) else []
    bytes_ = frozenset(vocab[name] for name in names if name in vocab)
    return Structure(
        kind=ours,
        vocab_size=max(ids.values()) + 1,
        marks=marks,
        byte_level=byte_level,
        gpt2_words=words,
        complete=all_bytes,
        keeps_text=keeps_text,
        unknown_id=unknown,
        byte_ids=bytes_,
        has_holes=max(ids.values()) >= len(ids),
        has_words=kind == "WordLevel" and ours != "characters",
        word_end=word_end,
    )

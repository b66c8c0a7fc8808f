"""The token store: a corpus as memory-mapped ids, split, cached by the hash of its content.

A store is a folder in the cache: `tokenizer.json`; for each split raw little-endian ids (`train.ids.bin`,
uint16 or uint32) and for documents offsets (`train.offsets.bin`, int64); of captions the places of their pictures
(`train.pictures.bin`, int32) in `pictures.json`, a list of names; and `manifest.json`, written last,
with the size and SHA-256 of each file and the SHA-256 of its own content. A process that opens a store compares them
all, the hashes of the files once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from windtunnel.config import Config
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import discard, open_regular, read_file
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.text.splits import SPLITS, is_captioned, is_labelled
from windtunnel.text.tokenizers import Tokenizer, open_tokenizer

if TYPE_CHECKING:
    from windtunnel.text.corpora import Corpus
    from windtunnel.text.store_build import Content

FORMAT = 1
MADE_HERE = ("bytes", "characters", "bpe")  # made from the corpus; anything else is read from files
PICTURES = "pictures.json"
LARGEST_MANIFEST = 1 << 20
"""Bytes; a manifest that is larger is none, and is not read into memory."""
log = logging.getLogger(__name__)
_verified: dict[Path, list[tuple[int, int, int]]] = {}  # stores whose hashes were right, by their files' stamps


class TextConfig(Config):
    """How a corpus becomes ids."""

    added: ClassVar[frozenset[str]] = frozenset({"shuffle_seed", "columns"})
    unit: Literal["auto", "text", "file", "line"] = "auto"
    """What a document is; `auto` is the corpus's own unit. (`open_corpus` takes it.)"""
    tokenizer: str = "auto"
    """auto, bytes, characters, bpe, gpt2, or the path of a tokenizer.json or of a folder with it or with GPT-2's two
    files. `auto` is bpe for `pets`, for captions and for files; for other text characters where it has at most 256
    different ones, else bpe."""
    vocab_size: int = Field(4096, ge=257)
    """The most tokens a trained bpe may have; only for bpe, whose training cuts words of more than 2,048 characters."""
    dev_fraction: float = Field(0.05, ge=0, lt=1)
    """The share of documents (running text: of bytes) held out as the dev split, which evaluations in training read."""
    test_fraction: float = Field(0.05, ge=0, lt=1)
    """The share of documents (running text: of bytes) held out as the test split, which training never reads."""
    shuffle_seed: int | None = Field(None, ge=0)
    """None splits documents by a hash of their content, labelled texts within each label. A number puts them into the
    order of Python's `random.seed(number); random.shuffle(documents)` and cuts there, as published scripts do; all are
    then in memory while the store is built, and equal documents may land in different splits (pairs of one source stay
    together)."""
    columns: dict[str, str] | None = None
    """Of a .tsv, .csv, .jsonl or .parquet file the column of each field, where they have other names than the fields:
    {"source": "en", "target": "de"}, {"text": "review", "label": "stars"}, {"picture": "file", "caption": "title"};
    {"text": "body"} alone makes each row a document. A third field, split, is the column that says train, dev or test
    of each labelled text or caption; pictures of one group, a further field of captions, stay together."""

    @model_validator(mode="after")
    def _leave_some(self) -> Self:
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"dev_fraction {self.dev_fraction} + test_fraction {self.test_fraction} leave nothing to "
                "train on; expected a sum below 1"
            )
        return self


@dataclass(frozen=True)
class Split:
    """One split as ids, memory-mapped.

    ids: (n,) uint16 or uint32. Lines are stored without end marks, files each followed by one, text has none.
    offsets: (n_documents + 1,) int64: document i is ids[offsets[i]:offsets[i + 1]]; None for running text.
    n_bytes: UTF-8 bytes of the text that the ids stand for; a line counts its newline, an end mark counts 0.
    labels: (n_documents,) int32, of each document its place in the store's labels; None where there are no labels.
    pictures: (n_documents,) int32, of each caption the place of its picture in the store's pictures; None where there
        are none. The first caption of a picture is its main one.
    """

    ids: np.ndarray
    offsets: np.ndarray | None
    n_bytes: int
    labels: np.ndarray | None = None
    pictures: np.ndarray | None = None


@dataclass(frozen=True)
class TokenStore:
    """A corpus as ids. sha256: of the corpus's content, pictures included. folder: where the store is in the cache.

    labels: the different labels of labelled texts, sorted; the ids are then those of the texts alone.
    pictures: the names of all pictures of captions, sorted; the ids are then those of the captions alone.
    parts: of a mix the store of each corpus, in the order of the corpus' parts; `folder` is then the first one's.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    sha256: str
    splits: Mapping[str, Split]
    folder: Path
    labels: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    parts: tuple[TokenStore, ...] = ()

    @property
    def unit(self) -> Literal["auto", "text", "file", "line"]:
        """The unit that a run records; of a mix `auto` where its corpora have different ones, or are of files."""
        units = {part.corpus.unit for part in self.parts}
        return "auto" if len(units) > 1 or "file" in units else self.corpus.unit

    def documents(self, split: str) -> Iterator[str]:
        """The texts of a split's documents, in its order; not for running text, which has none."""
        part = self.splits[split]
        assert part.offsets is not None
        for first, last in pairwise(part.offsets.tolist()):
            yield self.tokenizer.decode(part.ids[first:last])


class FileEntry(BaseModel):
    """What the manifest says of one file."""

    model_config = ConfigDict(frozen=True)
    bytes: int
    sha256: str


class SplitEntry(BaseModel):
    """What the manifest says of one split; n_documents is None for running text."""

    model_config = ConfigDict(frozen=True)
    n_bytes: int
    n_ids: int
    n_documents: int | None


class Manifest(BaseModel):
    """`manifest.json` of a store. One that does not state the right SHA-256 of itself is damaged; older versions wrote
    none, and their stores are built again."""

    model_config = ConfigDict(frozen=True)
    format: int
    corpus: str
    unit: str
    sha256: str
    dtype: Literal["<u2", "<u4"]
    splits: dict[str, SplitEntry]
    files: dict[str, FileEntry]
    labels: tuple[str, ...] = ()
    n_pictures: int = 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def own_sha256(self) -> str:
        """SHA-256 of all other fields, as JSON with sorted keys."""
        rest = self.model_dump(exclude={"own_sha256", *self.newer} | (set() if self.labels else {"labels"}))
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()

    @property
    def newer(self) -> set[str]:
        """The fields that a manifest without pictures has not, as when it was written before there were any."""
        return set() if self.n_pictures else {"n_pictures"}


def prepare(
    corpus: Corpus,
    config: TextConfig,
    cache: Path | None = None,
    tokenizer: Tokenizer | None = None,
    content: Content | None = None,
) -> TokenStore:
    """The token store of a corpus: out of the cache, or built now in a few passes over the text.

    One pass hashes the content. Only when no store of that content and these settings is in the cache is
    anything tokenized: bpe is trained in a second pass, ids are written in the last. No pass holds more than
    a few MiB of text (a unit of `file` holds one document).

    Args:
        cache: the cache folder; None is $WINDTUNNEL_CACHE or the user's cache folder.
        tokenizer: used as it is (resuming a run); None makes or opens the one that the config names.
        content: what `survey` found; None passes over the corpus now.

    Raises:
        DataError: the corpus is too small to be split, has characters that the tokenizer lacks, or changed
            meanwhile.
        ConfigError: the config names no tokenizer, or another unit than the corpus was opened with.
        SaveError: the cache folder cannot be written.
    """
    from windtunnel.text.mix import prepare_mix
    from windtunnel.text.store_build import build, survey

    if config.unit not in ("auto", corpus.unit):
        raise ConfigError(f"text.unit is {config.unit} but {corpus.name} was opened by {corpus.unit}; open it so too")
    if config.shuffle_seed is not None and corpus.unit == "text":
        raise ConfigError(
            f"text.shuffle_seed shuffles documents, and {corpus.name} is one running text; leave it out, or read it by "
            "line: --set text.unit=line"
        )
    if corpus.parts:
        return prepare_mix(corpus, config, cache, tokenizer)
    content = survey(corpus) if content is None else content
    name = config.tokenizer
    if tokenizer is None or name == "auto":
        name = tokenizer_name(corpus, config, len(content.alphabet))
    if tokenizer is None and name not in MADE_HERE:
        tokenizer = open_tokenizer(name)
    root = (cache or cache_folder()).expanduser() / "tokens"
    made = f"bpe {config.vocab_size}" if name == "bpe" else name
    given = tokenizer and hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    keys = [store_key(content.sha256, corpus, config, by) for by in (made, given) if by]
    for key in keys if name in MADE_HERE else keys[1:]:
        store = _open_if_whole(root / key, corpus, content.sha256)
        if store and (tokenizer is None or store.tokenizer.to_json() == tokenizer.to_json()):
            return store
    return build(root, keys[-1], corpus, config, content, tokenizer or name)


def tokenizer_name(corpus: Corpus, config: TextConfig, n_characters: int) -> str:
    """What `text.tokenizer` means for this corpus: a kind, or a path.

    Raises:
        ConfigError: when it is neither; the nearest kind is offered.
    """
    name = config.tokenizer
    if name == "auto":
        bpe = corpus.name == "pets" or is_captioned(corpus) or corpus.unit == "file" or n_characters > 256
        return "bpe" if bpe else "characters"
    if name in (*MADE_HERE, "gpt2") or Path(name).exists():
        return name
    close = difflib.get_close_matches(name, (*MADE_HERE, "gpt2", "auto"), n=1)
    raise ConfigError(
        f"text.tokenizer: {name!r} is no kind of tokenizer and no file; "
        + (f"did you mean {close[0]}?" if close else "expected auto, bytes, characters, bpe, gpt2 or a path")
    )


def store_key(sha256: str, corpus: Corpus, config: TextConfig, tokenizer: str) -> str:
    """The folder name of a store: a hash of everything that decides what is in it."""
    parts = [FORMAT, sha256, corpus.unit, config.dev_fraction, config.test_fraction, tokenizer]
    parts += [] if config.shuffle_seed is None else [config.shuffle_seed]
    parts += [list(corpus.fields)] if len(corpus.fields) > 1 else []
    parts += ["labels"] if is_labelled(corpus) else []
    parts += ["pictures"] if is_captioned(corpus) else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def open_store(folder: Path, corpus: Corpus) -> TokenStore:
    """Open a store; the sizes and hashes of all files are compared with the manifest.

    Hashing reads about 1 GB a second, so a process does it once for a store, and again when a file was replaced.

    Raises:
        ArtifactError: names the file that is missing, not readable, or not what was written.
    """
    manifest = read_manifest(folder)
    verify_once(folder, _columns(manifest), manifest.files)
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
    except DataError as error:
        raise ArtifactError(str(error)) from None
    splits = {name: _open_split(folder, name, manifest) for name in SPLITS}
    pictures = _open_names(folder / PICTURES, manifest.n_pictures) if manifest.n_pictures else ()
    return TokenStore(corpus, tokenizer, manifest.sha256, splits, folder, manifest.labels, pictures)


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` of a store; ArtifactError when it is missing, unreadable or of another format."""
    path = folder / "manifest.json"
    try:
        data = json.loads(read_file(path, largest=LARGEST_MANIFEST))
        manifest = Manifest.model_validate(data)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: not a readable manifest of a token store ({reason})") from None
    if "own_sha256" not in data:
        raise ArtifactError(f"{path} does not state the SHA-256 of its content: an older version wrote it")
    if data["own_sha256"] != manifest.own_sha256:
        raise ArtifactError(f"{path} was altered: its content does not have the SHA-256 that it states")
    if manifest.format != FORMAT or not manifest.splits.keys() >= set(SPLITS):
        raise ArtifactError(f"{path}: format {manifest.format}, expected {FORMAT}; delete the folder")
    return manifest


def _columns(manifest: Manifest) -> list[str]:
    """The files of a store that are read, beside its manifest."""
    columns = [f"{name}.ids.bin" for name in SPLITS]
    columns += [f"{name}.offsets.bin" for name in SPLITS if manifest.splits[name].n_documents is not None]
    columns += [f"{name}.labels.bin" for name in SPLITS if manifest.labels]
    if manifest.n_pictures:
        columns += [PICTURES, *(f"{name}.pictures.bin" for name in SPLITS)]
    return ["tokenizer.json", *columns]


def verify_once(folder: Path, names: Sequence[str], stated: Mapping[str, FileEntry]) -> None:
    """Compare the hashes of files with those stated, unless this process did and none was replaced since.

    Raises:
        ArtifactError: names the file that is missing, not readable, or not what was written.
    """
    stamps = [_stamp(folder / name) for name in ("manifest.json", *names)]
    if _verified.get(folder) == stamps:
        return
    for name in names:
        _check_hash(folder / name, stated.get(name))
    _verified[folder] = stamps


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.lstat()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_hash(path: Path, stated: FileEntry | None) -> None:
    digest = ""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            if stated and os.fstat(file.fileno()).st_size == stated.bytes:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    if not stated or digest != stated.sha256:
        raise ArtifactError(f"{path}: not what was written (size or SHA-256 differs); delete the folder")


def _open_split(folder: Path, name: str, manifest: Manifest) -> Split:
    entry = manifest.splits[name]
    ids = map_values(folder / f"{name}.ids.bin", manifest.dtype, entry.n_ids)
    if entry.n_documents is None:
        return Split(ids, None, entry.n_bytes)
    offsets = map_values(folder / f"{name}.offsets.bin", "<i8", entry.n_documents + 1)
    if offsets[0] != 0 or offsets[-1] != len(ids):
        raise ArtifactError(f"{folder}: the offsets of {name} do not fit its ids; delete the folder")
    labels = _map_places(folder / f"{name}.labels.bin", entry.n_documents, len(manifest.labels))
    pictures = _map_places(folder / f"{name}.pictures.bin", entry.n_documents, manifest.n_pictures)
    return Split(ids, offsets, entry.n_bytes, labels, pictures)


def _map_places(path: Path, n_documents: int, n_known: int) -> np.ndarray | None:
    """Of each document its place among the store's labels or pictures; None where it has none."""
    if not n_known:
        return None
    places = map_values(path, "<i4", n_documents)
    if len(places) and not 0 <= places.min() <= places.max() < n_known:
        raise ArtifactError(f"{path}: it has places beyond the {n_known} that the store knows; delete the folder")
    return places


def _open_names(path: Path, expected: int) -> tuple[str, ...]:
    try:
        names = tuple(json.loads(read_file(path)))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from None
    if len(names) != expected:
        raise ArtifactError(f"{path}: it has {len(names)} names, expected {expected}; delete the folder")
    return names


def map_values(path: Path, dtype: str, length: int) -> np.ndarray:
    """Memory-map a raw file, which must be exactly `length` values long; an empty one cannot be mapped."""
    try:
        size = path.stat().st_size
        if size != length * np.dtype(dtype).itemsize:
            raise ArtifactError(f"{path}: {size} bytes are not {length} values of {dtype}; delete the folder")
        return np.memmap(path, dtype, mode="r", shape=(length,)) if length else np.zeros(0, dtype)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None


def _open_if_whole(folder: Path, corpus: Corpus, sha256: str) -> TokenStore | None:
    if not folder.exists():
        return None
    try:
        store = open_store(folder, corpus)
        if store.sha256 != sha256:
            discard(folder)
            raise ArtifactError(f"{folder} holds another corpus, with the SHA-256 {store.sha256[:12]}")
        return store
    except ArtifactError as error:
        log.warning("the token store in the cache is damaged and is built again: %s", error)
        return None

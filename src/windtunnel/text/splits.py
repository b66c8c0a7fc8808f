"""Which text is for training, which for development, which for the test.

Documents go by a hash of their content: it does not depend on order, on other documents or on the seed, and
identical documents land in one split. Labelled texts go by the same hash within each label, so that every split has
its share of each. Of a document of several fields the first (the source) decides, so that no
model is asked in dev or test for what it was told in training. Captions go by the hash of their picture, or of their
group of pictures that are nearly the same. Running text goes by position: train first, then dev,
then test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from windtunnel.errors import DataError

if TYPE_CHECKING:
    from windtunnel.text.corpora.corpus import Corpus

SPLITS = ("train", "dev", "test")


def document_split(document: str, dev_fraction: float, test_fraction: float) -> str:
    """The split of a document: u in [0, 1) from 8 bytes of BLAKE2b; u < test -> test, < test + dev -> dev."""
    u = place(document)
    if u < test_fraction:
        return "test"
    return "dev" if u < test_fraction + dev_fraction else "train"


def place(document: str) -> float:
    """Where a document stands between 0 and 1."""
    return int.from_bytes(hashlib.blake2b(document.encode(), digest_size=8).digest()) / 2**64


def stratified(labels: Mapping[str, str], dev_fraction: float, test_fraction: float) -> dict[str, str]:
    """The split of each text: of each label's texts, in the order of `place`, first the test, then the dev texts.

    Args:
        labels: the label of each different text.
    """
    own: dict[str, list[str]] = {}
    for text, label in labels.items():
        own.setdefault(label, []).append(text)
    found: dict[str, str] = {}
    for texts in own.values():
        n_test, n_held = (round(len(texts) * share) for share in (test_fraction, test_fraction + dev_fraction))
        for i, text in enumerate(sorted(texts, key=place)):
            found[text] = "test" if i < n_test else "dev" if i < n_held else "train"
    return found


def is_labelled(corpus: Corpus) -> bool:
    """Whether each document is a text and its label."""
    return corpus.fields[:2] == ("text", "label")


def split_labelled(
    documents: Sequence[str], corpus: Corpus, dev_fraction: float, test_fraction: float
) -> dict[str, list[str]]:
    """The labelled documents of each split.

    By their field `split`, else stratified by label; a text that stands there twice goes by its first label.

    Raises:
        DataError: a document names no split.
    """
    if "split" in corpus.fields:
        return _by_field(documents, corpus)
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}
    fields = [corpus.split(document) for document in documents]
    first: dict[str, str] = {}
    for text, label, *_ in fields:
        first.setdefault(text, label)
    chosen = stratified(first, dev_fraction, test_fraction)
    for document, (text, *_) in zip(documents, fields, strict=True):
        parts[chosen[text]].append(document)
    return parts


def is_captioned(corpus: Corpus) -> bool:
    """Whether each document is a picture and a caption of it."""
    return corpus.fields[:2] == ("picture", "caption")


def split_captioned(
    documents: Sequence[str], corpus: Corpus, dev_fraction: float, test_fraction: float
) -> dict[str, list[str]]:
    """The captions of each split: by their field `split`, else by the hash of their group, else by picture.

    Of a group the hash decides alone, so that other pictures of the same group are in the same split of every corpus.
    Pictures without groups are put into the order of their hashes: the first are for the test, the next for dev.

    Raises:
        DataError: a document names no split, or a picture stands in two.
    """
    if "split" in corpus.fields:
        parts = _by_field(documents, corpus)
        first: dict[str, str] = {}
        for name, own in parts.items():
            for picture in {corpus.split(document)[0] for document in own}:
                if first.setdefault(picture, name) != name:
                    raise DataError(
                        f"{corpus.name}: the picture {picture} stands in {first[picture]} and in {name}, where a model "
                        "would be asked for what it was told; give all its captions one split"
                    )
        return parts
    keys = [split_key(document, corpus.fields) for document in documents]
    if "group" in corpus.fields:
        chosen = {key: document_split(key, dev_fraction, test_fraction) for key in keys}
    else:
        chosen = stratified(dict.fromkeys(keys, ""), dev_fraction, test_fraction)
    parts = {name: [] for name in SPLITS}
    for document, key in zip(documents, keys, strict=True):
        parts[chosen[key]].append(document)
    return parts


def _by_field(documents: Sequence[str], corpus: Corpus) -> dict[str, list[str]]:
    """The documents by their field `split`. Raises DataError where it names none."""
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}
    for document in documents:
        name = corpus.split(document)[corpus.fields.index("split")]
        if name not in parts:
            raise DataError(f"{corpus.name}: the split of {document[:80]!r} is {name!r}, expected {', '.join(SPLITS)}")
        parts[name].append(document)
    return parts


def labels_of(corpus: Corpus) -> tuple[str, ...]:
    """The different labels of labelled texts, sorted; none of another corpus."""
    return tuple(sorted({corpus.split(document)[1] for document in corpus.read()})) if is_labelled(corpus) else ()


def split_key(document: str, fields: tuple[str, ...]) -> str:
    """What of a document decides its split: its group, or else its first field."""
    if "group" in fields:
        return document.split("\t")[fields.index("group")]
    return document.partition("\t")[0] if len(fields) > 1 else document


def text_of(document: str, fields: tuple[str, ...]) -> str:
    """What of a document is read as text: a caption, or else its first field."""
    place = 1 if fields[0] == "picture" else 0
    return document.split("\t")[place] if len(fields) > 1 else document


def groups_of(documents: Iterable[str], fields: tuple[str, ...]) -> list[list[str]]:
    """What is shuffled as one: a document, or all documents of several fields that have the `split_key` in common."""
    if len(fields) == 1:
        return [[document] for document in documents]
    groups: dict[str, list[str]] = {}
    for document in documents:
        groups.setdefault(split_key(document, fields), []).append(document)
    return list(groups.values())


def text_cuts(n_bytes: int, dev_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Where dev and test begin in a running text, in bytes, before rounding to a character."""
    # The small term undoes binary rounding: 100 * (1 - 0.05 - 0.05) is to be 90, not 89.
    dev = math.floor(n_bytes * (1 - dev_fraction - test_fraction) + 1e-6)
    test = math.floor(n_bytes * (1 - test_fraction) + 1e-6)
    return dev, test


def split_text(chunks: Iterable[str], cuts: tuple[int, int]) -> Iterator[tuple[str, str, int]]:
    """Cut a running text that comes in chunks: (split, text, UTF-8 bytes), in order.

    A cut inside a character moves to its first byte. Where the cuts lie does not depend on the chunks.
    """
    position = 0
    for chunk in chunks:
        data = chunk.encode()
        ends = [_character_start(data, cut - position) for cut in cuts] + [len(data)]
        start = 0
        for name, end in zip(SPLITS, ends, strict=True):
            if end > start:
                yield name, data[start:end].decode(), end - start
                start = end
        position += len(data)


def _character_start(data: bytes, index: int) -> int:
    index = min(max(index, 0), len(data))
    while 0 < index < len(data) and data[index] & 0xC0 == 0x80:
        index -= 1
    return index

"""A whole corpus cut into train, dev and test, and what to do when it is too small for that."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.errors import DataError
from windtunnel.text.splits import (
    SPLITS,
    document_split,
    groups_of,
    is_captioned,
    is_labelled,
    split_captioned,
    split_key,
    split_labelled,
    split_text,
    text_cuts,
    text_of,
)
from windtunnel.text.store import TextConfig

if TYPE_CHECKING:
    from windtunnel.text.corpora import Corpus

BATCH_CHARACTERS = 1 << 20
BATCH_DOCUMENTS = 1 << 15


def split_documents(batches: Iterator[list[str]], corpus: Corpus, config: TextConfig) -> Iterator[dict[str, list[str]]]:
    """The documents of each split, batch by batch; those that are shuffled all at once."""
    dev, test = config.dev_fraction, config.test_fraction
    whole = split_labelled if is_labelled(corpus) else split_captioned if is_captioned(corpus) else None
    if whole and (config.shuffle_seed is None or "split" in corpus.fields):
        yield whole([document for documents in batches for document in documents], corpus, dev, test)
        return
    if config.shuffle_seed is None:
        for documents in batches:
            parts: dict[str, list[str]] = {name: [] for name in SPLITS}
            for document in documents:
                parts[document_split(split_key(document, corpus.fields), dev, test)].append(document)
            yield parts
        return
    groups = groups_of((document for documents in batches for document in documents), corpus.fields)
    random.Random(config.shuffle_seed).shuffle(groups)
    first, last = text_cuts(len(groups), dev, test)
    cut = {"train": groups[:first], "dev": groups[first:last], "test": groups[last:]}
    yield {name: [document for group in part for document in group] for name, part in cut.items()}


def batches_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists of about 1 Mi characters; one long text is a list of its own."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def texts_of_splits(corpus: Corpus, config: TextConfig) -> dict[str, list[str]]:
    """The caption or first field of each document of each split, in the store's order and as the corpus has it.

    What a store decodes may differ: some tokenizers drop capitals and white space.
    """
    found: dict[str, list[str]] = {name: [] for name in SPLITS}
    for parts in split_documents(batches_of(corpus.read()), corpus, config):
        for name, documents in parts.items():
            found[name] += [text_of(document, corpus.fields) for document in documents]
    return found


def check_sizes(corpus: Corpus, config: TextConfig, n_ids: Mapping[str, int]) -> None:
    """Raises DataError when nothing is left for train or for dev, with what would leave something."""
    for name, fraction in (("train", 1.0), ("dev", config.dev_fraction)):
        if fraction > 0 and not n_ids[name]:
            raise DataError(
                f"{corpus.name} is too small to be split: nothing is left for {name} at dev_fraction "
                f"{config.dev_fraction:g} and test_fraction {config.test_fraction:g}; "
                f"{', or '.join(['give more text', *_cures(corpus, config)])}"
            )


def _cures(corpus: Corpus, config: TextConfig) -> Iterator[str]:
    """The fraction and the unit that would leave something for train and dev, where there are any."""
    dev, test = config.dev_fraction, config.test_fraction
    for more in (0.1, 0.2, 0.3, 0.4, 0.5):
        if more + test < 1 and _leaves_some(corpus, config.replace(dev_fraction=more)):
            yield f"another fraction: --set text.dev_fraction={more:g}"
            break
    if corpus.unit == "file":
        lines = (line for document in corpus.read() for line in document.splitlines() if line.strip())
        if {"train", "dev"} <= {document_split(line, dev, test) for line in lines}:
            yield "read it by line: --set text.unit=line"
    file = Path(corpus.origin)
    if corpus.unit == "line" and len(corpus.fields) == 1 and file.is_file():
        first, last = text_cuts(file.stat().st_size, dev, test)
        if 0 < first < last:
            yield "cut it by position: --set text.unit=text"


def _leaves_some(corpus: Corpus, config: TextConfig) -> bool:
    """Whether train and dev hold something."""
    if corpus.unit != "text":
        found = texts_of_splits(corpus, config)
        return bool(found["train"] and found["dev"])
    cuts = text_cuts(sum(len(text.encode()) for text in corpus.read()), config.dev_fraction, config.test_fraction)
    return {"train", "dev"} <= {name for name, _, _ in split_text(corpus.read(), cuts)}

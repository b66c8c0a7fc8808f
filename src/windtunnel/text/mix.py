"""The token store of a mix: that of each of its corpora, with one tokenizer for all.

Nothing in it depends on the weights, so mixes of the same corpora have the same tokens and the same held-out texts.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.errors import ArtifactError, DataError
from windtunnel.files import read_file, write_text
from windtunnel.text.corpora.cache import cache_folder, writing
from windtunnel.text.splits import SPLITS
from windtunnel.text.store import MADE_HERE, Split, TextConfig, TokenStore, prepare, store_key, tokenizer_name
from windtunnel.text.store_build import BPE_CHARACTERS, Content, spread_sample, survey, train_texts
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer, characters_tokenizer, open_tokenizer, train_bpe

if TYPE_CHECKING:
    from windtunnel.text.corpora import Corpus

LARGEST_TOKENIZER = 1 << 28
log = logging.getLogger(__name__)
Surveyed = Sequence[tuple["Corpus", Content]]


class JoinedSplits(Mapping[str, Split]):
    """The splits of several stores, one after another; each is joined in memory when it is asked for."""

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self._stores = stores
        self._joined: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._joined:
            self._joined[name] = _join([store.splits[name] for store in self._stores])
        return self._joined[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


def _join(parts: Sequence[Split]) -> Split:
    """Documents where all have them, else running text."""
    first = np.cumsum([0, *(len(part.ids) for part in parts)])
    own = [part.offsets[1:] + start for part, start in zip(parts, first, strict=False) if part.offsets is not None]
    offsets = np.concatenate([[0], *own]).astype(np.int64) if len(own) == len(parts) else None
    return Split(np.concatenate([part.ids for part in parts]), offsets, sum(part.n_bytes for part in parts))


def prepare_mix(
    corpus: Corpus, config: TextConfig, cache: Path | None = None, tokenizer: Tokenizer | None = None
) -> TokenStore:
    """As `prepare`, of a mix. Its corpora are in the order of their SHA-256, whatever that of the mix.

    Raises:
        DataError: also when two of its corpora hold the same text.
    """
    surveyed = [(part, weight, survey(part)) for part, weight in zip(corpus.parts, corpus.weights, strict=True)]
    surveyed.sort(key=lambda one: one[2].sha256)
    for (part, _, content), (other, _, others) in pairwise(surveyed):
        if content.sha256 == others.sha256:
            raise DataError(f"{part.origin} and {other.origin} hold the same text; give one of them")
    parts = [(part, content) for part, _, content in surveyed]
    if tokenizer is None:
        tokenizer = _shared_tokenizer(parts, config, (cache or cache_folder()).expanduser() / "tokens")
    stores = tuple(prepare(part, config, cache, tokenizer, content) for part, content in parts)
    weights = tuple(weight for _, weight, _ in surveyed)
    mixed = replace(corpus, parts=tuple(part for part, _ in parts), weights=weights)
    sha256 = content_of_all([content for _, content in parts]).sha256
    return TokenStore(mixed, tokenizer, sha256, JoinedSplits(stores), stores[0].folder, parts=stores)


def content_of_all(contents: Sequence[Content]) -> Content:
    """What passes over several corpora tell, whatever their order."""
    digest = hashlib.sha256(json.dumps(["mix", *sorted(content.sha256 for content in contents)]).encode())
    return Content(
        digest.hexdigest(),
        sum(content.n_bytes for content in contents),
        sum(content.n_characters for content in contents),
        "".join(sorted(set().union(*(content.alphabet for content in contents)))),
    )


def _shared_tokenizer(parts: Surveyed, config: TextConfig, root: Path) -> Tokenizer:
    """The tokenizer that the settings name, made for all corpora of a mix where it is made here."""
    whole = content_of_all([content for _, content in parts])
    names = {tokenizer_name(part, config, len(whole.alphabet)) for part, _ in parts}
    name = "bpe" if "bpe" in names else names.pop()
    if name not in MADE_HERE:
        return open_tokenizer(name)
    end = any(part.unit != "text" for part, _ in parts)
    if name == "bytes":
        return bytes_tokenizer(end=end)
    return characters_tokenizer(whole.alphabet, end=end) if name == "characters" else _bpe(parts, config, whole, root)


def _bpe(parts: Surveyed, config: TextConfig, whole: Content, root: Path) -> Tokenizer:
    """Trained on the train splits of all corpora as often as they hold it, or out of the cache."""
    keys = [store_key(content.sha256, part, config, f"bpe {config.vocab_size}") for part, content in parts]
    path = root / f"mix-{hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32]}.json"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except (ArtifactError, DataError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("the tokenizer of a mix in the cache is damaged and is made again: %s: %s", path, error)
    total = whole.n_characters * (1 - config.dev_fraction - config.test_fraction)
    texts = chain.from_iterable(train_texts(part, config, content) for part, content in parts)
    made = train_bpe(spread_sample(texts, total, BPE_CHARACTERS), config.vocab_size)
    text = made.to_json()
    with writing(path):
        root.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "tokenizer": text}))
    return made


def _read(path: Path) -> Tokenizer:
    data = json.loads(read_file(path, largest=LARGEST_TOKENIZER))
    if hashlib.sha256(data["tokenizer"].encode()).hexdigest() != data["sha256"]:
        raise ArtifactError("its content does not have the SHA-256 that it states")
    return Tokenizer.from_json(data["tokenizer"])

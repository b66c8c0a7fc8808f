"""Texts that are positive or negative: those that a head is trained and judged on, and others to read before."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windtunnel.errors import DataError
from windtunnel.experiments.frame import Setting
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.paths import expand, is_path
from windtunnel.text.corpora.tables import KINDS, column_names, kind_of

Pair = tuple[str, str]
SHARE = 650 / 1200
"""Of the tweets that are taken so many are positive: the majority label then has the accuracy 130 of 240."""
ADDRESS = re.compile(r"@\w+|https?://\S+|\brt\b|\W")


@dataclass(frozen=True)
class Texts:
    """Texts with labels by part: train, dev and test; and texts without labels, of which none is in dev or test."""

    origin: str
    parts: dict[str, list[Pair]]
    others: list[str]

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """How many texts of each part have each label."""
        return {name: Counter(label for _, label in pairs) for name, pairs in self.parts.items()}


def read_texts(at: Setting) -> Texts:
    """1,200 texts with labels, a fifth of them for dev, stratified; 2,000 for the test; and what is left to read.

    Of a corpus that is given they are its first rows. Of the tweets a seed draws those that are positive or negative.

    Raises:
        DataError: for a corpus without labels, with too few rows, or tweets that have not been fetched.
    """
    n, n_test, n_others = at.size((1200, 2000, 30_000), quick=(300, 200, 2000))
    if at.corpus:
        first, others = _rows(at.corpus, n + n_test)
        origin = f"{at.corpus}, its first {len(first):,} different texts"
    else:
        first, others = _drawn(n, n_test, at.seed)
        origin = f"tweets, {len(first):,} of those positive or negative"
    if len(first) < n + 100:
        raise DataError(f"{at.corpus} has {len(first):,} different texts; expected at least {n + 100:,} with labels")
    train, dev = _split(first[:n])
    parts = {"train": train, "dev": dev, "test": first[n:]}
    return Texts(origin, parts, [*others[:n_others], *(text for text, _ in train)])


def _rows(given: str, n: int) -> tuple[list[Pair], list[str]]:
    """The first n different texts of a corpus with their labels, and the texts behind them."""
    path, columns = expand(given), None
    if is_path(given) and kind_of(path) in KINDS and {"sentence", "label"} <= {*column_names(path)}:
        columns = {"text": "sentence", "label": "label"}
    corpus = open_corpus(given, columns=columns)
    if corpus.fields[:2] != ("text", "label"):
        raise DataError(
            f"{given} has {', '.join(corpus.fields)}; expected texts with labels: a .tsv file with the columns "
            "sentence and label, as SST-2 has them, or text and label"
        )
    labels: dict[str, str] = {}
    for document in corpus.read():
        text, label, *_ = corpus.split(document)
        labels.setdefault(text, label)
    pairs = list(labels.items())
    return pairs[:n], [text for text, _ in pairs[n:]]


def _drawn(n: int, n_test: int, seed: int) -> tuple[list[Pair], list[str]]:
    """n and then n_test tweets, each part with its share of positive ones in any order; and all other tweets."""
    corpus, seen = open_corpus("tweets"), dict[str, set[Pair]]()
    for document in corpus.read():
        text, label, *_ = corpus.split(document)
        seen.setdefault(ADDRESS.sub("", text.lower()), set()).add((text, label))
    shuffle = random.Random(seed)
    same = [(min(own)[0], {label for _, label in own}) for key, own in sorted(seen.items()) if key]
    shuffle.shuffle(same)
    own = {name: [(t, name) for t, labels in same if labels == {name}] for name in ("positive", "negative")}
    found, begin = list[Pair](), dict.fromkeys(own, 0)
    for size in (n, n_test):
        part = list[Pair]()
        for name, wanted in (("positive", round(size * SHARE)), ("negative", size - round(size * SHARE))):
            part += own[name][begin[name] : begin[name] + wanted]
            begin[name] += wanted
        shuffle.shuffle(part)
        found += part
    taken = {text for text, _ in found}
    return found, [text for text, _ in same if text not in taken]


def _split(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Four fifths and one, stratified as the source's are."""
    from sklearn.model_selection import train_test_split

    labels = [label for _, label in pairs]
    rare = [label for label, count in Counter(labels).items() if count < 2]
    if rare or len(set(labels)) != 2:
        raise DataError(
            f"the first {len(pairs):,} texts have the labels {', '.join(sorted(set(labels)))}; expected two, such as 0 "
            "and 1, and two texts or more of each"
        )
    parts: list[list[Pair]] = train_test_split(list(pairs), random_state=42, test_size=0.2, stratify=labels)
    yield from parts

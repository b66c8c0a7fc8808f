"""004-4.2: which caption finds its picture: its length, what it says, and a search for a better one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.experiments.picture_search import MORE, Held, evidence, held_out, more
from windtunnel.inspect.captions import words
from windtunnel.inspect.clip_vectors import clip_of, encoded, vectors_of
from windtunnel.inspect.closed_form import RIDGE, Seen, places_of, read
from windtunnel.report.charts import dots
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.proportions import wilson
from windtunnel.tasks.vectors import pictures_of as pictures_read
from windtunnel.text.features import Floats, Ints

ROW = Row("004-4.2")
GALLERY, TARGETS = 500, 200
CAPTION, WORD, SENTENCE, LONG = "the caption", "its last word", "in a sentence", "in a long sentence"
COUNTED, SHOWN = 100, 8
NUMBERS = ("one", "two", "three", "four")
SAID: dict[str, Callable[[str], str]] = {
    CAPTION: lambda text: text,
    WORD: lambda text: text.split()[-1],
    SENTENCE: lambda text: f"a picture of {text}",
    LONG: lambda text: (
        "this is a small picture in a few flat colours with an outline on a white background, and what it shows to "
        f"whoever looks at it for a while is {text}"
    ),
}
"""Ways to say what a picture shows."""
Score = Callable[[Sequence[str]], Floats]
"""captions (m) -> how near each is to each picture of the gallery, (m, n)."""


def caption_hunt(at: Setting) -> Findings:
    """A caption that finds its picture.

    A target is to be found among pictures that training did not have, by captions of different length and content:
    at which place they find it, and by what margin, the cosine with the target minus the highest with another picture.
    That short and descriptive captions find it is judged over many targets, pair by pair, and whether a number is read:
    *three* of a thing among one to four of it. Then a search changes one
    word at a time towards a larger margin; what it finds is judged by a model that it did not ask, and beside a search
    that begins with the caption of another picture. `--corpus FOLDER` takes pictures of your own.
    """
    held, by_picture = yield from held_out(at)
    yield from evidence(ROW, held, by_picture)
    draws = np.random.default_rng(at.seed)
    n = len(held.names)
    gallery = np.sort(draws.choice(n, min(n, GALLERY), replace=False))
    yield Given({"pictures in the gallery": len(gallery)})
    several = [i for i in gallery.tolist() if len(words(held.texts[i])) > 1]
    targets = draws.permutation(several)[:TARGETS]
    yield from _lengths(held, gallery, targets)
    yield from _counting(held, targets[: COUNTED if not at.quick else SHOWN])
    yield from _search(at, held, gallery, targets)


def margins(scores: Floats, targets: Ints) -> Floats:
    """The score (m, n) of each row's target minus the highest of another picture, (m,)."""
    rows, others = np.arange(len(scores)), scores.copy()
    others[rows, targets] = -np.inf
    return scores[rows, targets] - others.max(axis=1)


# -------------------------------------------------------------------------------------------------------------- length


def _lengths(held: Held, gallery: Ints, targets: Ints) -> Findings:
    """The same targets by captions of different length, and by an alias where they have one."""
    columns = np.searchsorted(gallery, targets)
    asked = {name: [say(held.texts[i]) for i in targets] for name, say in SAID.items()}
    seen = [own[gallery] for own in held.seen]
    found: dict[str, dict[int, Floats]] = {}
    rows, recall = [], {}
    for name, texts in asked.items():
        scores = [vectors_of(one, texts) @ own.T for one, own in zip(held.trained, seen, strict=True)]
        ranks = [places_of(one, columns) for one in scores]
        found[name] = {k: np.mean([own <= k for own in ranks], axis=0) for k in (1, 5)}
        recall[name] = bca_interval(found[name][1])
        margin = bca_interval(np.mean([margins(one, columns) for one in scores], axis=0))
        length = np.mean([len(words(text)) for text in texts])
        rows.append((name, round(float(length), 1), recall[name], bca_interval(found[name][5]),
                     float(np.mean([np.median(own) for own in ranks])), margin))  # fmt: skip
    heads = ("", "words", "recall@1", "recall@5", "median rank", "margin")
    yield table(f"{len(targets)} targets among {len(gallery)} pictures, captions of several words", heads, rows)
    yield draw("lengths", dots({"recall@1": recall}, list(SAID), xlabel="recall@1, 95 % intervals over targets"),
               size=(8.0, 2.6))  # fmt: skip
    yield from _one_target(held, gallery, int(targets[0]), asked, seen[0])
    descriptive = more(
        ROW, "a caption finds its picture more often than its last word alone", found[CAPTION], found[WORD]
    )
    short = more(
        ROW, "a caption finds its picture more often than the same in a long sentence", found[CAPTION], found[LONG]
    )
    yield descriptive
    yield short
    yield ROW.gathers("a short and descriptive caption finds its picture", [descriptive.verdict, short.verdict],
                      "short and descriptive")  # fmt: skip


def _one_target(held: Held, gallery: Ints, target: int, asked: dict[str, list[str]], seen: Floats) -> Findings:
    """One target with all that was asked for it."""
    texts = {name: own[0] for name, own in asked.items()}
    texts |= {"an alias": held.aliases[target]} if target in held.aliases else {}
    scores = vectors_of(held.trained[0], list(texts.values())) @ seen.T
    column = np.full(len(texts), np.searchsorted(gallery, target))
    ranks, margin = places_of(scores, column), margins(scores, column)
    rows = [
        (*pair, int(rank), round(float(by), 3)) for pair, rank, by in zip(texts.items(), ranks, margin, strict=True)
    ]
    yield table(f"One target, {held.texts[target]}, by the first seed", ("", "asked", "rank", "margin"), rows)


# ------------------------------------------------------------------------------------------------------------ counting


def _counting(held: Held, targets: Ints) -> Findings:
    """Whether *three* means three: pictures with one to four of the same thing, by captions that begin with a number.

    Each caption is asked among the four pictures of its own thing, so that only the number tells them apart. Whoever
    ignores it is right in a quarter.
    """
    right, chosen = [], np.zeros((len(NUMBERS), len(NUMBERS)))
    asked = [f"{number} {held.texts[i]}" for i in targets for number in NUMBERS]
    config = clip_of(held.trained[0]).config
    size, things = config.picture.size, [held.draw(int(i), -(-config.picture.size // 2)) for i in targets]
    drawn = np.stack([repeated(thing, n + 1)[:size, :size] for thing in things for n in range(len(NUMBERS))])
    as_read = pictures_read(config, drawn)
    for one in held.trained:
        seen = encoded(clip_of(one), as_read).reshape(len(targets), len(NUMBERS), -1)
        said = vectors_of(one, asked).reshape(len(targets), len(NUMBERS), -1)
        nearest = np.einsum("tqd,tpd->tqp", said, seen).argmax(axis=2)
        right.append((nearest == np.arange(len(NUMBERS))).mean(axis=1))
        for number in range(len(NUMBERS)):
            chosen[number] += np.bincount(nearest[:, number], minlength=len(NUMBERS)) / nearest.shape[0]
    found = bca_interval(np.mean(right, axis=0))
    heads = ("asked", *(f"shown {number}" for number in NUMBERS))
    yield table(
        f"Counting: which of four pictures of a thing is nearest, a share of {len(targets)} things",
        heads,
        [(f"{number} ...", *(f"{share:.2f}" for share in row / len(right)))
         for number, row in zip(NUMBERS, chosen, strict=True)],
    )  # fmt: skip
    yield ROW.within(
        "a caption that says how many finds the picture with so many more often than by chance", found, 0.25 + MORE,
        shown=f"{{}}; by chance .25; {len(targets)} things, one to four of each",
    )  # fmt: skip


def repeated(drawn: np.ndarray, n: int) -> np.ndarray:
    """A picture (S, S, 3) one to four times on white, in the order of reading: (2 S, 2 S, 3)."""
    size = len(drawn)
    page = np.full((2 * size, 2 * size, 3), 255, np.uint8)
    for i in range(n):
        row, column = divmod(i, 2)
        page[row * size : (row + 1) * size, column * size : (column + 1) * size] = drawn
    return page


# -------------------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True)
class Hunted:
    """What a search found: the caption, how many it tried, and place and margin of the target before and behind."""

    start: str
    text: str
    tried: int
    ranks: tuple[int, int]
    margins: tuple[float, float]


def hunt(score: Score, start: str, column: int, vocabulary: Sequence[str], rounds: int = 2) -> Hunted:
    """Change the word of a caption at a time that raises the margin of a picture most, until none does.

    Args:
        column: of the picture, in what `score` gives.
        vocabulary: the words that may stand in any place.
        rounds: the most words that are changed.
    """

    def judged(texts: Sequence[str]) -> tuple[Ints, Floats]:
        scores = score(texts)
        return places_of(scores, at := np.full(len(texts), column)), margins(scores, at)

    text, tried = start, 1
    ranks, margin = judged([start])
    first = last = (int(ranks[0]), float(margin[0]))
    for _ in range(rounds):
        own = text.split()
        texts = [" ".join([*own[:i], word, *own[i + 1 :]]) for i in range(len(own)) for word in vocabulary]
        ranks, margin = judged(texts)
        tried, best = tried + len(texts), int(margin.argmax())
        if margin[best] <= last[1]:
            break
        text, last = texts[best], (int(ranks[best]), float(margin[best]))
    return Hunted(start, text, tried, (first[0], last[0]), (first[1], last[1]))


def _search(at: Setting, held: Held, gallery: Ints, targets: Ints) -> Findings:
    """Better captions for some targets, from their own and from another's, judged by who was not asked."""
    some = targets[: at.size(20, quick=2)]
    documents = list(held.task.store.documents("train"))
    counts = Counter(word for text in documents for word in words(text))
    vocabulary = [word for word, _ in counts.most_common(at.size(300, quick=8))]
    seen = held.seen[0][gallery]
    score: Score = lambda texts: vectors_of(held.trained[0], texts) @ seen.T  # noqa: E731
    judge, name = _judge(held, gallery)
    own, others = list[Hunted](), list[Hunted]()
    for i, target in enumerate(some.tolist()):
        yield Progress("searching for captions", i, len(some))
        find = partial(hunt, score, column=int(np.searchsorted(gallery, target)), vocabulary=vocabulary)
        own.append(find(held.texts[target]))
        others.append(find(held.texts[int(some[i - 1])]))
    columns = np.searchsorted(gallery, some)
    before, behind = (judge([getattr(one, what) for one in own]) for what in ("start", "text"))
    judged = places_of(before, columns), places_of(behind, columns)
    rows = [(one.start, one.text, f"{one.ranks[0]} to {one.ranks[1]}", f"{one.margins[0]:.3f} to {one.margins[1]:.3f}",
             f"{a} to {b}", one.tried) for one, a, b in zip(own, *judged, strict=True)]  # fmt: skip
    heads = ("caption", "found", "rank", "margin", f"rank by {name}", "tried")
    yield table("Captions that a search found, each the best of those that it tried", heads, rows)
    yield table(
        "From the caption of another picture", ("caption", "found", "rank"),
        [(one.start, one.text, f"{one.ranks[0]} to {one.ranks[1]}") for one in others],
    )  # fmt: skip
    tried = round(float(np.mean([one.tried for one in own])))
    yield Given({"captions tried for a target": tried, "words tried in each place": len(vocabulary)})
    gain = bca_interval(margins(behind, columns) - margins(before, columns))
    asked = bca_interval([one.margins[1] - one.margins[0] for one in own])
    statement = "the search raises the margin of its target, judged by a model that it did not ask"
    shown = f"{{}} by {name}; by the model that it asked {asked}, the best of {tried:,} a target"
    yield ROW.within(statement, gain, MORE, shown=shown)
    found = wilson(sum(one.ranks[1] == 1 for one in others), len(others))
    statement = "what a search finds need not be true of the picture: from another's caption it puts the target first "
    yield ROW.within(f"{statement}in more than half", found, 0.5 + MORE, shown=f"{{}} of {len(others)} targets")


def _judge(held: Held, gallery: Ints) -> tuple[Score, str]:
    """A model that was not asked: ridge regression, or where the frozen nets are not there the last seed's."""
    ridge = next((one for one in held.solved if one.name == RIDGE), None)
    if ridge is not None:
        pictures = held.frozen.pictures[gallery]
        return lambda texts: ridge.scores(Seen(pictures, read(list(texts)))), RIDGE
    last, seen = held.trained[-1], held.seen[-1][gallery]
    return lambda texts: vectors_of(last, texts) @ seen.T, "the last seed"

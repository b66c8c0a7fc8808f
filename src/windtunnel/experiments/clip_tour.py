"""004-4.1: pictures against captions as a matrix, and classes that nobody trained for, with their baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.experiments.frame import Drawing, Findings, Given, Row, Setting, draw, table
from windtunnel.experiments.picture_search import MORE, Held, evidence, held_out
from windtunnel.inspect.captions import main_captions
from windtunnel.inspect.clip_vectors import clip_of, pictures_of, vectors_of
from windtunnel.inspect.closed_form import places_of
from windtunnel.inspect.retrieval import by_letters
from windtunnel.inspect.zero_shot import Classes, classes_of
from windtunnel.report.charts import PALETTE, Panel, heat
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.proportions import wilson
from windtunnel.text.features import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = Row("004-4.1")
SIDE, DRAWS, SHOWN = 8, 2000, 4


def clip_tour(at: Setting) -> Findings:
    """Pictures against captions.

    Two towers learn which caption is of which picture; both are judged on pictures that training did not have. Eight
    pictures and eight captions are compared as a matrix of cosines, whose diagonal should be brightest, and pictures
    are put into classes by words, without training for it. Beside the towers stand ridge and kernel ridge regression
    in closed form, searches that see no picture, and a split by picture. `--corpus FOLDER` takes pictures of your own.
    """
    held, by_picture = yield from held_out(at)
    yield from evidence(ROW, held, by_picture)
    yield from _eight(at, held)
    yield from _classes(at, held)


# --------------------------------------------------------------------------------------------------- eight times eight


def right_among(scores: Floats, side: int) -> Floats:
    """For each caption of (n, n) how often its picture is nearest when side - 1 others are drawn, all draws counted."""
    n = len(scores)
    nearer = places_of(scores) - 1
    steps = np.arange(side - 1)
    return np.clip((n - 1 - nearer[:, None] - steps) / (n - 1 - steps), 0, 1).prod(axis=1)


def _eight(at: Setting, held: Held) -> Findings:
    """One draw as a picture, and all draws as a number."""
    side, draws = min(SIDE, len(held.names)), np.random.default_rng(at.seed)
    of_captions, of_pictures = (
        bca_interval(np.mean([right_among(one, side) for one in scores], axis=0))
        for scores in (held.cosines, [one.T for one in held.cosines])
    )
    drawn = [draws.choice(len(held.names), side, replace=False) for _ in range(DRAWS)]
    first, all_right = drawn[0], 0
    for some in drawn:
        part = held.cosines[0][np.ix_(some, some)]
        all_right += int((part.argmax(axis=1) == np.arange(side)).all())
    matrix = held.cosines[0][np.ix_(first, first)]
    rows = [
        (f"a caption finds its picture among {side}", of_captions),
        (f"a picture finds its caption among {side}", of_pictures),
        (f"all {side} captions find theirs, in {DRAWS:,} draws", f"{all_right / DRAWS:.3f}"),
    ]
    yield table("The diagonal over all draws", ("", "share, interval over pictures"), rows)
    statement = f"in a matrix of {side} pictures and {side} captions the diagonal is a caption's largest more often"
    yield ROW.within(
        f"{statement} than by chance", of_captions, 1 / side + MORE, shown=f"{{}}; by chance {1 / side:.3f}"
    )
    yield draw("matrix", _matrix(held, first, matrix), size=(8.0, 6.4))


def _matrix(held: Held, places: Ints, cosines: Floats) -> Panel:
    """The cosines of captions (rows) and pictures, which stand above their columns."""
    side = len(places)
    plain = heat(cosines, [""] * side, [_short(held.texts[i]) for i in places], "cosine")

    def panel(axes: Axes) -> None:
        plain(axes)
        axes.collections[0].set_clim(0, float(cosines.max()))
        for column, place in enumerate(places.tolist()):
            axes.imshow(held.draw(place), extent=(column - 0.45, column + 0.45, -0.6, -1.5))
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -1.6), title=f"cosines; pictures: {held.credit}")

    return panel


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


# ------------------------------------------------------------------------------------------------------------- classes


def _classes(at: Setting, held: Held) -> Findings:
    """Pictures put into classes by the words for these, beside baselines."""
    before, classes = main_captions(held.task, "train"), classes_of(held.task, held.task, "test")
    if classes is None:
        yield Given({"classes": "no two words of training are in captions of held-out pictures; not judged"})
        return
    names, places, labels, known = classes.names, classes.places, classes.labels, classes.known
    guesses, logits = [], []
    for one, seen in zip(held.trained, held.seen, strict=True):
        logits.append(clip_of(one).scale.item() * seen[places] @ vectors_of(one, names).T)
        guesses.append(classes.nearest(seen, pictures_of(one, held.task, "train")))
    right = {
        "zero-shot": np.mean([one.argmax(axis=1) == labels for one in logits], axis=0),
        "the nearest picture of training": np.mean([one == labels for one in guesses], axis=0),
        "the commonest class": classes.commonest.astype(float),
    }
    rows = [(name, len(own), bca_interval(own)) for name, own in right.items()]
    by_words, asked = _by_words(held, classes, [before[i] for i in known])
    if len(asked):
        name = "the nearest caption of training by letters, asked with an alias"
        rows.append((name, len(asked), wilson(int(by_words.sum()), len(asked))))
        rows.append(("zero-shot on these", len(asked), bca_interval(right["zero-shot"][asked])))
    yield table(f"Classes by words: {', '.join(names)}", ("", "pictures", "share right"), rows)
    for other in ("the commonest class", "the nearest picture of training"):
        difference = bca_interval(right["zero-shot"] - right[other])
        yield ROW.within(f"zero-shot classes are right more often than {other}", difference, MORE)
    if len(asked):
        difference = bca_interval(right["zero-shot"][asked] - by_words)
        statement = "zero-shot classes, which see the picture, are right more often than an alias, which does not"
        yield ROW.within(statement, difference, MORE, shown=f"{{}}; {len(asked)} pictures that have an alias")
    scale = clip_of(held.trained[0]).scale.item()
    yield Given({"scale of the logits": round(scale, 2)})
    some = np.random.default_rng(at.seed).choice(len(places), min(SHOWN, len(places)), replace=False)
    yield _bars(held, classes, logits[0], some, scale)


def _by_words(held: Held, classes: Classes, before: Sequence[str]) -> tuple[Floats, Ints]:
    """Of each picture with an alias whether the training caption nearest to that has its class, and which they are."""
    asked = np.array([i for i, place in enumerate(classes.places.tolist()) if place in held.aliases], np.int64)
    if not len(asked):
        return np.zeros(0), asked
    aliases = [held.aliases[int(place)] for place in classes.places[asked]]
    near = by_letters(aliases, before).argmax(axis=1)
    return (classes.known_labels[near] == classes.labels[asked]).astype(float), asked


def _bars(held: Held, classes: Classes, logits: Floats, some: Ints, scale: float) -> Drawing:
    """The five classes of the highest probability of some pictures."""
    panels: list[Panel] = []
    for i in some.tolist():
        shares = np.exp(logits[i] - logits[i].max())
        shares /= shares.sum()
        panels += [_picture(held, int(classes.places[i])), _five(classes, shares, int(classes.labels[i]), scale)]
    return draw("classes", *panels, size=(8.0, 1.9 * math.ceil(len(some))), columns=2)


def _picture(held: Held, place: int) -> Panel:
    def panel(axes: Axes) -> None:
        axes.imshow(held.draw(place))
        axes.set_axis_off()
        axes.set_title(_short(held.texts[place], 40))
        axes.text(0.5, -0.04, held.credit, transform=axes.transAxes, ha="center", va="top", fontsize=5)

    return panel


def _five(classes: Classes, shares: Floats, label: int, scale: float) -> Panel:
    """The five largest shares as bars, the right class in another colour."""

    def panel(axes: Axes) -> None:
        top = np.argsort(-shares)[:5]
        axes.barh(range(len(top)), shares[top], color=[PALETTE[2 if i == label else 0] for i in top])
        axes.set_yticks(range(len(top)), [classes.names[i] for i in top])
        axes.set(ylim=(len(top) - 0.4, -0.6), xlim=(0, 1), xlabel=f"probability, cosines x {scale:.1f}")

    return panel

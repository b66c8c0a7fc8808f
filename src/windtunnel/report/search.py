"""What words found among pictures: as lines and tables, and as a page that shows them."""

from __future__ import annotations

from html import escape
from typing import Any

from windtunnel.config import plain
from windtunnel.inspect.search import Hit, Search
from windtunnel.report.html import page
from windtunnel.report.pictures import SIDE, STYLE, grid
from windtunnel.report.table import Table, clipped, table


def first_line(found: Search) -> str:
    """What was looked for, and among how many."""
    return f"{found.text}: {_among(found)}"


def _among(found: Search) -> str:
    return f"the first {len(found.hits)} of {len(found.gallery.names):,} pictures, {found.gallery.of}"


def hits_table(found: Search) -> Table:
    """The pictures, the best first."""
    rows = [(_name(hit), f"{hit.cosine:.3f}", f"{hit.score:.2f}", f"{100 * hit.share:.1f} %") for hit in found.hits]
    return table("", ("picture", "cosine", "score", "share"), rows)


def words_table(found: Search) -> Table:
    """What the score of the first picture loses without each word."""
    return table("", ("without", "score falls by"), [(word, f"{falls:+.2f}") for word, falls in found.words])


WORDS = "what the score of the first picture loses without each word (it says what the model did, not why):"


def about_lines(found: Search) -> list[str]:
    """What the answer rests on, and what is to be known of it."""
    gallery, told = found.gallery, []
    if found.new_words:
        told.append(
            f"in no caption that this run was trained on: {', '.join(found.new_words)}; captions with a new word find "
            "their picture less often (windtunnel evaluate says how often)"
        )
    if found.new_words is None:
        told.append("whether training had these words is not known: its captions are not here")
    if found.cut:
        told.append("the text is longer than the model reads: its end was left out")
    told.append(
        f"score: cosine x {found.scale:.3g}, which was learned; share: softmax of the scores of all "
        f"{len(gallery.names):,} pictures, which sum to 100 % also where none of them fits"
    )
    if gallery.n_new:
        told.append(
            f"indexed: {gallery.n_new:,} new pictures in {gallery.seconds:.1f} s "
            f"({gallery.n_new / max(gallery.seconds, 1e-9):,.0f} a second); the next search finds them in the cache"
        )
    told += [f"left out: {reason}" for reason in gallery.left_out]
    if credit := gallery.pictures.credit:
        told.append(f"pictures: {credit}")
    return told


def search_dict(found: Search) -> dict[str, Any]:
    """Plain data for JSON, without the pictures themselves."""
    gallery = found.gallery
    kept = {name: value for name, value in vars(found).items() if name != "gallery"}
    told = {
        "of": gallery.of, "n": len(gallery.names), "n_new": gallery.n_new, "seconds": gallery.seconds,
        "left_out": gallery.left_out, "credit": gallery.pictures.credit,
    }  # fmt: skip
    words = [{"word": word, "falls": falls} for word, falls in found.words]
    return dict(plain(kept | {"words": words, "gallery": told}))


def search_page(found: Search) -> str:
    """The pictures themselves, their numbers, and what the words did; nothing is loaded from elsewhere.

    Raises:
        DataError: when a picture cannot be read.
    """
    draw = found.gallery.pictures.draw
    shown = [(draw(hit.name, SIDE), f"{i}. {_name(hit)}", _lines(hit)) for i, hit in enumerate(found.hits, start=1)]
    body = [f"<h1>{escape(found.text)}</h1>", f'<p class="quiet">{escape(_among(found))}</p>', grid(shown)]
    if found.words:
        body += [f"<p>{escape(WORDS)}</p>", words_table(found).html()]
    body += [f'<p class="quiet">{escape(line)}</p>' for line in about_lines(found)]
    body.append(f'<p class="quiet">{escape(f"{found.run}, step {found.step}")}</p>')
    return page(f"Pictures: {found.text}", "\n".join(body), search_dict(found), style=STYLE)


def _lines(hit: Hit) -> list[str]:
    return [f"score {hit.score:.2f}, cosine {hit.cosine:.3f}", f"share {100 * hit.share:.1f} %"]


def _name(hit: Hit) -> str:
    """A picture by its name and its caption."""
    return f"{hit.name} {clipped(hit.caption)}" if hit.caption else hit.name

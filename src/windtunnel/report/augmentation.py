"""What augmentation does to pictures: as a table of settings, a page and a figure that show them."""

from __future__ import annotations

import textwrap
from html import escape
from typing import Any

from matplotlib.figure import Figure

from windtunnel.config import plain
from windtunnel.inspect.explain_augmentation import Augmentation
from windtunnel.report.charts import drawing
from windtunnel.report.explain import Part
from windtunnel.report.html import page, scrolling_table
from windtunnel.report.pictures import STYLE, image
from windtunnel.report.table import clipped, table

ABOUT = {
    "shift": "moved by up to this share of a side, both ways; what comes in is white",
    "scale": "made larger or smaller by up to this share",
    "rotate": "turned by up to so many degrees",
    "colour": "brightness, contrast and saturation times up to 1 plus or minus this",
    "flip": "half of the pictures are mirrored",
}


def about_lines(found: Augmentation) -> list[str]:
    """What is shown, and whose pictures they are."""
    first, last = found.epochs[0] + 1, found.epochs[-1] + 1
    told = [
        f"{len(found.names)} pictures of the train split of {found.corpus}, as they are and as training draws them in "
        f"epochs {first} to {last} of seed {found.seed}; the same seed draws the same again"
    ]
    return told + [f"pictures: {found.credit}"] * bool(found.credit)


def augmentation_parts(found: Augmentation) -> list[Part]:
    """The settings, the pictures by name, and how far each is from what it was."""
    settings = [(f"task.augment.{name}", str(value).lower(), ABOUT[name]) for name, value in _settings(found)]
    apart = abs(found.changed.astype(float) - found.plain[:, None]).mean((1, 2, 3, 4)) / 255
    pictures = [(_said(found, i), f"{100 * far:.1f} %") for i, far in enumerate(apart)]
    more = "a pixel's mean change, of all between black and white; to see them: --html PAGE, --figure FILE"
    return [
        Part("Augmentation", ("setting", "value", "each picture and epoch is"), tuple(settings)),
        Part("Pictures", ("picture", "changed by"), tuple(pictures), (more, *about_lines(found))),
    ]


def augmentation_dict(found: Augmentation) -> dict[str, Any]:
    """Plain data for JSON, without the pixels."""
    kept = {name: value for name, value in vars(found).items() if name not in ("plain", "changed", "settings")}
    return dict(plain(kept | {"settings": found.settings.model_dump()}))


def augmentation_page(found: Augmentation) -> str:
    """A row a picture: as it is, then as each epoch draws it."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("picture", *_epochs(found)))
    rows = [
        f"<tr><td>{image(found.plain[i], said)}{escape(said)}</td>"
        + "".join(f"<td>{image(one, f'{said}, {epoch}')}</td>" for one, epoch in zip(own, _epochs(found), strict=True))
        + "</tr>"
        for i, own in enumerate(found.changed)
        for said in [_said(found, i)]
    ]
    settings = table("", ("setting", "value"), [(name, str(value).lower()) for name, value in _settings(found)])
    body = [
        "<h1>What training sees of a picture</h1>",
        *(f'<p class="quiet">{escape(line)}</p>' for line in about_lines(found)),
        scrolling_table(head, rows, "sheet"),
        settings.html(),
    ]
    return page("Augmentation", "\n".join(body), augmentation_dict(found), style=STYLE)


def augmentation_figure(found: Augmentation) -> Figure:
    """A contact sheet: a row a picture, as it is and then as each epoch draws it."""
    n, draws = found.changed.shape[:2]
    with drawing(1.2 * (draws + 1), 1.3 * n + 0.8) as figure:
        for i, row in enumerate(figure.subplots(n, draws + 1, squeeze=False)):
            for axes, shown in zip(row, [found.plain[i], *found.changed[i]], strict=True):
                axes.imshow(shown, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            row[0].set_title(clipped(found.captions[i], 18), fontsize=8)
            if i == 0:
                for axes, epoch in zip(row[1:], _epochs(found), strict=True):
                    axes.set_title(epoch, fontsize=8)
        about = [part for line in about_lines(found) for part in textwrap.wrap(line, 20 * (draws + 1))]
        figure.supxlabel("\n".join(about), fontsize=7)
    return figure


def _epochs(found: Augmentation) -> list[str]:
    return [f"epoch {epoch + 1}" for epoch in found.epochs]


def _settings(found: Augmentation) -> list[tuple[str, Any]]:
    return list(found.settings.model_dump().items())


def _said(found: Augmentation, i: int) -> str:
    return f"{found.names[i]} {clipped(found.captions[i])}"

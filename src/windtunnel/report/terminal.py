"""The terminal: every text is shown as it is, never as markup, and nothing in it can steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from windtunnel.text.visible import visible

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.status import Status


class PlainConsole(Console):
    """A console without markup, emoji codes and highlighting, which writes control characters out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with the control characters of texts, though not of rich itself, written out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does; written out before its width is measured."""
        return super().render_str(visible(text), **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """As rich does, which would take a string as markup."""
        return super().status(as_text(status) if isinstance(status, str) else status, **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the caller; rich would end the process with 1."""
        raise


def as_text(text: str, style: str = "") -> Text:
    """A text for a table or a line, written out before its width is measured."""
    return Text(visible(text), style)


def console(stderr: bool = True, quiet: bool = False) -> PlainConsole:
    """The console of messages, or with stderr=False that of results."""
    return PlainConsole(stderr=stderr, quiet=quiet)

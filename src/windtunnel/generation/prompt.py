"""Where a text begins and ends for a model: the prompt as ids, and ids as text while they come.

corpus unit     the prompt is preceded by     generation stops at
line, file      the end mark                  the end mark
text            nothing                       nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from windtunnel.errors import DataError
from windtunnel.text.tokenizers import Tokenizer


def prompt_ids(tokenizer: Tokenizer, unit: str, prompt: str) -> list[int]:
    """The ids that a model reads before it continues a prompt; documents begin with the end mark.

    Args:
        unit: that of the corpus the model was trained on: "line", "file" or "text".

    Raises:
        DataError: for a character without a token, or an empty prompt where no end mark can stand for it.
    """
    begin = [] if (end := end_mark(tokenizer, unit)) is None else [end]
    ids = begin + [int(i) for i in tokenizer.encode(prompt)]
    if not ids:
        raise DataError(
            "the prompt is empty, and a model of running text has no mark to begin from; give at least one character"
        )
    return ids


def end_mark(tokenizer: Tokenizer, unit: str) -> int | None:
    """The id that begins and ends a document; None for a model of running text."""
    return None if unit == "text" else tokenizer.end_id


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """How a token is shown to a person; a row of the model that no token uses is <unused 50300>."""
    return tokenizer.token(id) if id < tokenizer.vocab_size else f"<unused {id}>"


def spell(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """What each further id adds to the text; joined, the text of all ids without end marks.

    A character whose bytes are spread over several tokens comes with the last of them.
    """
    read: list[int] = []
    shown = ""
    for id in ids:
        if id != tokenizer.end_id:
            read.append(id)
        text = tokenizer.decode(read)
        if text.endswith("\ufffd"):
            yield ""
            continue
        yield text[len(shown) :]
        shown = text
        if text.endswith("\n"):
            read, shown = [], ""
    yield tokenizer.decode(read)[len(shown) :]

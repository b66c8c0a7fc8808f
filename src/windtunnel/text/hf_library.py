"""Calls into the `tokenizers` library of Hugging Face, which is written in Rust: its errors and its threads."""

from __future__ import annotations

import os
from types import TracebackType

from windtunnel.errors import DataError

# "false", or a forked process would warn; batches switch it on while they run, unless the user has decided.
_USER_PARALLELISM = os.environ.get("TOKENIZERS_PARALLELISM")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Library:
    """Around calls into Rust: its errors are bare `Exception`s, and it can panic (a private BaseException).

    Both become a DataError; anything else (KeyboardInterrupt, MemoryError, our own errors) passes.
    """

    def __init__(self, doing: str) -> None:
        self.doing = doing

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is Exception or (kind is not None and kind.__name__ == "PanicException"):
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"the tokenizers library could not {self.doing} ({reason}); use another tokenizer file"
            ) from None


class Parallel:
    """All cores for the library while inside, unless the user has set TOKENIZERS_PARALLELISM.

    A process forked after the thread pool was started inherits the pool without its threads and would wait
    for them for ever, so it uses one core.
    """

    started_by: int | None = None  # id of the process that started the pool

    def __init__(self, on: bool) -> None:
        self.on = on and _USER_PARALLELISM is None and Parallel.started_by in (None, os.getpid())

    def __enter__(self) -> None:
        if self.on:
            Parallel.started_by = os.getpid()
            os.environ["TOKENIZERS_PARALLELISM"] = "true"

    def __exit__(self, *_: object) -> None:
        if self.on:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"

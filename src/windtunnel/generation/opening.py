"""What a model reads before it writes, as a request asks for it."""

from __future__ import annotations

from typing import NamedTuple

from windtunnel.generation.chat import chat_ids
from windtunnel.generation.prompt import end_mark, prompt_ids
from windtunnel.generation.request import Request
from windtunnel.training.run import TrainedModel


class Opening(NamedTuple):
    """The ids that are read."""

    ids: list[int]
    end: int | None
    """The id that ends what is written."""
    is_marked: bool
    """Whether the first id is an end mark, which is not shown."""


def opening(trained: TrainedModel, request: Request) -> Opening:
    """What the model of a run reads for a request. Raises as `prompt_ids` and `chat_ids` do."""
    if request.chat:
        return Opening(*chat_ids(trained.tokenizer, trained.run.record.get("chat") or {}, request.prompt), False)
    unit = trained.run.config.text.unit
    end = end_mark(trained.tokenizer, unit)
    return Opening(prompt_ids(trained.tokenizer, unit, request.prompt), end, end is not None)

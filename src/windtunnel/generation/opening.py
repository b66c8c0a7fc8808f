"""What a model reads before it writes, as a request asks for it."""

from __future__ import annotations

from typing import NamedTuple

from windtunnel.generation.chat import chat_ids
from windtunnel.generation.prompt import end_mark, prompt_ids
from windtunnel.generation.request import Request
from windtunnel.models.pretrained.marks import marks_of
from windtunnel.training.run import TrainedModel


class Opening(NamedTuple):
    """The ids that are read."""

    ids: list[int]
    ends: frozenset[int]
    """The ids of which any ends what is written."""
    is_marked: bool
    """Whether the first id is an end mark, which is not shown."""


def opening(trained: TrainedModel, request: Request) -> Opening:
    """What the model of a run reads for a request, and what ends its answer.

    A text for a model from elsewhere begins with what its tokenizer's post-processor puts in front of one (Llama's
    begin token), and ends with the ids that came with the model. Raises as `prompt_ids` and `chat_ids` do.
    """
    tokenizer, marks, unit = trained.tokenizer, marks_of(trained.run.record), trained.run.config.text.unit
    if request.chat:
        ids, end = chat_ids(tokenizer, {} if marks is None else marks.chat, request.prompt)
        return Opening(ids, _ends(trained, end), False)
    ends = ends_of(trained)
    if marks is not None and (front := tokenizer.front):
        return Opening([*front, *tokenizer.encode(request.prompt).tolist()], ends, False)
    return Opening(prompt_ids(tokenizer, unit, request.prompt), ends, end_mark(tokenizer, unit) is not None)


def ends_of(trained: TrainedModel) -> frozenset[int]:
    """The ids of which any ends a text of a model."""
    return _ends(trained, end_mark(trained.tokenizer, trained.run.config.text.unit))


def _ends(trained: TrainedModel, end: int | None) -> frozenset[int]:
    """The ids that came with the model as ends, and this one."""
    marks = marks_of(trained.run.record)
    own = frozenset() if marks is None else marks.ends(trained.tokenizer)
    return own if end is None else own | {end}

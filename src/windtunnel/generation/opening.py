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
    tokenizer, marks = trained.tokenizer, marks_of(trained.run.record)
    ends = frozenset() if marks is None else marks.ends(tokenizer)
    if request.chat:
        ids, end = chat_ids(tokenizer, {} if marks is None else marks.chat, request.prompt)
        return Opening(ids, ends if end is None else ends | {end}, False)
    unit = trained.run.config.text.unit
    if (end := end_mark(tokenizer, unit)) is not None:
        ends |= {end}
    if marks is not None and (front := tokenizer.front):
        return Opening([*front, *tokenizer.encode(request.prompt).tolist()], ends, False)
    return Opening(prompt_ids(tokenizer, unit, request.prompt), ends, end is not None)

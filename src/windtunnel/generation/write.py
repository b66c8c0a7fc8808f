"""Texts without their numbers: those that a model writes while it trains, and many at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from windtunnel.errors import DataError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import Finish, decode_many
from windtunnel.generation.opening import opening
from windtunnel.generation.prompt import Continuation, end_mark
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.translate import translate_all
from windtunnel.models import Model
from windtunnel.nn.init import stream
from windtunnel.nn.mode import evaluating
from windtunnel.tasks.translation import TURN
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import Run, TrainedModel

SAMPLE = SamplingConfig(temperature=0.8)


class Written(NamedTuple):
    """A text, and why it ends."""

    text: str
    finish: Finish


def write_sample(model: Model, run: Run) -> str:
    """`train.sample_tokens` tokens at temperature 0.8, drawn with the run's seed; the same numbers at every step.

    A model of documents begins from the end mark, and begins another document after each one it ends; documents
    stand on lines of their own. A model of running text continues a newline, or the corpus's first held-out token.
    One that translates writes the targets of some held-out sources, greedily and whole, a line each.
    A model without a causal mask cannot write, and the sample says so.
    """
    if not model.config.is_causal:
        return "(no sample: a model without a causal mask cannot write)"
    n_tokens = run.config.train.sample_tokens
    with evaluating(model):
        if run.config.task.kind == "translation":
            return "\n".join(_targets(model, run, n_tokens))
        if (end := end_mark(run.tokenizer, run.config.text.unit)) is not None:
            return "\n".join(_documents(model, run, end, n_tokens))
        opening, request = [_opening(run)], Request("", n_tokens, SAMPLE, run.config.seed)
        return _write(model, run.tokenizer, opening, (), request)[0].added


def write_samples(trained: TrainedModel, request: Request, n: int, steps: Steps | None = None) -> list[Written]:
    """The request's text, prompt included, with its seed and the n - 1 after it, all at once.

    Each text is the one that `generate` writes with its seed.

    Raises:
        DataError: as `windtunnel.generation.prompt.prompt_ids`.
    """
    tokenizer, (ids, ends, _) = trained.tokenizer, opening(trained, request)
    texts = _write(trained.model, tokenizer, ids, ends, request, n, steps or Steps(trained.model))
    return [Written("".join(text.prompt) + text.added, text.finish or "length") for text in texts]


def _write(
    model: Model,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    ends: Collection[int],
    request: Request,
    n: int = 1,
    steps: Steps | None = None,
) -> list[Continuation]:
    """What n seeds add to ids, until the last text has ended."""
    texts = [Continuation(tokenizer, ids, ends, request.n_tokens, request.stop) for _ in range(n)]
    seeds = range(request.seed, request.seed + n)
    for new_B, _, _ in decode_many(model, ids, request.n_tokens, request.sampling, seeds, tokenizer.vocab_size, steps):
        for text, id in zip(texts, new_B.tolist(), strict=True):
            if not text.finish:
                text.add(id)
        if all(text.finish for text in texts):
            break
    return texts


def _documents(model: Model, run: Run, end: int, n_tokens: int) -> Iterator[str]:
    number = 0
    while n_tokens > 0:
        request = Request("", n_tokens, SAMPLE, stream(run.config.seed, "document", number))
        (text,) = _write(model, run.tokenizer, [end], [end], request)
        yield text.added
        n_tokens, number = text.n_left, number + 1


def _targets(model: Model, run: Run, n_tokens: int) -> Iterator[str]:
    """The first sources of the dev split, or of the train split, with what the model makes of them."""
    store = run.store()
    documents = store.documents("dev" if len(store.splits["dev"].ids) else "train")
    sources = [document.partition(TURN)[0] for document in islice(documents, n_tokens)]
    trained = TrainedModel(run, model, run.tokenizer, 0, ())
    for one in translate_all(trained, [source for source in sources if source]):
        if n_tokens <= 0:
            break
        yield f"{one.source} -> {one.target}"
        n_tokens -= len(one.alternatives[0].ids)


def _opening(run: Run) -> int:
    """The token that a sample of running text begins after."""
    try:
        return int(run.tokenizer.encode("\n")[-1])
    except DataError:
        splits = run.store().splits
        return int((splits["dev"].ids if len(splits["dev"].ids) else splits["train"].ids)[0])

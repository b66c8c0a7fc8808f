"""Texts without their numbers: those that a model writes while it trains, and many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windtunnel.errors import DataError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import decode, decode_many
from windtunnel.generation.prompt import end_mark, prompt_ids
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.models import Model
from windtunnel.nn.init import stream
from windtunnel.training.run import Run, TrainedModel

SAMPLE = SamplingConfig(temperature=0.8)


def write_sample(model: Model, run: Run) -> str:
    """`train.sample_tokens` tokens at temperature 0.8, drawn with the run's seed; the same numbers at every step.

    A model of documents begins from the end mark, and begins another document after each one it ends; documents
    stand on lines of their own. A model of running text continues a newline, or the corpus's first held-out token.
    A model without a causal mask cannot write, and the sample says so.
    """
    if not model.config.is_causal:
        return "(no sample: a model without a causal mask cannot write)"
    n_tokens, was_training = run.config.train.sample_tokens, model.training
    model.eval()
    try:
        if (end := end_mark(run.tokenizer, run.config.text.unit)) is not None:
            return "\n".join(_documents(model, run, end, n_tokens))
        new = decode(model, [_opening(run)], n_tokens, SAMPLE, run.config.seed, None, run.tokenizer.vocab_size)
        return run.tokenizer.decode([token.id for token in new])
    finally:
        model.train(was_training)


def write_samples(
    trained: TrainedModel,
    prompt: str,
    n_tokens: int,
    sampling: SamplingConfig,
    seeds: Sequence[int],
    steps: Steps | None = None,
) -> list[str]:
    """The prompt continued once for each seed, all at once; each text is the one that `generate` writes with its seed.

    Raises:
        DataError: as `windtunnel.generation.prompt.prompt_ids`.
    """
    tokenizer, unit = trained.tokenizer, trained.run.config.text.unit
    ids, end = prompt_ids(tokenizer, unit, prompt), end_mark(tokenizer, unit)
    steps = steps or Steps(trained.model)
    many = decode_many(trained.model, ids, n_tokens, sampling, seeds, end, tokenizer.vocab_size, steps)
    columns = [new_B.tolist() for new_B, _, _ in many]
    texts = []
    for row in range(len(seeds)):
        new = [column[row] for column in columns]
        text = ids + (new[: new.index(end)] if end in new else new)
        texts.append(tokenizer.decode([id for id in text if id != tokenizer.end_id]))
    return texts


def _documents(model: Model, run: Run, end: int, n_tokens: int) -> Iterator[str]:
    number = 0
    while n_tokens > 0:
        seed = stream(run.config.seed, "document", number)
        ids = [t.id for t in decode(model, [end], n_tokens, SAMPLE, seed, end, run.tokenizer.vocab_size)]
        yield run.tokenizer.decode([id for id in ids if id != end])
        n_tokens, number = n_tokens - len(ids), number + 1


def _opening(run: Run) -> int:
    """The token that a sample of running text begins after."""
    try:
        return int(run.tokenizer.encode("\n")[-1])
    except DataError:
        splits = run.store().splits
        return int((splits["dev"].ids if len(splits["dev"].ids) else splits["train"].ids)[0])

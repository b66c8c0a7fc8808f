"""From sources to their most probable targets, by a run that was trained on pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.beam import Beam, Hypothesis, search
from windtunnel.generation.decode import Ids, Position, Reader
from windtunnel.generation.prompt import Spelling
from windtunnel.generation.trace import TokenTrace, describe
from windtunnel.models import ModelConfig
from windtunnel.tasks.translation import TURN
from windtunnel.text.batches import in_turn
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import TrainedModel

AT_ONCE = 2**24
"""Numbers, of keys, values and logits, that the hypotheses of a batch may keep: 64 MiB in float32."""
LARGEST = 2**30
"""Numbers that those of one source may keep: 4 GiB in float32."""


@dataclass(frozen=True)
class Target:
    """What a source may be translated to; another target may be the same text in other tokens."""

    target: str
    probability: float
    """Of all its tokens with the end mark, by the model, given the source."""
    log_probability: float
    """Its natural logarithm, which does not underflow."""
    score: float
    """log_probability over the length penalty; the targets of a source are ranked by it."""
    complete: bool
    """Whether the end mark was reached before the context ended."""
    ids: tuple[int, ...]
    """Its tokens, the end mark with them."""


@dataclass(frozen=True)
class Translated:
    """One source and the best of its targets."""

    source: str
    target: str
    probability: float
    complete: bool
    alternatives: tuple[Target, ...] = ()
    """As many targets as were asked for, if the beam found them, the best first; it is the target itself."""


def translate(
    trained: TrainedModel, text: str, beam: int = 1, alternatives: int = 1, length_penalty: float = Beam.length_penalty
) -> list[Translated]:
    """Translate a text: each of its `sources` by itself.

    Args:
        beam: hypotheses that are followed at a time; 1 is greedy, the most probable token at each step.
        alternatives: targets that are given of each source, at most; no more than the beam is wide.
        length_penalty: as in `windtunnel.generation.beam.Beam`.

    Raises:
        ConfigError: for a run that was not trained to translate, nothing to translate, or a beam that is none.
        DataError: for a character that the tokenizer does not know, or a source that fills the context.
    """
    return [one for line in translate_lines(trained, text, beam, alternatives, length_penalty) for one in line]


def translate_lines(
    trained: TrainedModel, text: str, beam: int = 1, alternatives: int = 1, length_penalty: float = Beam.length_penalty
) -> list[list[Translated]]:
    """`translate` line by line, so that line n is that of line n of the text; a blank line has no source."""
    _require_pairs(trained)
    lines = [sources(line, trained.tokenizer) for line in text.removesuffix("\n").split("\n")]
    if not any(lines):
        raise ConfigError("expected something to translate, given an empty text")
    given = [source for line in lines for source in line]
    made = iter(translate_all(trained, given, beam, alternatives, length_penalty))
    return [[next(made) for _ in line] for line in lines]


def translate_all(
    trained: TrainedModel,
    sources: Sequence[str],
    beam: int = 1,
    alternatives: int = 1,
    length_penalty: float = Beam.length_penalty,
) -> list[Translated]:
    """Translate each of many sources as a whole, many at a time; the same as one by one, only sooner.

    Raises:
        ConfigError: for a run that was not trained to translate, or a beam that is none.
        DataError: for a source that is empty, has a character without a token, or fills the context.
    """
    _require_pairs(trained)
    how = Beam(beam, alternatives, length_penalty)
    given = {source: _given(trained, source) for source in sources}  # a word that comes often is translated once
    found = dict(zip(given, _search(trained, list(given.values()), how), strict=True))
    made = {source: _translated(trained, source, given[source], found[source]) for source in given}
    return [made[source] for source in sources]


def sources(line: str, tokenizer: Tokenizer) -> list[str]:
    """The words of a line where the tokenizer knows no space, as one that was made for words; or the line as one
    source, however many sentences it has. None of a blank line."""
    try:
        tokenizer.encode(" ")
    except DataError:
        return line.split()
    return [line.strip()] if line.strip() else []


def target_tokens(trained: TrainedModel, one: Translated, alternatives: int) -> list[TokenTrace]:
    """The tokens of the target, its end mark with them, and the most probable ones at each position."""
    reader, (before,) = _begin(trained, [_given(trained, one.source)])
    ids, spelling = one.alternatives[0].ids, Spelling(trained.tokenizer)
    rows = list(reader.next_logits([*before.tolist(), *ids[:-1]]))[len(before) - 1 :]
    for id in before.tolist():
        spelling.add(id)
    pieces = [spelling.add(id) for id in ids]
    pieces[-1] += spelling.rest()
    positions = [Position(id, row, piece=piece) for id, row, piece in zip(ids, rows, pieces, strict=True)]
    return list(describe(trained.tokenizer, positions, alternatives))


def read_ids(trained: TrainedModel, one: Translated) -> tuple[list[int], list[int]]:
    """What the model reads to write a target: the ids of the source with their marks, and those that follow.

    To a model that reads pairs these are two sequences, else one; the token after the last of the source, or in a pair
    after the first of the target, is the first that is written.
    """
    written = list(one.alternatives[0].ids[:-1])
    if trained.model.config.reads == "pair":
        written = [_end(trained.tokenizer), *written]
    return _given(trained, one.source), written


def _require_pairs(trained: TrainedModel) -> None:
    if (kind := trained.run.config.task.kind) != "translation":
        raise ConfigError(
            f"{trained.run.folder} was trained for {kind}, not to translate; train one with: windtunnel train pig-latin"
        )


def _given(trained: TrainedModel, source: str) -> list[int]:
    """What a model reads of a source: end source turn, or source end where it reads it before it writes."""
    config, tokenizer = trained.model.config, trained.tokenizer
    apart = config.reads == "pair"
    most = config.context_length - (1 if apart else 2)
    if not source:
        raise DataError("expected a source to translate, given an empty one")
    if TURN in source:
        raise DataError(f"cannot translate {source[:60]!r}: it has a TAB, which ends a source; take it out")
    try:
        ids = tokenizer.encode(source if apart else source + TURN).tolist()
    except DataError as error:
        raise DataError(f"cannot translate {source[:60]!r}: {error}") from None
    n = len(ids) - (not apart)
    if n > most:
        raise DataError(
            f"cannot translate {source[:60]!r}: it has {n} tokens, and this model reads at most {most}; shorten it, "
            "or split it into lines"
        )
    return [*ids, _end(tokenizer)] if apart else [_end(tokenizer), *ids]


def _end(tokenizer: Tokenizer) -> int:
    if tokenizer.end_id is None:
        raise ConfigError("a tokenizer for pairs needs an end mark; use characters or bpe")
    return tokenizer.end_id


def _search(trained: TrainedModel, given: Sequence[list[int]], how: Beam) -> list[list[Hypothesis]]:
    """What follows each of the given, many at a time: a reader's rows have one length, and sources read before may
    have any."""
    config, end = trained.model.config, _end(trained.tokenizer)
    size = _rows_at_once(config, how.width)
    found: dict[int, list[Hypothesis]] = {}
    by_length = sorted(range(len(given)), key=lambda i: len(given[i]))
    for _, alike in groupby(by_length, key=lambda i: 0 if config.reads == "pair" else len(given[i])):
        for some in in_turn(np.array(list(alike)), size):
            reader, rows = _begin(trained, [given[i] for i in some])
            room = config.context_length - rows.shape[1] + 1  # the last token is not read
            found.update(zip(some, search(reader, rows, end, room, how, trained.tokenizer.vocab_size), strict=True))
    return [found[i] for i in range(len(given))]


def _begin(trained: TrainedModel, given: Sequence[list[int]]) -> tuple[Reader, Ids]:
    """A reader that knows the sources, and the rows (B, T) that it reads before the targets."""
    model = trained.model
    if model.config.reads != "pair":
        return Reader(model), np.array(given)
    lengths = np.array([len(ids) for ids in given])
    kept = np.arange(lengths.max()) < lengths[:, None]
    source = np.zeros(kept.shape, dtype=np.int64)
    source[kept] = np.concatenate(given)
    device = next(model.parameters()).device
    with torch.no_grad():
        memory = model.encode(torch.from_numpy(source).to(device), torch.from_numpy(kept).to(device))
    return Reader(model, memory=memory), np.full((len(given), 1), _end(trained.tokenizer))


def _rows_at_once(config: ModelConfig, width: int) -> int:
    """How many sources are translated as one batch.

    Raises:
        ConfigError: when the beam of one source would need too much memory.
    """
    each = config.cache_elements() + 8 * config.vocab_size
    if width * each > LARGEST:
        raise ConfigError(
            f"a beam of {width:,} keeps {width * each * 4 / 2**30:,.0f} GiB of keys, values and logits; this model "
            f"allows at most {max(1, LARGEST // each):,}"
        )
    return max(1, AT_ONCE // (width * each))


def _translated(trained: TrainedModel, source: str, given: list[int], found: Sequence[Hypothesis]) -> Translated:
    before = [] if trained.model.config.reads == "pair" else given
    n_before = len(_text(trained.tokenizer, before))
    targets = tuple(
        Target(
            _text(trained.tokenizer, [*before, *one.ids])[n_before:],
            math.exp(one.log_probability),
            one.log_probability,
            one.score,
            one.complete,
            one.ids,
        )
        for one in found
    )
    return Translated(source, targets[0].target, targets[0].probability, targets[0].complete, targets)


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    marks = set(tokenizer.marks.values())
    return tokenizer.decode([id for id in ids if id not in marks])

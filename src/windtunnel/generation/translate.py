"""From a source to the most probable target, by a run that was trained on pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import generate
from windtunnel.tasks.translation import TURN
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import TrainedModel

GREEDY = SamplingConfig(temperature=0.0)


@dataclass(frozen=True)
class Translated:
    """One source and its target. probability: of the whole target, by the model, with its end mark.

    complete: whether the end mark was reached before the context ended.
    """

    source: str
    target: str
    probability: float
    complete: bool


def translate(trained: TrainedModel, text: str, steps: Steps | None = None) -> list[Translated]:
    """Translate a text greedily: each of `sources` by itself, the most probable token at each step.

    Raises:
        ConfigError: for a run that was not trained to translate, or nothing to translate.
        DataError: for a character that the tokenizer does not know, or a source that fills the context.
    """
    config, tokenizer = trained.run.config, trained.tokenizer
    if config.task.kind != "translation":
        raise ConfigError(
            f"{trained.run.folder} was trained for {config.task.kind}, not to translate; train one with: "
            "windtunnel train pig-latin --recipe translate"
        )
    given = sources(text, tokenizer)
    if not given:
        raise ConfigError("expected something to translate, given an empty text")
    return [_translated(trained, source, steps) for source in given]


def translate_all(trained: TrainedModel, sources: Sequence[str], beam: int = 1) -> list[Translated]:
    """Translate each source as it is, uncut: the most probable token at each step.

    Raises:
        ConfigError: for a beam other than 1, which is greedy decoding.
        DataError: for a character that the tokenizer does not know, or a source that fills the context.
    """
    if beam != 1:
        raise ConfigError(f"only greedy decoding is there yet, which is beam=1; given beam={beam}")
    return [_translated(trained, source, None) for source in sources]


def sources(text: str, tokenizer: Tokenizer) -> list[str]:
    """Lines; the words of each where the tokenizer knows no space, as one that was made for words."""
    try:
        tokenizer.encode(" ")
    except DataError:
        return text.split()
    return [line.strip() for line in text.splitlines() if line.strip()]


def _translated(trained: TrainedModel, source: str, steps: Steps | None) -> Translated:
    room = trained.model.config.context_length - len(trained.tokenizer.encode(source + TURN))
    if TURN in source or room < 1:
        what = "a TAB in it" if TURN in source else f"more than {trained.model.config.context_length - 2} tokens"
        raise DataError(f"cannot translate {source[:60]!r}: it has {what}; shorten it, or split it into lines")
    request = Request(source + TURN, room, GREEDY, alternatives=1)
    made = [token for token in generate(trained, request, steps=steps) if token.probability is not None]
    probability = math.exp(-sum(token.surprise_bits or 0.0 for token in made) * math.log(2))
    return Translated(
        source, "".join(token.piece for token in made), probability, bool(made) and made[-1].finish == "stop"
    )

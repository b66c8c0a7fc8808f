"""Looking at a text through a model: the trace, the attention or the gradients through time, and their pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from windtunnel.errors import ConfigError
from windtunnel.files import write_text
from windtunnel.generation.opening import opening
from windtunnel.generation.prompt import token_text
from windtunnel.generation.request import Request
from windtunnel.generation.trace import Trace, corpus_truth, trace
from windtunnel.inspect.attention import AttentionMap, attention
from windtunnel.inspect.through_time import factor_per_step, through_time
from windtunnel.models import RNN, as_transformer
from windtunnel.report.figures import attention_figure, save_figure, through_time_figure
from windtunnel.report.page import attention_page, trace_page
from windtunnel.training.disk import saving
from windtunnel.training.run import TrainedModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Look:
    """A text as a model sees it, and the files in which it can be seen.

    labels: the text of each token that attention was computed on, the end mark that begins a document included.
    """

    trace: Trace
    attention: AttentionMap
    labels: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def max_difference(self) -> float:
        """Largest difference between the logits of the pass that shows its weights and of the fast path."""
        return self.attention.max_difference

    def to_dict(self) -> dict[str, Any]:
        """The trace, and the attention weights by layer, head, query and key."""
        weights = self.attention.weights.round(6).tolist()
        attention = {"labels": self.labels, "weights": weights, "max_difference": self.max_difference}
        return {"trace": self.trace.to_dict(), "attention": attention, "files": [str(path) for path in self.files]}


@dataclass(frozen=True)
class LookThroughTime:
    """A text as a recurrent network sees it: how far each state reaches, and the files in which it can be seen.

    norms: (T, T), of `windtunnel.inspect.through_time`. labels: the T tokens' texts, the first end mark included.
    """

    trace: Trace
    norms: npt.NDArray[np.float64]
    factor: float
    """Per step, the geometric mean; NaN for a single token."""
    labels: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def sentence(self) -> str:
        """By how much a change of the state grows or shrinks."""
        n = len(self.labels) - 1
        if not n:
            return "state: one token has no step to the next; give a longer text"
        steps = "1 step" if n == 1 else f"geometric mean of {n} steps"
        return (
            f"state: from one token to the next a small change is multiplied by at most {self.factor:.3g} ({steps}), "
            f"from the first token to the last by at most {self.norms[-1, 0]:.3g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The trace, and the norms by row t and column s; the factor per step is null for a single token."""
        factor = None if math.isnan(self.factor) else self.factor
        reach = {"labels": self.labels, "norms": self.norms.tolist(), "factor_per_step": factor}
        return {"trace": self.trace.to_dict(), "through_time": reach, "files": [str(path) for path in self.files]}


def look_at(
    trained: TrainedModel,
    text: str,
    folder: Path,
    alternatives: int = 6,
    layer: int | None = None,
    head: int | None = None,
) -> Look | LookThroughTime:
    """Trace a text, compute its attention, and write attention.png, attention.html and trace.html into a folder.

    Of a recurrent network, through_time.png stands for the two files on attention.

    Args:
        layer, head: draw only these, counted from 1.

    Raises:
        ConfigError: for no text, a layer or head that the model does not have, or a model that reads pairs or is an
            mlp.
        DataError: for a text longer than the context, or with a character the tokenizer does not know.
    """
    if not text:
        raise ConfigError(
            f"there is no text to look at; give one: windtunnel look {quote(str(trained.run.folder))} TEXT"
        )
    if trained.model.config.reads == "pair":
        raise ConfigError(
            f"look shows a text that a model continues, and {trained.run.folder} writes the target of a source; give: "
            f"windtunnel translate {quote(str(trained.run.folder))} {quote(text)} --attention out.html"
        )
    if isinstance(trained.model, RNN):
        if layer is not None or head is not None:
            raise ConfigError("a recurrent network has no attention to choose from; leave out --layer and --head")
        return _look_through_time(trained, text, folder, alternatives)
    model = as_transformer(trained.model, "look").config
    for name, given, most in (("layer", layer, model.n_layers), ("head", head, model.n_heads)):
        if given is not None and not 1 <= given <= most:
            raise ConfigError(f"there is no {name} {given}; the model has 1 to {most}")
    ids = opening(trained, Request(text, 0)).ids
    heads = attention(trained.model, ids)
    labels = tuple(token_text(trained.tokenizer, id) for id in ids)
    record = _trace(trained, text, alternatives)
    picture = attention_figure(heads.weights, labels, layer and layer - 1, head and head - 1)
    pages = {
        "attention.html": attention_page(heads, labels, record.run, record.step),
        "trace.html": trace_page(record),
    }
    return Look(record, heads, labels, _write(folder, "attention.png", picture, pages))


def look_folder(trained: TrainedModel, text: str, settings: Mapping[str, Any]) -> Path:
    """Where a look goes by default: a folder of its own beside the run, by seed, text, step and settings."""
    asked = json.dumps([text, trained.step, settings], sort_keys=True)
    words = re.sub(r"\W+", "-", text[:24]).strip("-")
    name = "-".join(filter(None, (trained.run.folder.name, words, sha256(asked.encode()).hexdigest()[:6])))
    return trained.run.folder.parent / "look" / name


def _look_through_time(trained: TrainedModel, text: str, folder: Path, alternatives: int) -> LookThroughTime:
    record = _trace(trained, text, alternatives)
    ids = opening(trained, Request(text, 0)).ids
    reach_TT = through_time(trained.model, ids)
    norms_TT, factor = reach_TT.cpu().numpy(), factor_per_step(reach_TT)
    labels = tuple(token_text(trained.tokenizer, id) for id in ids)
    picture = through_time_figure(norms_TT, labels, f"{record.run}, step {record.step}")
    files = _write(folder, "through_time.png", picture, {"trace.html": trace_page(record)})
    return LookThroughTime(record, norms_TT, factor, labels, files)


def _write(folder: Path, name: str, picture: Figure, pages: Mapping[str, str]) -> tuple[Path, ...]:
    """Write a picture and pages, by their names, into a folder; returns their paths."""
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_figure(picture, folder / name)
    with saving(folder):
        for page, text in pages.items():
            write_text(folder / page, text)
    return tuple(folder / each for each in (name, *pages))


def _trace(trained: TrainedModel, text: str, alternatives: int) -> Trace:
    return trace(trained, Request(text, 0, alternatives=alternatives), corpus_truth(trained))

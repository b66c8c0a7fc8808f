"""Looking at a text through a model: the trace, the attention, and the picture and pages of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from windtunnel.errors import ConfigError
from windtunnel.files import write_text
from windtunnel.generation.prompt import prompt_ids, token_text
from windtunnel.generation.request import Request
from windtunnel.generation.trace import Trace, corpus_truth, trace
from windtunnel.inspect.attention import AttentionMap, attention
from windtunnel.models import as_transformer
from windtunnel.report.figures import attention_figure, save_figure
from windtunnel.report.page import attention_page, trace_page
from windtunnel.training.disk import saving
from windtunnel.training.run import TrainedModel


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


def look_at(
    trained: TrainedModel,
    text: str,
    folder: Path,
    alternatives: int = 6,
    layer: int | None = None,
    head: int | None = None,
) -> Look:
    """Trace a text, compute its attention, and write attention.png, attention.html and trace.html into a folder.

    Args:
        layer, head: draw only these, counted from 1.

    Raises:
        ConfigError: for a layer or head that the model does not have, or a model that reads pairs.
        DataError: for a text longer than the context, or with a character the tokenizer does not know.
    """
    if trained.model.config.reads == "pair":
        raise ConfigError(
            f"look shows a text that a model continues, and {trained.run.folder} writes the target of a source; give: "
            f"windtunnel translate {quote(str(trained.run.folder))} {quote(text)} --attention out.html"
        )
    config, model = trained.run.config, as_transformer(trained.model, "look").config
    for name, given, most in (("layer", layer, model.n_layers), ("head", head, model.n_heads)):
        if given is not None and not 1 <= given <= most:
            raise ConfigError(f"there is no {name} {given}; the model has 1 to {most}")
    ids = prompt_ids(trained.tokenizer, config.text.unit, text)
    heads = attention(trained.model, ids)
    labels = tuple(token_text(trained.tokenizer, id) for id in ids)
    record = trace(trained, Request(text, 0, alternatives=alternatives), corpus_truth(trained))
    picture = attention_figure(heads.weights, labels, layer and layer - 1, head and head - 1)
    files = tuple(folder / name for name in ("attention.png", "attention.html", "trace.html"))
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_figure(picture, files[0])
    with saving(folder):
        write_text(files[1], attention_page(heads, labels, record.run, record.step))
        write_text(files[2], trace_page(record))
    return Look(record, heads, labels, files)

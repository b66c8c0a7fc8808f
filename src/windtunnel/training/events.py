"""What training says while it runs. The command line, a page, a notebook and the tests read the same stream,
and the run folder keeps it, one JSON object a line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from windtunnel.errors import ArtifactError
from windtunnel.files import read_file


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on, after `step` finished steps of `steps`."""

    step: int
    steps: int
    n_parameters: int
    flops_per_token: float
    """Matrix-multiply FLOPs of one predicted token, forward and backward, in an example of average length; 0 is not
    known."""
    peak_flops: float
    """Measured matrix-multiply rate of this machine, in FLOP/s, in the run's precision on its threads."""
    note: str = ""
    noun: str = "token"
    """What is predicted."""


@dataclass(frozen=True)
class Step:
    """One optimizer step is done. The loss is of the step's batch before its update, in nats per token."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    n_tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """The metrics of the task on a split after `step` steps, by name; `whole` is False when only a sample was read.

    n_tokens: how many targets were predicted.
    """

    step: int
    split: str
    scores: dict[str, float]
    n_tokens: int
    whole: bool

    @property
    def loss(self) -> float:
        """Nats a target."""
        return self.scores["loss"]


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote after `step` steps."""

    step: int
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint is safely on disk."""

    step: int
    path: str


@dataclass(frozen=True)
class Stopped:
    """The run has ended here: finished, asked to stop (and resumable), diverged, or failed."""

    step: int
    reason: Literal["finished", "interrupted", "diverged", "failed"]
    message: str = ""


Event = Started | Step | Evaluation | Sample | Saved | Stopped

EVENTS: dict[str, type[Any]] = {
    "started": Started,
    "step": Step,
    "evaluation": Evaluation,
    "sample": Sample,
    "saved": Saved,
    "stopped": Stopped,
}


CRC = ', "crc": '

LARGEST_LOG = 4 << 30
"""Bytes; as many as twenty million steps take."""


def to_line(event: Event) -> str:
    """One line of JSON with the event's kind first and a CRC-32 of the rest last."""
    text = json.dumps({"event": type(event).__name__.lower(), **vars(event)})
    return f"{text[:-1]}{CRC}{zlib.crc32(text.encode())}}}\n"


def from_line(line: str) -> Event:
    """The event of a line; the inverse of `to_line`.

    Raises:
        ValueError: for a line that is not an event, or was altered.
    """
    body, _, stated = line.rpartition(CRC)
    try:
        if stated != f"{zlib.crc32((body + '}').encode())}}}\n":
            raise ValueError("the line does not have the CRC-32 that it states")
        data = json.loads(body + "}")
        if data["event"] == "evaluation" and "scores" not in data:  # as it was before tasks had their own metrics
            data["scores"] = {name: data.pop(name) for name in ("loss", "bits_per_byte")}
        return cast(Event, EVENTS[data.pop("event")](**data))
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"not an event: {line[:80]!r}") from None


def read_events(path: Path, at_least: int = 0, kinds: Sequence[str] = ()) -> list[Event]:
    """All events of a run's `metrics.jsonl`; a last line that a kill cut short is left out.

    Args:
        at_least: how many bytes the file must have, because a checkpoint was saved when it had them.
        kinds: read only events of these kinds, such as "saved"; none are all.

    Raises:
        ArtifactError: naming the file, and the line that was altered, or what is missing.
    """
    try:
        data = read_file(path, largest=LARGEST_LOG)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror})") from None
    *lines, tail = data.split(b"\n")
    events = []
    begins = tuple(f'{{"event": "{kind}"'.encode() for kind in kinds)
    for number, line in enumerate(lines, start=1):
        if begins and not line.startswith(begins):
            continue
        try:
            events.append(from_line(line.decode() + "\n"))
        except ValueError as error:
            raise ArtifactError(f"{path} was altered in line {number} ({error})") from None
    if len(data) < at_least:
        raise ArtifactError(f"{path} was truncated: {len(data)} bytes, expected at least {at_least}")
    if tail[:-1].endswith(b"}") or len(data) - len(tail) < at_least:
        raise ArtifactError(f"{path} was altered in its last line: the end of the line is damaged")
    return events

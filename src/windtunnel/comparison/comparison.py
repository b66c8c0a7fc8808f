"""What a comparison found: frozen records. `conclude` in judging.py makes them from run folders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from windtunnel.comparison.verdict import Rule, Verdict
from windtunnel.config import plain
from windtunnel.inspect.answers import FEWEST
from windtunnel.stats.intervals import Estimate
from windtunnel.tasks import ACCURACY, LOSS, METRICS, RECALLS


@dataclass(frozen=True)
class SeedRun:
    """One run of an arm: how it ended, and its scores on the whole dev split by the name of the metric.

    Those of a run that diverged are infinite (null in JSON); the means of its arm are over the runs that finished. A
    run that has not ended has none.
    """

    seed: int
    folder: str
    reason: str
    message: str
    scores: dict[str, float]

    @property
    def loss(self) -> float | None:
        """Nats a target."""
        return self.scores.get("loss")


@dataclass(frozen=True)
class ArmResult:
    """One arm: what it is, what it costs, and the mean of each score over the seeds that finished.

    settings: those in which any two arms differ, by path; of a program its command.
    tokens, flops: of a whole run, by formula; flops_per_token: of training, forward and backward.
    tokens_per_second, seconds: medians over its runs, of training steps only, as they ran (side by side or not).
    peak_memory: bytes that training added to the process, the most of all runs; None when it was not measured.

    What is not known, as of a program, is NaN or None.
    """

    name: str
    settings: dict[str, Any]
    key: str
    n_parameters: float
    steps: float
    tokens: float
    flops: float
    flops_per_token: float
    tokens_per_second: float | None
    seconds: float | None
    peak_memory: int | None
    scores: dict[str, Estimate]
    seeds: tuple[SeedRun, ...]

    @property
    def loss(self) -> Estimate | None:
        """The mean loss in nats per target."""
        return self.scores.get("loss")


@dataclass(frozen=True)
class Judgement:
    """One arm against the baseline.

    differences: (seed, arm minus baseline) in the comparison's metric, a pair of runs each; those that were judged.
    relative: the mean difference as a share of the baseline's score.
    others: the differences in the other metrics, at the verdict's level.
    over_seeds, over_documents: the same difference with 95 % intervals from one source of chance each: training
        again with other seeds, and drawing other held-out documents (bootstrap over paired documents).
    limited_by: the source with the wider interval.
    """

    arm: str
    verdict: Verdict
    seeds_needed: int | None
    relative: float
    others: dict[str, Estimate]
    over_seeds: Estimate
    over_documents: Estimate | None
    limited_by: Literal["seeds", "documents"] | None
    differences: tuple[tuple[int, float], ...]
    sentence: str

    @property
    def others_could_turn(self) -> bool:
        """Whether a winner is named, and other held-out documents might not name it."""
        over = self.over_documents
        return self.verdict.names_winner and over is not None and over.low <= 0 <= over.high


@dataclass(frozen=True)
class Slice:
    """Some of the dev split's pairs, by what their sources are, or of a mix the units of one corpus: scores of the arms
    on them, and the judgements.

    n: the pairs, or units. scores: of each arm, as in `ArmResult`. margin: in the comparison's unit, the same share of
        the baseline's score on these pairs.
    judgements: their levels are corrected for all slices and arms together; none where there are too few pairs.
    """

    name: str
    n: int
    scores: dict[str, dict[str, Estimate]]
    margin: float
    judgements: tuple[Judgement, ...]

    @property
    def enough(self) -> bool:
        """Whether there are enough pairs to say something of them."""
        return self.n >= FEWEST


@dataclass(frozen=True)
class Comparison:
    """Arms, judgements, and everything that is needed to cite and to repeat them. The baseline is the first arm.

    metric: what the verdicts are of, in this unit: the task's first, or where arms have other tokenizers one that does
        not count tokens. margin: in this unit. pairing: what the arms share, in sentences. notes: what to bear in mind.
    n_documents, n_tokens: of the dev split on which all runs were judged; 0 of programs, which may read anything.
    slices: where they were asked for, and of mixes: their corpora. slices_of: what they are of, pairs or documents
        (blocks of running text are documents here).
    """

    corpus: str
    metric: str
    unit: str
    arms: tuple[ArmResult, ...]
    judgements: tuple[Judgement, ...]
    rule: Rule
    margin_share: float
    n_documents: int
    n_tokens: int
    pairing: tuple[str, ...]
    notes: tuple[str, ...]
    signature: str
    folder: str
    slices: tuple[Slice, ...] = ()
    slices_of: Literal["pairs", "documents"] = "pairs"

    @property
    def baseline(self) -> ArmResult:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def is_of_programs(self) -> bool:
        """Whether the arms are programs, of which nothing is known but their results."""
        return math.isnan(self.baseline.n_parameters)

    def title(self, metric: str) -> str:
        """What heads a column of a metric: its unit where it has one; a program's metrics have but their names."""
        if self.is_of_programs:
            return metric
        return f"nats per {self.noun}" if metric == LOSS.name else METRICS[metric].title

    @property
    def noun(self) -> str:
        """What the arms have a loss of: a token, a text or a picture."""
        return {ACCURACY.name: "text", RECALLS[0].name: "picture"}.get(self.metric, "token")

    @property
    def complete(self) -> bool:
        """Whether no run is missing: none failed, none was interrupted."""
        return all(run.scores for arm in self.arms for run in arm.seeds)

    def __str__(self) -> str:
        return "\n".join(judgement.sentence for judgement in self.judgements)

    def __repr__(self) -> str:
        return f"Comparison({self.corpus}, {len(self.arms)} arms: {'; '.join(j.sentence for j in self.judgements)})"

    def _repr_html_(self) -> str:
        """In a notebook: the verdicts, and the mean of each arm."""
        said = "".join(f"<li>{escape(judgement.sentence)}</li>" for judgement in self.judgements)
        rows = "".join(
            f"<tr><td>{escape(arm.name)}</td><td>{escape(str(arm.scores.get(self.metric, '-')))}</td></tr>"
            for arm in self.arms
        )
        head = f"<tr><th>arm</th><th>{escape(self.title(self.metric))}</th></tr>"
        return f"<b>{escape(self.corpus)}</b><ul>{said}</ul><table>{head}{rows}</table>"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data; NaN (an interval that one seed cannot give) and infinity become null."""
        return dict(plain(self))

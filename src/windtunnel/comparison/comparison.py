"""What a comparison found: frozen records. `conclude` in judging.py makes them from run folders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from windtunnel.comparison.verdict import Rule, Verdict
from windtunnel.config import plain
from windtunnel.stats.intervals import Estimate

Unit = Literal["nats a token", "bits a byte"]


@dataclass(frozen=True)
class SeedRun:
    """One run of an arm: how it ended, and its loss on the whole dev split.

    The loss of a run that diverged is infinite (null in JSON); the means of its arm are over the runs that finished.
    """

    seed: int
    folder: str
    reason: str
    message: str
    loss: float | None
    bits_per_byte: float | None


@dataclass(frozen=True)
class ArmResult:
    """One arm: what it is, what it costs, and its loss over the seeds.

    settings: those in which any two arms differ, by path.
    tokens, flops: of a whole run, by formula; flops_per_token: of training, forward and backward.
    tokens_per_second, seconds: medians over its runs, of training steps only, as they ran (side by side or not).
    peak_memory: bytes that training added to the process, the most of all runs; None when it was not measured.
    """

    name: str
    settings: dict[str, Any]
    key: str
    n_parameters: int
    steps: int
    tokens: float
    flops: float
    flops_per_token: float
    tokens_per_second: float | None
    seconds: float | None
    peak_memory: int | None
    loss: Estimate | None
    bits_per_byte: Estimate | None
    seeds: tuple[SeedRun, ...]


@dataclass(frozen=True)
class Judgement:
    """One arm against the baseline.

    differences: (seed, arm minus baseline) in the comparison's unit, a pair of runs each; those that were judged.
    relative: the mean difference as a share of the baseline's loss.
    over_seeds, over_documents: the same difference with 95 % intervals from one source of chance each: training
        again with other seeds, and drawing other held-out documents (bootstrap over paired documents).
    limited_by: the source with the wider interval.
    """

    arm: str
    verdict: Verdict
    seeds_needed: int | None
    relative: float
    bits_per_byte: Estimate
    over_seeds: Estimate
    over_documents: Estimate | None
    limited_by: Literal["seeds", "documents"] | None
    differences: tuple[tuple[int, float], ...]
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Arms, judgements, and everything that is needed to cite and to repeat them. The baseline is the first arm.

    margin: in the unit of the losses. pairing: what the arms share, in sentences. notes: what to bear in mind.
    n_documents, n_tokens: of the dev split on which all runs were judged.
    """

    corpus: str
    unit: Unit
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

    @property
    def baseline(self) -> ArmResult:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def complete(self) -> bool:
        """Whether no run is missing: none failed, none was interrupted."""
        return all(run.loss is not None for arm in self.arms for run in arm.seeds)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data; NaN (an interval that one seed cannot give) and infinity become null."""
        return dict(plain(self))

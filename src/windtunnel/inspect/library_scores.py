"""chrF and BLEU of translations, by the library sacrebleu and with its signature: what was compared, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from windtunnel.errors import MissingExtra

LONGEST_RUN = 4
"""Words: BLEU counts runs of one to four, and is 0 where nothing has four."""
RESAMPLES = 1000


@dataclass(frozen=True)
class LibraryScore:
    """A score of all translations together, 0 to 100. text: as the library prints it, with its bootstrap interval."""

    name: str
    score: float
    text: str
    signature: str


def library_scores(
    written: Sequence[str], answers: Sequence[Sequence[str]]
) -> tuple[tuple[LibraryScore, ...], tuple[str, ...]]:
    """chrF (Popović 2015) and BLEU (Papineni et al. 2002) of what was written, and why one is left out.

    Args:
        answers: of each translation its right answers, one or more.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        return (), (str(MissingExtra("sacrebleu", "chrF and BLEU")),)
    # The library takes the first answers of all, then the second ones; None where there is none.
    columns: list[Any] = [list(column) for column in zip_longest(*answers)]
    words = any(len(one.split()) >= LONGEST_RUN for right in answers for one in right)
    scores = []
    for name, metric in [("chrF", CHRF()), *([("BLEU", BLEU())] if words else [])]:
        found = _in_floats(metric).corpus_score(list(written), columns, n_bootstrap=RESAMPLES)
        scores.append(LibraryScore(name, float(found.score), str(found), str(metric.get_signature())))
    remark = f"BLEU is left out: it counts runs of {LONGEST_RUN} words, and no target has so many"
    return tuple(scores), () if words else (remark,)


def _in_floats(metric: Any) -> Any:
    """The same metric with every score a float: the library gives a resample without a match another type than the
    rest, and cannot take their mean."""
    score_of = metric._compute_score_from_stats

    def in_floats(sums: Any) -> Any:
        found = score_of(sums)
        found.score = float(found.score)
        return found

    metric._compute_score_from_stats = in_floats
    return metric

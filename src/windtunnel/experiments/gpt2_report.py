"""000-R: one page on GPT-2 built, altered and distributed, made of the outcomes of the experiments on T1 to T3."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import ArtifactError
from windtunnel.experiments.frame import (
    Claim,
    Drawing,
    Findings,
    Given,
    Progress,
    Row,
    Setting,
    collect,
    draw,
    table,
)  # fmt: skip
from windtunnel.experiments.rows import ROWS
from windtunnel.files import read_given
from windtunnel.report.charts import dots
from windtunnel.report.outcome_page import save_outcome
from windtunnel.stats.intervals import Estimate

REPORT = Row("000-R")
PARTS = ("gpt2-source", "gpt2-positions", "gpt2-kv-heads", "gpt2-windows", "training-on-many-devices")
GATHERED = ("000-T1", "E5", "000-T2a", "000-T2b", "000-T2c", "000-T3a", "000-T3b", "000-T3c")
TITLES = {**ROWS, "E5": "the flaws of a GPT-2 written from memory"}
OUTCOME, LARGEST = "outcome.json", 1 << 24
HARD = (
    ("original weights", "their layers are stored as (inputs, outputs), and queries, keys and values as one matrix: "
     "transposed, and kept packed"),
    ("the mask", "float32 loses a score beside -1e9, so a wrong mask changes nothing until scores grow: masked by "
     "construction, and tested by changing the last token"),
    ("rotary positions", "float32 angles put 5e-06 between equal distances; what they buy shows only in training"),
    ("fewer key heads", "equal to repeated heads bit for bit; the loss they cost is smaller than five seeds can show"),
    ("windows", "as a mask they cost T x T all the same; in blocks time and memory grow with T w"),
    ("DDP", "ranks have unequal numbers of targets, so gradients are summed, not averaged; buckets are kept as they "
     "were made, or a resumed run would sum in another order"),
    ("FSDP", "the norm that clips is one of shards, and saving gathers tensor by tensor to rank 0"),
    ("the same numbers", "a key's bias has a gradient of rounding noise, of which Adam makes whole steps; at the kink "
     "of a ReLU the last bit decides: compared without biases, with GELU"),
)  # fmt: skip
SOURCES = (
    ("GPT-2", "Radford et al. 2019, Language models are unsupervised multitask learners"),
    ("attention", "Vaswani et al. 2017, arXiv 1706.03762"),
    ("rotary positions", "Su et al. 2021, arXiv 2104.09864"),
    ("ALiBi", "Press et al. 2022, arXiv 2108.12409"),
    ("grouped queries", "Ainslie et al. 2023, arXiv 2305.13245"),
    ("sliding windows", "Beltagy et al. 2020, arXiv 2004.05150"),
    ("DDP", "Li et al. 2020, arXiv 2006.15704"),
    ("FSDP", "Zhao et al. 2023, arXiv 2304.11277"),
    ("cited by the handout for FSDP", "arXiv 2101.06840 is ZeRO-Offload, Ren et al. 2021, not 'Gupta et al. 2020'"),
)


@dataclass(frozen=True)
class Part:
    """The outcome of an experiment, from its folder."""

    folder: Path
    quick: bool
    signature: str
    claims: tuple[Claim, ...]


def gpt2_report(at: Setting) -> Findings:
    """GPT-2 built, altered and distributed: a report.

    It gathers what the experiments on GPT-2 found: its source, its positions, its key and value heads, its windows, and
    its training on many devices. Their outcomes are read from the folders beside this one; one that is not there was
    run quickly, and says little.
    """
    parts = {}
    for done, name in enumerate(PARTS):
        yield Progress(name, done, len(PARTS))
        parts[name] = find(at, name)
    claims = [claim for part in parts.values() for claim in part.claims]
    quick = [name for name, part in parts.items() if part.quick]
    yield Given({"parts": list(PARTS), "of them quick": ", ".join(quick) or "none"})
    for id in GATHERED:
        verdicts = [claim.verdict for claim in claims if claim.id == id]
        yield REPORT.gathers(f"{id}, {TITLES[id]}: all that is claimed of it holds", verdicts)
    yield from (drawn for drawn in (costs(claims), shares(claims)) if drawn)
    told = [(c.id, c.statement, c.measured, c.verdict) for c in claims]
    yield table("Each alteration and its impact", ("row", "claim", "measured", "verdict"), told)
    yield table("What was hard", ("what", "why, and what helped"), HARD)
    yield table("Sources", ("of", "source"), SOURCES)
    sizes = [(n, str(p.folder), "quick" if p.quick else "whole", p.signature) for n, p in parts.items()]
    yield table("Where it is from", ("experiment", "folder", "size", "made by"), sizes)


def find(at: Setting, name: str) -> Part:
    """The outcome of an experiment: a whole one, else a quick one, else one that is made now, quickly.

    Raises:
        ArtifactError: when the file that is there is none.
    """
    from windtunnel.experiments import EXPERIMENTS  # which imports this module only when it runs

    beside = (at.out.parent / name, at.out.parent / f"{name}-quick", at.out / name)
    for folder in beside:
        if (folder / OUTCOME).exists():
            return read_part(folder, name)
    folder = beside[-1]
    save_outcome(collect(EXPERIMENTS[name], Setting(True, at.seed, folder)), folder)
    return read_part(folder, name)


def read_part(folder: Path, name: str) -> Part:
    """The outcome in a folder."""
    path = folder / OUTCOME
    try:
        data = json.loads(read_given(path, LARGEST))
        claims = tuple(Claim(**claim) for claim in data["claims"])
        return Part(folder, data["quick"], data["signature"], claims)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{path} is not the outcome of an experiment ({error}); make it again: windtunnel experiment {name}"
        ) from None


def costs(claims: Sequence[Claim]) -> Drawing | None:
    """What each alteration adds to the loss, where it was judged on paired seeds."""
    found: dict[str, dict[str, Estimate]] = {}
    for claim in claims:
        if claim.id.startswith("000-T2") and (own := claim.values.get("difference")):
            title = TITLES[claim.id]
            found.setdefault(title, {})[claim.statement.partition(":")[0]] = Estimate(**own)
    rows = [name for own in found.values() for name in own]
    label = "loss against GPT-2's, nats per token"
    return draw("alterations", dots(found, rows, down={"no change": 0}, xlabel=label)) if rows else None


def shares(claims: Sequence[Claim]) -> Drawing | None:
    """What a rank holds of the weights, gradients and optimizer state of one process."""
    kinds, series = ("weights", "gradients", "optimizer"), {"000-T3b": "DDP", "000-T3c": "FSDP"}
    found: dict[str, Mapping[str, float]] = {}
    for claim in claims:
        if claim.id in series and claim.values.keys() >= set(kinds):
            found[series[claim.id]] = {kind: claim.values[kind] for kind in kinds}
    label = "held by one of two ranks, against one process"
    return draw("ranks", dots(found, kinds, xlim=(0, 1.1), xlabel=label)) if found else None

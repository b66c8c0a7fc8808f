"""How well a run finds pictures, as lines and tables."""

from __future__ import annotations

from typing import Any

from windtunnel.config import plain
from windtunnel.inspect.retrieval import AT, TESTED, JudgedRetrieval, Ranks
from windtunnel.report.table import Table, interval, table
from windtunnel.stats.digits import number, p_is

HEADS = (*(f"recall@{k}" for k in AT), "mean rank", "median")


def first_lines(found: JudgedRetrieval) -> list[str]:
    """How often a caption finds its picture, and what that is beside chance."""
    of, chance = f"{found.split} split of {found.corpus}", TESTED / found.n
    own = interval(found.by_caption.recall[TESTED], ".3f")
    return [
        f"recall@{TESTED} {own}: so often the picture of a caption is among the first {TESTED} of {found.n:,} ({of}); "
        f"by chance {min(1.0, chance):.3f}"
    ]


def ranks_table(found: JudgedRetrieval) -> Table:
    """Both ways, kinds of captions, and the baselines with their paired test."""
    rows = [
        ("a caption finds its picture", found.n, *_cells(found.by_caption), ""),
        ("a picture finds its caption", found.n, *_cells(found.by_picture), ""),
    ]
    rows += [(f"- {name}", len(own.ranks), *_cells(own), "") for name, own in found.kinds.items()]
    for one in found.against:
        if one.ranks is None:
            continue
        said = f"{interval(one.difference, '+.3f')}, {p_is(one.p)}" if one.difference and one.p is not None else ""
        rows.append((one.name, len(one.ranks.ranks), *_cells(one.ranks), said))
    return table("", ("", "n", *HEADS, f"this minus it at {TESTED}, McNemar's p"), rows)


def classes_table(found: JudgedRetrieval) -> Table | None:
    """Classes by words beside what needs no words; None where the captions have no two classes."""
    own = found.zero_shot
    if own is None:
        return None
    rows = [
        ("zero-shot: the nearest of the words", interval(own.right, ".3f")),
        ("the class of the nearest picture of training", interval(own.nearest, ".3f")),
        ("the commonest class", interval(own.commonest, ".3f")),
    ]
    return table("", (f"class of {own.n:,} pictures, by a word of their captions", "share right"), rows)


def retrieval_lines(found: JudgedRetrieval) -> list[str]:
    """What the numbers rest on."""
    told = [
        f"the model is that of step {found.step}; intervals at 95 %: Wilson's of a recall, a bootstrap over captions "
        "of the mean rank, Newcombe's of a difference; a picture that is as near as the right one counts as nearer"
    ]
    told += [f"{one.name}: {one.how}" for one in found.against]
    if own := found.zero_shot:
        told.append(
            f"classes: {', '.join(own.names)}, the commonest words of training of which no two stand in one caption; "
            f"zero-shot minus the nearest picture {interval(own.difference, '+.3f')}, McNemar's {p_is(own.p)}"
        )
    if found.split != "test":
        told.append(f"{found.split} had a part in the model: the number to report is of a test split")
    if len(found.seeds) > 1:
        told.append(f"recall@{TESTED} over {len(found.seeds)} seeds: {found.over_seeds}; all else is of the first")
    return told


def retrieval_dict(found: JudgedRetrieval) -> dict[str, Any]:
    """Plain data for JSON."""
    data: dict[str, Any] = plain(found)
    for own in (
        data["by_caption"],
        data["by_picture"],
        *data["kinds"].values(),
        *(a["ranks"] for a in data["against"]),
    ):
        if own:
            own["ranks"] = [int(rank) for rank in own["ranks"]]
    return data | {"over_seeds": plain(found.over_seeds)}


def _cells(own: Ranks) -> tuple[str, ...]:
    return (*(interval(own.recall[k], ".3f") for k in AT), interval(own.mean, ".1f"), number(own.median, 3))

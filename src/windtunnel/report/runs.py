"""Tables of runs and corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from windtunnel.report.training import shown
from windtunnel.stats.digits import number
from windtunnel.text.corpora.cache import Kept


def runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """One row a run, from `runs.listing.describe_all`; in a narrow terminal its name, which ends in the seed, goes on
    below."""
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "corpus", "step", "state", "dev loss"):
        table.add_column(heading, justify="right" if heading in ("step", "dev loss") else "left", overflow="fold")
    for run in runs:
        loss = number(run["dev"]["scores"]["loss"]) if run["dev"] else "-"
        steps = "-" if run["steps"] is None else f"{run['step']}/{run['steps']}"
        table.add_row(run["folder"], run["corpus"] or "-", steps, run["state"], loss)
    return table


def run_table(run: Mapping[str, Any]) -> Table:
    """Everything about one run: state, loss, settings and record."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("setting", style="bold", overflow="fold")
    table.add_column("value", overflow="fold")
    for key in ("folder", "corpus", "seed", "state", "message"):
        table.add_row(key, str(run[key]))
    table.add_row("step", f"{run['step']} of {run['steps']}")
    if run["dev"]:
        table.add_row("dev loss", shown(run["dev"]["scores"]))
    adapted = ["lora"] if run["config"]["lora"]["rank"] else []
    for part in ("text", "model", "optimizer", "schedule", "train", *adapted):
        for key, value in run["config"][part].items():
            table.add_row(f"{part}.{key}", str(value))
    for key, value in run["record"].items():
        table.add_row(key, str(value))
    return table


def differences_table(a: str, b: str, differ: Mapping[str, tuple[Any, Any]]) -> Table:
    """One row a setting in which two runs differ; a setting that one of them has not is empty."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("setting", a, b):
        table.add_column(Text(heading), overflow="fold")
    for path, values in differ.items():
        table.add_row(path, *("" if value is None else Text(str(value)) for value in values))
    return table


def settings_table(settings: Sequence[Mapping[str, Any]]) -> Table:
    """One row a setting: its path, and its meaning with type, default and the kinds that have it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for _ in ("path", "meaning"):
        table.add_column(overflow="fold")
    for one in settings:
        facts = "; ".join(
            [
                one["type"],
                "required" if one["default"] is None else f"default {one['default']}",
                *([f"of {', '.join(one['of'])}"] if one["of"] else []),
            ]
        )
        table.add_row(Text(one["path"], "bold"), Text.assemble(one["meaning"], "\n", (facts, "dim")))
    return table


def cache_table(found: Sequence[Kept]) -> Table:
    """One row a folder of the cache."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "files", "size", "what it holds"):
        table.add_column(heading, justify="right" if heading in ("files", "size") else "left", overflow="fold")
    for kept in found:
        table.add_row(kept.name, f"{kept.n_files:,}", f"{kept.n_bytes / 1e6:,.1f} MB", kept.what)
    return table


def corpora_table(corpora: Sequence[Mapping[str, Any]]) -> Table:
    """One row a corpus, from `text.corpora.listing`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("corpus", "unit", "size", "licence", "what and where from"):
        table.add_column(heading, overflow="fold")
    for corpus in corpora:
        told = f"{corpus['description']} ({corpus['origin']})"
        table.add_row(corpus["name"], corpus["unit"], corpus["size"], corpus["licence"], told)
    return table

"""The training doctor."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from windtunnel.inspect.doctor.checks import judge
from windtunnel.inspect.doctor.exam import Examination, measure
from windtunnel.inspect.doctor.findings import Finding
from windtunnel.inspect.doctor.subject import recipe_subject, run_subject
from windtunnel.library.model import Model
from windtunnel.library.settings import PathLike
from windtunnel.report.doctor import NOTHING, findings_tables, headline, save_report, to_dict
from windtunnel.report.terminal import PlainConsole
from windtunnel.runs.seeds import find_run
from windtunnel.training.run_config import RunConfig


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What was measured of a training, and what is wrong with it; `print` shows all of it.

    exam: the measurements. findings: each with its severity, "problem" or "warning", evidence and cure.

    >>> wt.check(wt.recipe("tiny", "names", optimizer__lr=1e-9), steps=20).findings[0].severity
    'problem'
    """

    exam: Examination
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no problem was found; warnings may be there."""
        return not any(finding.severity == "problem" for finding in self.findings)

    def save(self, folder: PathLike) -> list[Path]:
        """Write figures and a page into a folder; their paths."""
        return save_report(self.exam, self.findings, Path(folder))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return to_dict(self.exam, self.findings)

    def __str__(self) -> str:
        console = PlainConsole(width=120, color_system=None)
        with console.capture() as capture:
            for part in findings_tables(self.exam, self.findings):
                console.print(part, soft_wrap=not hasattr(part, "columns"))
        return capture.get()

    def _repr_html_(self) -> str:
        """In a notebook: each finding with its evidence and its cure."""
        parts = [(f"{one.severity}: {one.name}", one.evidence, one.cure) for one in self.findings]
        found = "".join(f"<li><b>{escape(a)}</b><br>{escape(b)}<br>cure: {escape(c)}</li>" for a, b, c in parts)
        return f"<b>{escape(headline(self.exam))}</b>{f'<ul>{found}</ul>' if found else f'<p>{escape(NOTHING)}</p>'}"

    def __repr__(self) -> str:
        names = ", ".join(f"{finding.severity}: {finding.name}" for finding in self.findings)
        return f"Diagnosis({self.exam.name}: {names or 'nothing found'})"


def check(what: RunConfig | Model | PathLike, steps: int = 120) -> Diagnosis:
    """Find what is wrong with a training: a config before it is run (see `recipe`), or a run.

    Copies of the model are trained for a short while.

    Args:
        what: a config, a model, a run folder, its name below ./runs, or "last".
        steps: for which copies of the model are trained, at least 20.

    Raises:
        ConfigError: for a config that does not fit its corpus, or a run without one.
        ArtifactError: when there is no such run.

    >>> wt.check("last", steps=20).exam.is_run
    True
    """
    if isinstance(what, RunConfig):
        subject = recipe_subject(what.model.family, what)
    else:
        subject = run_subject(what.folder if isinstance(what, Model) else find_run(str(what)))
    exam = measure(subject, steps)
    return Diagnosis(exam, tuple(judge(exam)))

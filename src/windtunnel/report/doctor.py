"""The doctor's report: findings and measurements for the terminal, as data, and as a page with figures."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from windtunnel.config import plain
from windtunnel.files import write_text
from windtunnel.inspect.doctor.checks import CHECKS
from windtunnel.inspect.doctor.checks_of_layers import most_dead
from windtunnel.inspect.doctor.exam import Examination, median_ratio
from windtunnel.inspect.doctor.findings import Finding, percent
from windtunnel.report.doctor_figures import activations_figure, training_figure
from windtunnel.report.figures import save_figures
from windtunnel.report.html import inline_svg, page, table
from windtunnel.report.terminal import as_text
from windtunnel.stats.digits import number
from windtunnel.text.corpora.mixes import corpora_in
from windtunnel.training.disk import saving

NOTHING = f"nothing found; looked for: {', '.join(CHECKS)}"
COLUMNS = ("finding", "severity", "evidence", "cure")
STYLE = """
:root { --problem: #b3470b; --warning: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --problem: #f2a05a; --warning: #e6c34a; } }
th, td { vertical-align: top; }
thead tr, tbody tr { border-bottom: 1px solid var(--line); }
.words td, .words th { text-align: left; white-space: normal; }
.words td { overflow-wrap: anywhere; min-width: 6rem; }
.problem { border-left: .3rem solid var(--problem); padding-left: .7rem; margin: .8rem 0; }
.warning { border-left: .3rem solid var(--warning); padding-left: .7rem; margin: .8rem 0; }
.problem strong { color: var(--problem); } .warning strong { color: var(--warning); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { fill: var(--ink); max-width: 100%; min-width: 44rem; height: auto; }
"""


def findings_tables(exam: Examination, findings: Sequence[Finding]) -> list[RenderableType]:
    """What was measured, then what is wrong."""
    measured = Table(box=None, pad_edge=False, show_header=False)
    measured.add_column(style="dim", no_wrap=True)
    measured.add_column(overflow="fold")
    for name, value in measurements(exam):
        measured.add_row(name, as_text(value))
    parts: list[RenderableType] = [as_text(headline(exam), "bold"), measured, Text()]
    if not findings:
        return [*parts, Text(NOTHING)]
    for finding in findings:
        style = "bold red" if finding.severity == "problem" else "bold yellow"
        parts += [Text(f"{finding.severity}: {finding.name}", style), as_text(f"  {finding.evidence}")]
        parts += [as_text(f"  cure: {finding.cure}")]
    return parts


def headline(exam: Examination) -> str:
    """What was looked at."""
    corpus = " + ".join(Path(name).name for name in corpora_in(exam.config.corpus))
    of = f"{exam.name} on {corpus}, {exam.n_parameters:,} parameters"
    at = f", checkpoint of step {exam.step}" if exam.is_run else ""
    return f"{of}{at}; copies trained for {exam.steps} steps in float32"


def measurements(exam: Examination) -> list[tuple[str, str]]:
    """Every number that the checks judge, by name."""
    lr, start, end = exam.config.optimizer.lr, exam.curvature_start, exam.curvature_end
    hessian = "preconditioned by Adam's second moments" if start.preconditioned else "of the Hessian"
    ratio = median_ratio(exam.training, {g.name for g in exam.gradients_start if len(g.shape) >= 2})
    losses = exam.training.losses
    rows = [
        ("loss before training", f"{exam.initial.loss}; {exam.blind_guess} = {number(exam.initial.blind)}; "
                                 f"logits' standard deviation {exam.initial.logit_std:.3g}"),
        ("short training", f"{number(losses[0])} to {number(losses[-1])}" if losses else exam.training.message),
        ("update / weights", "-" if ratio is None else f"10^{math.log10(max(ratio, 1e-30)):.1f} in the middle"),
        ("learning rate", f"{lr:g}; range test lowest at {exam.range.best:.2g}, "
                          + (f"back up from {exam.range.explodes:.2g}" if exam.range.explodes else "never back up")),
        ("sharpness, largest eigenvalue " , f"{start.eigenvalue:.4g} at the start, allows lr {start.largest_lr:.2g}; "
                      f"{end.eigenvalue:.4g} at the end, allows {end.largest_lr:.2g}; {hessian}"),
        ("gradient noise scale", f"{exam.noise} examples; the batch has {exam.config.train.batch_size}"),
    ]  # fmt: skip
    if worst := most_dead(exam):
        told = f"{percent(worst[0])} of the units of {worst[1]} {worst[2]}" if worst[0] else "none"
        rows.append(("most dead units", told))
    if exam.fit:
        rows += [("train", str(exam.fit.train)), ("dev", str(exam.fit.dev)), ("gap", str(exam.fit.gap)),
                 (exam.config.task.inputless, str(exam.fit.unigram))]  # fmt: skip
    if exam.floor is not None:
        rows.append(("entropy floor", number(exam.floor)))
    rows.append(("dev in train", f"{exam.copies[0]:,} of {exam.copies[1]:,}"))
    return [*rows, ("ids never used", f"{exam.unused_ids:,} of {exam.config.model.vocab_size:,}")]


def activation_rows(exam: Examination) -> list[tuple[str, ...]]:
    """Place, scale before and after, and what is dead, saturated or extreme at the end."""
    before = {a.place: a for a in exam.activations_start}
    return [
        (a.place, f"{before[a.place].std:.3g}" if a.place in before else "-", f"{a.std:.3g}", f"{a.mean:.3g}",
         f"{a.zero:.1%}", f"{a.dead:.1%}", f"{a.saturated:.1%}", f"{a.extreme:.2%}")
        for a in exam.activations_end
    ]  # fmt: skip


def gradient_rows(exam: Examination) -> list[tuple[str, ...]]:
    """Parameter, shape, state, gradient before and after, last update against weights."""
    ratios = exam.training.ratios
    return [
        (g.name, " x ".join(map(str, g.shape)), end.state, f"{g.rms:.2e}", f"{end.rms:.2e}", f"{end.weight_rms:.3g}",
         f"{math.log10(ratios[g.name][-1]):.1f}" if ratios.get(g.name) and ratios[g.name][-1] > 0 else "-")
        for g, end in zip(exam.gradients_start, exam.gradients_end, strict=True)
    ]  # fmt: skip


def to_dict(exam: Examination, findings: Sequence[Finding]) -> dict[str, Any]:
    """Findings and measurements as plain data, for `--json`; NaN and infinity are null."""
    left_out = {"config", "training", "history"}
    data = {f.name: getattr(exam, f.name) for f in dataclasses.fields(exam) if f.name not in left_out}
    kept = ("losses", "lrs", "grad_norms", "ratio_steps", "ratios", "message")
    return plain({
        "healthy": not findings,
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "looked_for": list(CHECKS),
        **data,
        "training": {name: getattr(exam.training, name) for name in kept},
        "history": exam.history,
        "config": exam.config.model_dump(mode="json"),
    })  # fmt: skip


def save_report(exam: Examination, findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Write `training.png`, `activations.png`, their SVGs and `check.html`, which needs no other file.

    Raises:
        SaveError: when the disk refuses.
    """
    files, drawings = save_figures({"training": training_figure(exam), "activations": activations_figure(exam)}, folder)
    report = folder / "check.html"
    with saving(report):
        write_text(report, check_page(exam, findings, drawings))
    return [*files, report]


def check_page(exam: Examination, findings: Sequence[Finding], drawings: dict[str, str]) -> str:
    """A page that needs no other file; `drawings` are the figures by name, as SVG."""
    heads = ("place", "std before", "std after", "mean", "zero", "dead", "saturated", "beyond 6 std")
    names = ("parameter", "shape", "gradient", "rms before", "rms after", "weights' rms", "log10 update / weights")
    figures = "".join(f"<figure>{inline_svg(name, svg)}</figure>" for name, svg in drawings.items())
    body = f"""\
<h1>{escape(exam.name)}: check</h1>
<p class="quiet">{escape(headline(exam))}</p>
{_findings(findings)}
<h2>Measured</h2><div class="words">{table(("what", "value"), measurements(exam))}</div>
{figures}
<h2>What every layer puts out</h2>{table(heads, activation_rows(exam))}
<h2>Gradients</h2>{table(names, gradient_rows(exam))}"""
    return page(f"{exam.name}: check", body, to_dict(exam, findings), style=STYLE)


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return f"<p>{escape(NOTHING)}</p>"
    return "".join(
        f'<div class="{f.severity}"><p><strong>{escape(f.severity)}: {escape(f.name)}</strong></p>'
        f"<p>{escape(f.evidence)}</p><p>Cure: {_code(f.cure)}</p></div>"
        for f in findings
    )


def _code(text: str) -> str:
    return re.sub(r"(--set [^\s,;)]+)", r"<code>\1</code>", escape(text))

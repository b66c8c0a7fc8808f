"""classify: the label of a text, by a run that was trained on texts with labels; and how good such a run is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.terminal import ChangeOption, Json, RunName, console, load_model, print_json, print_text

if TYPE_CHECKING:
    from windtunnel.inspect.classification import Judged

MOST_WORDS = 12
"""Words that are shown in the terminal, those that matter most."""


def classify(
    run: RunName,
    text: Annotated[str, typer.Argument(help="The text.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="Classify the lines of this file, or the texts of a .csv, .tsv or .jsonl.")
    ] = None,
    column: Annotated[str, typer.Option(metavar="NAME", help="The column of the texts in a table.")] = "text",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Below this probability the answer is: none of these.")
    ] = 0.0,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Classify a text with a run that was trained on texts and labels.

    The label, the probability of each, and what mattered: by how much the probability falls without a word.
    """
    from windtunnel.errors import ConfigError
    from windtunnel.inspect.classification import occlusion, predict

    if bool(text.strip()) == (file is not None):
        raise ConfigError("expected a text or --file PATH, one of the two")
    loaded = load_model(run, change)
    labels = loaded.run.record.get("labels")
    if labels is None:
        raise ConfigError(f"{loaded.run.folder} is no classifier; train one: windtunnel train TABLE --from {run}")
    texts = [text] if file is None else _texts(file, column)
    found = predict(loaded, texts)
    named = [dict(zip(labels, row, strict=True)) for row in found.tolist()]
    answers = [_answer(one, probabilities, threshold) for one, probabilities in zip(texts, named, strict=True)]
    if file is None:
        answers[0]["words"] = [{"word": word, "falls": drop} for word, drop in occlusion(loaded, text)]
    if as_json:
        print_json(answers[0] if file is None else answers)
    elif file is not None:
        for one in answers:
            print_text(f"{one['label'] or 'none of these'}\t{one['probability']:.4f}\t{' '.join(one['text'].split())}")
    else:
        _show(answers[0])


def judge(
    folders: Sequence[Path], split: str | None = None, threshold: float | None = None, change: str | None = None
) -> Judged:
    """How good a classifier is on a split, by default on test where there is one; of several seeds, see `Judged`."""
    from windtunnel.inspect.classification import judge_classifier
    from windtunnel.training.run import open_run

    split = split or ("test" if open_run(folders[0]).record["tokens"]["test"] else "dev")
    with console().status(f"judging on the {split} split"):
        return judge_classifier(folders, split, threshold, change)


def say(found: Judged) -> None:
    """Print how good a classifier is, the first line first; writes the page beside its seeds."""
    from windtunnel.report.classification import (
        WIDEST,
        baselines_table,
        confusion_table,
        first_line,
        judged_lines,
        mistakes_table,
        save_judged,
    )

    out = console(stderr=False)
    out.print(first_line(found), soft_wrap=True)
    out.print(baselines_table(found).terminal())
    for line in judged_lines(found):
        out.print(line, soft_wrap=True)
    if len(found.labels) <= WIDEST:
        out.print(confusion_table(found).terminal())
    if found.mistakes:
        out.print(mistakes_table(found).terminal())
    for path in save_judged(found, Path(found.run).parent / "judged"):
        if path.suffix == ".html":
            out.print(f"written: {path}", soft_wrap=True)


def _texts(file: Path, column: str) -> list[str]:
    """The texts of a table's column, or the lines of another file that are not blank."""
    from windtunnel.cli.translating import read_lines
    from windtunnel.errors import DataError
    from windtunnel.text.corpora.tables import KINDS, cell, column_names, kind_of, require_columns, rows_of

    if kind_of(file) in KINDS:
        require_columns(file, column_names(file), [column])
        found = [cell(row, column, f"{file}, line {number}") for number, row in rows_of(file)]
    else:
        found = [line for line in read_lines(file).splitlines() if line.strip()]
    if not found:
        raise DataError(f"{file} holds no text; expected at least one")
    return found


def _answer(text: str, probabilities: dict[str, float], threshold: float) -> dict[str, Any]:
    said = max(probabilities, key=lambda label: probabilities[label])
    sure = probabilities[said] >= threshold
    return {
        "text": text,
        "label": said if sure else None,
        "probability": probabilities[said],
        "probabilities": probabilities,
    }


def _show(answer: dict[str, Any]) -> None:
    from windtunnel.report.table import table

    out = console(stderr=False)
    out.print(answer["label"] or "none of these")
    ranked = sorted(answer["probabilities"].items(), key=lambda one: -one[1])
    out.print(table("", ("label", "probability"), ranked).terminal())
    most = sorted(answer["words"], key=lambda one: -abs(one["falls"]))[:MOST_WORDS]
    if most:
        rows = [(one["word"], f"{one['falls']:+.3f}") for one in answer["words"] if one in most]
        out.print("what the label's log-probability loses without each, in nats (occlusion):")
        out.print(table("", ("word", "loses"), rows).terminal())

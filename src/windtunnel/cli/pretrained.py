"""import, export, alter, fold: other programs' models in and out, and a trained model made into another one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.terminal import Json, RunName, asked_to_stop, console, print_json, warn

if TYPE_CHECKING:
    from windtunnel.training.events import Evaluation


def import_(
    source: Annotated[
        str, typer.Argument(help="A name of `windtunnel models`, a .gguf file, or a Hugging Face folder.")
    ],
    corpus: Annotated[str | None, typer.Option(help="Text to evaluate it on, as for `train`.")] = None,
    unit: Annotated[
        str, typer.Option(help="What a document of the text is: text, file or line; by default the corpus decides.")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for the run; by default runs/import-NAME.")] = None,
    proof: Annotated[
        bool | None,
        typer.Option(
            "--proof/--no-proof", help="Run it in transformers, too; by default for a folder, where that is installed."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a pretrained model.

    With --proof transformers runs it, too, and the logits are compared.
    """
    from windtunnel.library.pretrained import place_of
    from windtunnel.report.pretrained import import_lines
    from windtunnel.training.imports import import_run

    path, folder = place_of(source, out)
    with console().status("reading the model"):
        found = import_run(path, folder, corpus, unit, proof)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(import_lines(found))
    if found.proof is not None and not found.proof.holds:
        raise typer.Exit(1)


def export(
    run: RunName,
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    format: Annotated[
        str, typer.Option(help="hf for transformers, gguf for llama.cpp, or peft: what LoRA added.")
    ] = "hf",
    as_json: Json = False,
) -> None:
    """Write a run's model as transformers or llama.cpp reads it."""
    from windtunnel.runs.seeds import find_run
    from windtunnel.training.exports import export_run

    with console().status("writing the model"):
        notes = export_run(find_run(run), target, format)
    if as_json:
        print_json({"folder": str(target), "format": format, "notes": list(notes)})
    else:
        _print([*(f"note: {note}" for note in notes), f"written: {target}"])


def alter(
    run: RunName,
    out: Annotated[Path, typer.Option(help="Folder for the altered run.")],
    kv_heads: Annotated[int | None, typer.Option(min=1, help="Pool the key and value heads into this many.")] = None,
    rotary: Annotated[bool, typer.Option("--rotary", help="Rotary positions in place of the present ones.")] = False,
    window: Annotated[
        int | None, typer.Option(min=1, help="How many tokens a token attends to, itself included.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps to train it further.")] = None,
    as_json: Json = False,
) -> None:
    """Alter a trained model, and say what that costs on its dev split.

    With --steps also how much of the loss a short further training brings back.
    """
    from windtunnel.report.pretrained import alter_lines, altered_to_dict
    from windtunnel.runs.seeds import find_run
    from windtunnel.training.imports import alter_run

    with console().status("measuring the loss before and after"):
        altered = alter_run(find_run(run), out / "seed-0", kv_heads, rotary, window)
    for warning in altered.warnings:
        warn(warning)
    trained = _train_further(altered.run.folder, altered.run.config.corpus, steps) if steps else None
    if as_json:
        print_json(altered_to_dict(altered, trained))
    else:
        _print(alter_lines(altered, trained))


def fold(
    run: RunName,
    out: Annotated[Path, typer.Option(help="Folder for the folded run.")],
    as_json: Json = False,
) -> None:
    """Fold a trained model's batch norm into its weights.

    It shows that the folded model is the same function.
    """
    from windtunnel.inspect.fold import fold_run
    from windtunnel.report.pretrained import fold_lines
    from windtunnel.runs.seeds import find_run

    with console().status("folding, and comparing the two on the dev split"):
        folded = fold_run(find_run(run), out / "seed-0")
    for warning in folded.warnings:
        warn(warning)
    print_json(folded.to_dict()) if as_json else _print(fold_lines(folded))


def _train_further(start: Path, corpus: str, steps: int) -> tuple[Path, Evaluation]:
    """The run that `train CORPUS --from START --steps N` makes, and its last dev loss."""
    from windtunnel.config import override
    from windtunnel.report.progress import TrainingProgress
    from windtunnel.runs.seeds import create_seeds, summarise
    from windtunnel.training.imports import continue_from
    from windtunnel.training.loop import resume

    err = console()
    [folder] = create_seeds(override(continue_from(start, corpus), [f"train.steps={steps}"]), [0])
    with asked_to_stop(err) as asked, TrainingProgress(err) as progress:
        for event in resume(folder, should_stop=lambda: bool(asked)):
            progress.show(folder.name, event)
    [result] = summarise([folder]).seeds
    if result.reason == "interrupted" or result.dev is None:
        err.print(f"stopped and saved; go on with: windtunnel resume {folder}")
        raise typer.Exit(130 if asked[:1] == [signal.SIGINT] else 75)
    return folder, result.dev


def _print(lines: list[str]) -> None:
    for line in lines:
        console(stderr=False).print(line, soft_wrap=True)

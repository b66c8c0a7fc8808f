"""The way out: a run's model, or what LoRA added to another's, as other programs read it."""

from __future__ import annotations

from pathlib import Path

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.models import ClassifierConfig, Encoder, TransformerConfig, as_transformer
from windtunnel.models.pretrained.encoder_export import encoder_files
from windtunnel.models.pretrained.export import Exported, huggingface_files
from windtunnel.models.pretrained.gguf import gguf_files
from windtunnel.models.pretrained.marks import marks_of
from windtunnel.models.pretrained.peft_files import peft_files
from windtunnel.training.checkpoint import Checkpoint
from windtunnel.training.disk import saving, write_folder
from windtunnel.training.imports import refuse_taken, weights_of
from windtunnel.training.run import Run, TrainedModel, load, newest, open_start
from windtunnel.training.run_config import Start

FORMATS = {"hf": huggingface_files, "gguf": gguf_files}


def export_run(run: Path, target: Path, format: str) -> tuple[str, ...]:
    """Write a run's newest model as the folder `target`, whole or not at all; what is worth saying of it, a note each.

    Raises:
        ConfigError: for an unknown format, a model that the format cannot hold, or a target that is not empty.
        MissingExtra: when the format's package is not installed.
    """
    if format not in (*FORMATS, "peft"):
        raise ConfigError(f"there is no format {format!r}; known are {', '.join(FORMATS)}, peft")
    refuse_taken(target)
    facts = {"kind": f"export {format}", "run": "/".join(run.absolute().parts[-2:])}
    if format == "peft":
        opened, checkpoint = newest(run)
        exported, base, step = *_adapter(opened, checkpoint), checkpoint.step
        facts |= {"base": base.run, "base_weights_sha256": str(base.weights_sha256)}
        notes = (_told_of_base(base), *checkpoint.warnings)
    else:
        trained = load(run)
        exported, notes, step = _exported(trained, format), trained.warnings, trained.step
    with saving(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_folder(target, exported.files, {**facts, "step": step})
    return (*notes, *exported.notes)


def _exported(trained: TrainedModel, format: str) -> Exported:
    model = trained.model
    if isinstance(model, Encoder) and format == "hf":
        return encoder_files(model.config, weights_of(trained), trained.tokenizer)
    config = as_transformer(model, f"--format {format}").config
    return FORMATS[format](config, weights_of(trained), trained.tokenizer, marks_of(trained.run.record))


def _told_of_base(start: Start) -> str:
    """Where the base of an adapter is, or that what it was trained beside is not there any more."""
    try:
        open_start(start)
    except ArtifactError as error:
        return f"its base is no more what it was trained beside, and on another the adapter is wrong: {error}"
    return f"its base is the run {start.run}: windtunnel export {start.run} DIR"


def _adapter(run: Run, checkpoint: Checkpoint) -> tuple[Exported, Start]:
    """The files of what LoRA added to a run, and what it began with.

    Raises:
        ConfigError: for a run that was not trained so.
    """
    model, lora, start = run.config.model, run.config.lora, run.config.start
    if not lora.rank or start is None:
        raise ConfigError(
            f"{run.folder} was not trained with LoRA, so it has no adapter; give --format hf, or train one: "
            f"windtunnel train CORPUS --from {run.folder} --lora 8"
        )
    assert isinstance(model, TransformerConfig | ClassifierConfig)
    return peft_files(model, checkpoint.weights, lora), start

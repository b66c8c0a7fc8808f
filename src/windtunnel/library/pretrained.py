"""Models from elsewhere, in and out."""

from __future__ import annotations

import re
from pathlib import Path

from windtunnel.library.model import Model, load
from windtunnel.library.settings import PathLike
from windtunnel.models.pretrained.catalogue import find_model
from windtunnel.runs.seeds import RUNS, find_run
from windtunnel.training.exports import export_run
from windtunnel.training.imports import import_run


def import_model(
    source: PathLike, corpus: PathLike | None = None, out: PathLike | None = None, proof: bool | None = None
) -> Model:
    """Make a run of a pretrained model, and load it.

    Args:
        source: a name of `windtunnel models`, a .gguf file, or a Hugging Face folder with safetensors.
        corpus: text to evaluate it on, as for `train`.
        out: folder for the run; None is runs/import-NAME.
        proof: whether transformers runs it, too, and its logits are compared; None is yes for a folder where
            transformers is installed.

    Raises:
        DataError: for a name that has not been fetched (`windtunnel models get NAME`).
        ArtifactError: when the model cannot be read whole and exactly.
        ConfigError: when the folder for the run is taken.

    >>> _ = wt.export("last", "exported", format="hf")
    >>> wt.import_model("exported", out="again", proof=False).logits("anna").shape
    (5, 27)
    """
    path, folder = place_of(str(source), None if out is None else Path(out))
    import_run(path, folder, None if corpus is None else str(corpus), proof=proof)
    return load(folder)


def place_of(source: str, out: Path | None = None) -> tuple[Path, Path]:
    """The file or folder that a name stands for, and the run folder of what is imported from it."""
    path, name = find_model(source)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    return path, (out or RUNS / f"import-{name}") / "seed-0"


def export(run: Model | PathLike, folder: PathLike, format: str = "hf") -> tuple[str, ...]:
    """Write a run's model as transformers ("hf") or llama.cpp ("gguf") reads it; what is worth saying of it.

    Raises:
        ConfigError: for a folder that is not empty, or a model that the format cannot hold.
        MissingExtra: when the format's package is not installed.

    >>> wt.export("last", "for-transformers")
    ('gpt2 has more biases: they were written as zeros, which gives the same logits',)
    """
    return export_run(run.folder if isinstance(run, Model) else find_run(str(run)), Path(folder), format)

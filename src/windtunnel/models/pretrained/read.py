"""Read a model from elsewhere, whatever format it is in."""

from __future__ import annotations

from pathlib import Path

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained.architectures import ARCHITECTURES
from windtunnel.models.pretrained.clip import read_clip
from windtunnel.models.pretrained.encoders import ENCODERS, read_encoder
from windtunnel.models.pretrained.gguf_model import read_gguf_model
from windtunnel.models.pretrained.huggingface import Pretrained, read_fields, read_huggingface


def read_pretrained(source: Path) -> Pretrained:
    """The model of a GGUF file, or of a Hugging Face folder.

    Raises:
        ArtifactError: when there is none, or it cannot be read whole and exactly.
        DataError: when its tokenizer cannot be used.
    """
    if not source.exists():
        raise ArtifactError(
            f"{source} does not exist; expected a .gguf file, or a Hugging Face model's folder with its config.json"
        )
    if source.is_file():
        return read_gguf_model(source)
    origin, data = read_fields(source / "config.json", [*ARCHITECTURES, *ENCODERS, "clip"])
    if origin == "clip":
        return read_clip(source, data)
    return read_encoder(source, origin, data) if origin in ENCODERS else read_huggingface(source)

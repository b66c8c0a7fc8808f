"""One step of decoding as one compiled function, kept on disk, so that only the first process waits for the compiler.

The step is the model itself with a `StaticCache`, exported and compiled ahead of time by torch's inductor for one
shape: layers and widths, sequences, capacity, threads. Its weights are not part of it; they are handed over when it is
loaded, in milliseconds. The eager step computes the same and stands in wherever there is no compiled one.

A compiled step is code that this process runs, so it is kept in a folder that only this user can write to
(`private_folder`), and its name states its SHA-256, which is compared before it is loaded: one that a disk or an
interrupted copy has damaged is removed. The name is no proof of who wrote it: who can write to the folder can also name
a file, which is why a folder of somebody else, or one that others may write to, is not used at all.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache as once
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import windtunnel
from windtunnel.errors import ArtifactError, SaveError
from windtunnel.files import delete, read_file
from windtunnel.generation.weights import weights_of, with_weights
from windtunnel.models import Model, Transformer, as_transformer
from windtunnel.nn.cache import AnyCache, Cache, StaticCache
from windtunnel.text.corpora.cache import cache_folder, private_folder
from windtunnel.training import machine
from windtunnel.training.disk import saving

Compile = Literal["auto", True, False]
Call = Callable[[Tensor, Cache], Tensor]
"""(ids (B, 1), cache) -> logits (B, V); the token is read into the cache."""

ROUND = 64
"""Tokens. A cache's capacity is rounded up to a multiple of it, so that prompts of almost the same length share a
compiled step. At least one position stays empty: the compiler treats a slice that may be the whole memory apart."""
EARNS = 60.0
"""Seconds. Compile when the remaining eager steps would take at least this long; compiling takes about 30."""
ONE_THREAD = 2_000_000
"""Parameters times sequences. Below it, handing half of a product to a second thread takes longer than computing it.
Measured with benchmarks/decoding.py --threads: 0.8M parameters decode faster on one thread than on two."""
FOLDER = "decoding"
"""Where compiled steps are, in the cache."""
SOURCES = ("models/transformer.py", "nn/*.py", "generation/weights.py", "generation/compiled.py")
"""What a compiled step is made from; when one of these changes, it is compiled again."""


def prepare_process(model: nn.Module, n_sequences: int = 1) -> None:
    """Prepare this process for decoding: freed memory is kept for the next step, and small steps get one thread."""
    machine.keep_memory()
    if n_sequences * sum(p.numel() for p in model.parameters()) < ONE_THREAD:
        torch.set_num_threads(1)


class Steps:
    """The compiled steps of one model, by shape.

    Args:
        compile: "auto" takes a compiled step that is on disk, and compiles one when decoding is long enough to earn
            its half minute back; True compiles at once; False is eager.
    """

    def __init__(self, model: Model, compile: Compile = "auto") -> None:
        self.model, self.compile = model, compile
        self.loaded: dict[tuple[int, int], Call] = {}
        self.keys: dict[tuple[int, int], str] = {}
        self.eager_because = self._reason()
        """Why every step is eager, for a person; empty where compiled steps are possible."""

    def _reason(self) -> str:
        if self.compile is False:
            return "it was asked for"
        if any(module._forward_hooks or module._forward_pre_hooks for module in self.model.modules()):
            return "a compiled step would pass by what is hooked into the model"
        if not self.model.config.cache_elements_per_token():
            return f"a model of the family {self.model.config.family} has no cache of keys and values"
        if self.model.config.reads == "pair":
            return "a compiled step reads no memory of a source"
        if self.model.embedding.weight.device.type != "cpu":
            return "the compiled step is for a CPU"
        return ""

    def capacity(self, n_tokens: int) -> int:
        """The size of a cache for n_tokens."""
        n_tokens = min(n_tokens, self.model.config.context_length)
        return n_tokens if self.eager_because else (n_tokens // ROUND + 1) * ROUND

    def get(self, cache: AnyCache | None, eager_seconds: float) -> Call | None:
        """The step for a cache, or None for eager steps.

        Args:
            eager_seconds: what the steps to come would take eagerly.
        """
        if not isinstance(cache, Cache) or self.eager_because:
            return None
        shape = (cache.keys.shape[1], cache.capacity)
        if shape not in self.loaded:
            try:
                step = self._load(cache, shape, eager_seconds)
            except (SaveError, RuntimeError) as error:  # RuntimeError: the compiler, or torch when it loads
                self.eager_because = str(error).strip().partition("\n")[0]
                if self.compile == "auto":  # who has asked for it reads eager_because
                    say(f"decoded without a compiled step: {self.eager_because}")
            else:
                self.loaded.update({shape: step} if step else {})
        return self.loaded.get(shape)

    def _load(self, cache: Cache, shape: tuple[int, int], eager_seconds: float) -> Call | None:
        """The step that is on disk, or one compiled now if that pays."""
        model = as_transformer(self.model, "a compiled step")
        if shape not in self.keys:
            self.keys[shape] = step_key(model, *shape)
        path = find_step(self.keys[shape])
        if path is None:
            if self.compile == "auto" and eager_seconds < EARNS:
                return None
            if not machine.has_compiler():
                self.eager_because = "there is no C++ compiler (c++, g++ or clang++)"
                return None
            path = compile_step(model, cache, self.keys[shape])
        return load_step(model, path)


class OneToken(nn.Module):
    """What is compiled: (ids (B, 1), positions_S, keys, values) -> logits (B, V); keys and values are extended."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_B1: Tensor, positions_S: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        cache = StaticCache(keys, values, positions_S)
        logits_B1V: Tensor = self.model(ids_B1, cache, attend=cache.attend)
        return logits_B1V[:, -1]


def one_token(model: Transformer) -> OneToken:
    """The module that is compiled for a model."""
    decoder = model if weights_of(model) != "fp32" else with_weights(model, "fp32")
    return OneToken(decoder)


def step_key(model: Transformer, n_sequences: int, capacity: int) -> str:
    """What a compiled step of a shape is known by: the code, the machine and torch, not the weights."""
    room = Path(windtunnel.__file__).parent
    sources = [path for pattern in SOURCES for path in sorted(room.glob(pattern))]
    facts = {
        **{name: machine.description()[name] for name in ("torch", "python", "processor", "capability")},
        "model": model.config.model_dump(mode="json"),
        "weights": weights_of(model),
        "shape": (n_sequences, capacity, torch.get_num_threads()),
        "source": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def find_step(key: str) -> Path | None:
    """The compiled step of this key on disk; a file of its name with other content than was written is removed.

    Raises:
        SaveError: when another user can have written it.
    """
    for path in kept_steps(key):
        private_folder(FOLDER)
        try:
            if hashlib.sha256(read_file(path)).hexdigest() == path.stem.partition("-")[2]:
                return path
            fault = f"{path} was altered: its SHA-256 is not the one in its name"
        except FileNotFoundError:  # another process has removed it
            continue
        except (ArtifactError, OSError) as error:
            fault = str(error)
        with saving(path):
            delete(path)
        say(f"{fault}; it was removed, and is compiled again when that pays")
    return None


def kept_steps(key: str) -> list[Path]:
    """The files that are named as compiled steps of this key, unread."""
    try:
        return sorted(path for path in (cache_folder() / FOLDER).iterdir() if path.name.startswith(f"{key}-"))
    except OSError:  # nothing has been kept, or nothing of it can be seen
        return []


@once
def say(note: str) -> None:
    """Tell a person, once in a process."""
    print(f"windtunnel: {note}", file=sys.stderr, flush=True)


def compile_step(model: Transformer, cache: Cache, key: str) -> Path:
    """Compile the step for a cache of this shape and keep it on disk; takes from 15 s to a minute.

    Raises:
        SaveError: when there is no folder for it that only this user can write to, or the disk refuses.
    """
    folder = private_folder(FOLDER)
    if note := machine.prepare_compiler():
        say(note)
    module = one_token(model)
    ids = torch.zeros(cache.keys.shape[1], 1, dtype=torch.long)
    keys, values = (list(torch.zeros_like(x).unbind()) for x in (cache.keys, cache.values))
    positions = torch.arange(8)
    filled = torch.export.Dim("filled", min=1, max=cache.capacity - 1)
    shapes = (None, {0: filled}, [None] * len(keys), [None] * len(values))
    settings = {
        "aot_inductor.package_constants_in_so": False,
        "memory_planning": True,  # otherwise every intermediate result is allocated: a third of a small model's step
        "cpp.enable_floating_point_contract_flag": "fast",  # x * y + z is rounded once
    }
    with saving(folder), tempfile.TemporaryDirectory(dir=folder) as scratch, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside torch
        program = torch.export.export(module, (ids, positions, keys, values), dynamic_shapes=shapes)
        made = torch._inductor.aoti_compile_and_package(
            program, package_path=f"{scratch}/step.pt2", inductor_configs=settings
        )
        digest = hashlib.sha256(Path(made).read_bytes()).hexdigest()
        return Path(made).replace(folder / f"{key}-{digest}.pt2")


def load_step(model: Transformer, path: Path) -> Call:
    """The step at `path` with the model's weights, which stay where they are."""
    module = one_token(model)
    run = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    tensors = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    run.load_constants({name: tensors[name] for name in run.get_constant_fqns()}, False, True, True)
    owner = module  # the compiled step points to the module's weights, so they must live as long
    last_cache: Cache | None = None
    memory: list[Tensor] = []
    positions = torch.empty(0, dtype=torch.long)

    def step(ids_B1: Tensor, cache: Cache) -> Tensor:
        nonlocal last_cache, memory, positions
        assert owner is module
        if cache is not last_cache:
            last_cache, memory = cache, [*cache.keys.unbind(), *cache.values.unbind()]
            positions = torch.arange(cache.capacity)
        (logits_BV,) = run.run([ids_B1, positions[: cache.length + 1], *memory])
        cache.advance(1)
        return logits_BV

    return step

"""One step of decoding as one compiled function, kept on disk, so that only the first process waits for the compiler.

The step is the model itself with a `StaticCache`, exported and compiled ahead of time by torch's inductor for one
shape: layers and widths, sequences, capacity, threads. Its weights are not part of it; they are handed over when it is
loaded, in milliseconds. The eager step computes the same and stands in wherever there is no compiled one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

import windtunnel
from windtunnel.generation.weights import weights_of, with_weights
from windtunnel.models import Model, Transformer, as_transformer
from windtunnel.nn.cache import Cache, StaticCache
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.training import machine

Compile = Literal["auto", True, False]
Call = Callable[[Tensor, Cache], Tensor]
"""(ids (B, 1), cache) -> logits (B, V); the token is read into the cache."""

ROUND = 64
"""Capacities are a multiple of it, so that prompts of almost the same length share a compiled step. One place at least
is never filled: a slice that may be the whole memory is a special case to the compiler."""
EARNS = 60.0
"""Seconds of eager steps still to come from which compiling, about half a minute, is sure to earn itself back."""
ONE_THREAD = 2_000_000
"""0.8M parameters decode faster on one thread than on two (benchmarks/decoding.py --threads)."""
SOURCES = ("models/transformer.py", "nn/*.py", "generation/weights.py", "generation/compiled.py")
"""What a compiled step is made from; when one of these changes, it is compiled again."""


def settle(model: nn.Module, n_sequences: int = 1) -> None:
    """Prepare this process for decoding: what is freed is kept for the next step, and small steps get one thread.

    With less than ONE_THREAD parameters times sequences, products are shorter than their handing over to another.
    """
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
        self.paths: dict[tuple[int, int], Path] = {}
        self.eager_because = self._reason()
        """Why every step is eager, for a person; empty where compiled steps are possible."""

    def _reason(self) -> str:
        if self.compile is False:
            return "it was asked for"
        if not self.model.config.cache_elements_per_token():
            return f"an {self.model.config.family} has no cache"
        if self.model.embedding.weight.device.type != "cpu":
            return "the compiled step is for a CPU"
        return ""

    def capacity(self, n_tokens: int) -> int:
        """The size of a cache for n_tokens."""
        n_tokens = min(n_tokens, self.model.config.context_length)
        return n_tokens if self.eager_because else (n_tokens // ROUND + 1) * ROUND

    def get(self, cache: Cache | None, eager_seconds: float) -> Call | None:
        """The step for a cache, or None for eager steps.

        Args:
            eager_seconds: what the steps to come would take eagerly.
        """
        if cache is None or self.eager_because:
            return None
        shape = (cache.keys.shape[1], cache.capacity)
        if shape not in self.loaded:
            model = as_transformer(self.model, "a compiled step")
            if shape not in self.paths:
                self.paths[shape] = step_path(model, *shape)
            path = self.paths[shape]
            if not path.exists():
                if self.compile == "auto" and eager_seconds < EARNS:
                    return None
                if not machine.has_compiler():
                    self.eager_because = "there is no C++ compiler (c++, g++ or clang++)"
                    return None
                compile_step(model, cache, path)
            self.loaded[shape] = load_step(model, path)
        return self.loaded[shape]


class OneToken(nn.Module):
    """What is compiled: (ids (B, 1), places (S,), keys, values) -> logits (B, V); keys and values are extended."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_B1: Tensor, places_S: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        cache = StaticCache(keys, values, places_S)
        logits_B1V: Tensor = self.model(ids_B1, cache, attend=cache.attend)
        return logits_B1V[:, -1]


def one_token(model: Transformer) -> OneToken:
    """The module that is compiled for a model."""
    decoder = model if weights_of(model) != "fp32" else with_weights(model, "fp32")
    return OneToken(decoder)


def step_path(model: Transformer, n_sequences: int, capacity: int) -> Path:
    """Where the compiled step of a shape is kept: it depends on the code, the machine and torch, not on the weights."""
    room = Path(windtunnel.__file__).parent
    sources = [path for pattern in SOURCES for path in sorted(room.glob(pattern))]
    facts = {
        **{name: machine.description()[name] for name in ("torch", "python", "processor", "capability")},
        "model": model.config.model_dump(mode="json"),
        "weights": weights_of(model),
        "shape": (n_sequences, capacity, torch.get_num_threads()),
        "source": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "decoding" / f"{key}.pt2"


def compile_step(model: Transformer, cache: Cache, path: Path) -> None:
    """Compile the step for a cache of this shape and keep it at `path`; takes from 15 s to a minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    module = one_token(model)
    ids = torch.zeros(cache.keys.shape[1], 1, dtype=torch.long)
    keys, values = (list(torch.zeros_like(x).unbind()) for x in (cache.keys, cache.values))
    places = torch.arange(8)
    filled = torch.export.Dim("filled", min=1, max=cache.capacity - 1)
    shapes = (None, {0: filled}, [None] * len(keys), [None] * len(values))
    settings = {
        "aot_inductor.package_constants_in_so": False,
        "memory_planning": True,  # otherwise every intermediate result is allocated: a third of a small model's step
        "cpp.enable_floating_point_contract_flag": "fast",  # x * y + z is rounded once
    }
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside torch
        program = torch.export.export(module, (ids, places, keys, values), dynamic_shapes=shapes)
        made = torch._inductor.aoti_compile_and_package(
            program, package_path=f"{scratch}/step.pt2", inductor_configs=settings
        )
        Path(made).replace(path)


def load_step(model: Transformer, path: Path) -> Call:
    """The step at `path` with the model's weights, which stay where they are."""
    module = one_token(model)
    run = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    own = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    run.load_constants({name: own[name] for name in run.get_constant_fqns()}, False, True, True)
    held = module  # the compiled step points to the module's weights
    known: Cache | None = None
    memory: list[Tensor] = []
    places = torch.empty(0, dtype=torch.long)

    def step(ids_B1: Tensor, cache: Cache) -> Tensor:
        nonlocal known, memory, places
        assert held is module
        if cache is not known:
            known, memory = cache, [*cache.keys.unbind(), *cache.values.unbind()]
            places = torch.arange(cache.capacity)
        (logits_BV,) = run.run([ids_B1, places[: cache.length + 1], *memory])
        cache.advance(1)
        return logits_BV

    return step

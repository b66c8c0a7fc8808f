"""What a run costs before it is begun: parameters, shapes, FLOPs and memory, without allocating the model.

Counting is done twice where it can be: by formula, and by torch on tensors that have shapes and no memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from windtunnel.inspect.shapes import Intermediate, in_the_open, intermediates
from windtunnel.models import Model, ModelConfig, ParameterRow
from windtunnel.models.cost import training_flops_per_token
from windtunnel.models.lora import adapt, trained_note
from windtunnel.nn.blocks import blocks_of
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.training.compiling import recompute_blocks
from windtunnel.training.muon import hidden_matrices
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig

FLOAT32 = 4
"""Bytes of a weight, a gradient and an optimizer's number; bf16 runs keep these in float32 too."""


@dataclass(frozen=True)
class Flops:
    """Matrix-multiply FLOPs a token at the full context; a multiply and an add are two.

    `forward` is by part; `forward_counted` is what torch's FlopCounterMode counts, with attention as plain matrix
    products. Training is three times the forward pass; a fused kernel that computes the scores again is not counted.
    """

    forward: dict[str, float]
    forward_per_token: float
    forward_counted: float
    training_per_token: float
    training_per_step: float


@dataclass(frozen=True)
class Memory:
    """Bytes. The activations are those that autograd keeps for the backward pass of one micro-batch, loss included,
    each storage once, without the weights: what the pass needs at its peak beyond them is some temporaries more."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    kv_cache_per_token: int
    kv_cache_full_context: int

    @property
    def training(self) -> int:
        """Weights, gradients, optimizer state and activations together."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Cost:
    """What a run costs. The shapes are of one micro-batch of whole contexts; short documents take less."""

    names: dict[str, int]
    micro_batch: int
    context_length: int
    precision: str
    parameters: tuple[ParameterRow, ...]
    n_parameters: int
    n_parameters_counted: int
    flops: Flops
    memory: Memory
    shapes: tuple[Intermediate, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        data["memory"]["training"] = self.memory.training
        return data


def cost(config: RunConfig) -> Cost:
    """The cost of a run; what `resolve` would decide and has not is taken as the config has it, and noted."""
    model, train = config.model, config.train
    rows = tuple(model.parameter_rows())
    micro_batch = math.ceil(train.batch_size / train.grad_accumulation)
    precision = "fp32" if train.precision == "auto" else train.precision
    return Cost(
        names=model.formula_names(),
        micro_batch=micro_batch,
        context_length=model.context_length,
        precision=precision,
        parameters=rows,
        n_parameters=model.n_parameters(),
        n_parameters_counted=sum(shape.numel() for shape in parameter_shapes(model)),
        flops=_flops(config),
        memory=_memory(config, micro_batch, precision),
        shapes=tuple(intermediates(model, micro_batch, model.context_length)),
        notes=_notes(config),
    )


def parameter_shapes(config: ModelConfig) -> list[torch.Size]:
    """The shape of every parameter, shared ones once, from the model itself on the meta device."""
    with torch.device("meta"):
        return [parameter.shape for parameter in config.create().parameters()]


def adapted_model(config: RunConfig) -> Model:
    """The model that a run trains, without weights."""
    with torch.device("meta"):
        return adapt(config.model.create(), config.lora, config.seed)


def hidden_shapes(config: ModelConfig) -> list[torch.Size]:
    """The shape of every matrix that Muon would move."""
    with torch.device("meta"):
        return [matrix.shape for matrix in hidden_matrices(config.create())]


def count_forward_flops(config: ModelConfig, length: int, source: int | None = None) -> int:
    """What torch's FlopCounterMode counts in one forward pass over a sequence, attention as plain matrix products.

    A source of a pair is as long where its length is not given.

    It does not know the fused attention kernel of CPUs, so `attend_reference` takes its place.
    """
    with torch.device("meta"):
        model = config.create().eval()
        inputs = config.example(1, length, source)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        in_the_open(model, inputs)
    return int(counter.get_total_flops())


def activation_bytes(config: ModelConfig, batch_size: int, length: int, precision: str, recompute: bool = False) -> int:
    """Bytes that autograd keeps from a forward pass and its loss until the backward pass, as on a CPU.

    Counts each storage once and leaves out the weights; the bfloat16 copies of the weights do count. Runs the
    training code on fake tensors, which have shapes, types and a device, and no memory. With `recompute` what goes
    into each block is kept, and what is inside of one block at a time.
    """
    whole = _kept_bytes(config, batch_size, length, precision, False)
    with torch.device("meta"):
        n_blocks = len(blocks_of(config.create()))
    if not recompute or not n_blocks:
        return whole
    inputs = _kept_bytes(config, batch_size, length, precision, True)
    return inputs + (whole - inputs) // n_blocks


def _kept_bytes(config: ModelConfig, batch_size: int, length: int, precision: str, recompute: bool) -> int:
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode():
        model = config.create().train()
        if recompute:
            recompute_blocks(model)
        inputs = config.example(batch_size, length)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits_BTV = model(**inputs)
            ids_BT = inputs["ids"] if config.reads != "captioned" else torch.zeros(batch_size, 1, dtype=torch.int64)
            loss_sum(logits_BTV, ids_BT[:, -logits_BTV.shape[1] :])
        return sum(storage.nbytes() for storage in kept.values())


def optimizer_bytes(config: OptimizerConfig, shapes: list[torch.Size], hidden: Sequence[torch.Size] = ()) -> int:
    """Bytes of the optimizer's state: AdamW keeps two averages and a step count, SGD with momentum one.

    Args:
        hidden: those of the shapes that Muon moves; of these it keeps one average.
    """
    n = sum(shape.numel() for shape in shapes)
    if config.name == "muon":
        n_hidden = sum(shape.numel() for shape in hidden)
        return FLOAT32 * (n_hidden + 2 * (n - n_hidden) + len(shapes) - len(hidden))
    if config.name == "adamw":
        return FLOAT32 * (2 * n + len(shapes))
    return FLOAT32 * n if config.momentum else 0


def _flops(config: RunConfig) -> Flops:
    model = config.model
    length = model.context_length if model.reads in ("text", "captioned") else model.targets_per_example
    parts = {part: flops / length for part, flops in model.flops_by_part(length).items()}
    training = training_flops_per_token(model, length)
    return Flops(
        forward=parts,
        forward_per_token=sum(parts.values()),
        forward_counted=count_forward_flops(model, model.context_length) / length,
        training_per_token=training,
        training_per_step=training * length * config.train.batch_size,
    )


def _memory(config: RunConfig, micro_batch: int, precision: str) -> Memory:
    model = config.model
    adapted = adapted_model(config)
    shapes = [p.shape for p in adapted.parameters() if p.requires_grad]
    cache = FLOAT32 * model.cache_elements_per_token()
    return Memory(
        weights=FLOAT32 * sum(p.numel() for p in adapted.parameters()),
        gradients=FLOAT32 * sum(shape.numel() for shape in shapes),
        optimizer=optimizer_bytes(config.optimizer, shapes, [] if config.lora.rank else hidden_shapes(model)),
        activations=activation_bytes(model, micro_batch, model.context_length, precision, config.train.recompute),
        kv_cache_per_token=cache,
        kv_cache_full_context=FLOAT32 * model.cache_elements(),
    )


def _notes(config: RunConfig) -> tuple[str, ...]:
    notes = []
    if "vocab_size" not in config.model.model_fields_set:
        notes.append(f"vocab_size {config.model.vocab_size} is the default; training takes the tokenizer's")
    if config.lora.rank:
        notes.append(f"{trained_note(adapted_model(config), config.lora)}; the tables are of the model without them")
    if config.change:
        notes.append(f"{config.change.function} changes it in Python: these are the numbers of the settings alone")
    if config.train.precision == "auto":
        notes.append("train.precision is auto and counted as fp32; in bf16 the activations take less")
    return tuple(notes)

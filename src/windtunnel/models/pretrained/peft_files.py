"""What LoRA added to a run, as the library peft reads it: an adapter for the base as `export --format hf` writes it.

Here queries, keys and values are one matrix with an A and a B each. Where transformers has three, each gets its own;
where it has one, as GPT-2, the A lie one below the other, and B is zero where a part has nothing to do with a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import safetensors.torch
from torch import Tensor

from windtunnel.models.classifier import ClassifierConfig
from windtunnel.models.encoder import EncoderConfig
from windtunnel.models.lora import A, B, LoraConfig, Place, empty_places
from windtunnel.models.pretrained.architectures import ARCHITECTURES
from windtunnel.models.pretrained.encoder_export import bert_parts
from windtunnel.models.pretrained.export import Exported, as_json, stock_architecture
from windtunnel.models.pretrained.parts import Part, bare
from windtunnel.models.transformer import TransformerConfig

HEAD = "head.safetensors"


class _Base(NamedTuple):
    """The class of transformers that the adapter is for: its tensors, and their order of rows."""

    task: str
    parts: list[Part]
    outward: Callable[[str, Tensor], Tensor]


def peft_files(
    config: TransformerConfig | ClassifierConfig, weights: Mapping[str, Tensor], lora: LoraConfig
) -> Exported:
    """adapter_config.json and adapter_model.safetensors, for `PeftModel.from_pretrained(base, folder)`.

    The base of a classifier is the bare model, `AutoModel`; its head goes into a file of its own.

    Args:
        weights: with the A and B, as a checkpoint has them.

    Raises:
        ConfigError: when the base is no architecture of transformers.
    """
    if isinstance(config, ClassifierConfig):
        base = _classifier_base(config)
    else:
        base = _decoder_base(config, stock_architecture(config))
    tensors: dict[str, Tensor] = {}
    modules: list[str] = []
    ranks: dict[str, int] = {}
    adapted = {f"{place.name}.weight": place for place in empty_places(config, lora)}
    for part in base.parts:
        if part.ours in adapted:
            for module, (a, b) in _pairs(adapted[part.ours], part, weights, base).items():
                tensors |= {f"base_model.model.{module}.lora_{name}.weight": t for name, t in (("A", a), ("B", b))}
                modules.append(module)
                ranks[re.sub(r"^.*\.\d+\.", "", module)] = len(a)
    wide = {name: rank for name, rank in ranks.items() if rank != lora.rank}
    told = {
        "peft_type": "LORA",
        "task_type": base.task,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(part.transposed for part in base.parts),
        "target_modules": _targets(base, modules, sorted(ranks)),
        "rank_pattern": wide,
        "alpha_pattern": {name: lora.scale * rank for name, rank in wide.items()},
    }
    files = {"adapter_config.json": as_json(told), "adapter_model.safetensors": safetensors.torch.save(tensors)}
    notes = []
    if isinstance(config, ClassifierConfig):
        head = {name: weights[f"head.{name}"].contiguous() for name in ("weight", "bias")}
        files[HEAD] = safetensors.torch.save(head)
        pooled = {"mean": "the mean of the last vectors", "last": "the last vector", "first": "the first vector"}
        notes.append(f"the head, a linear layer on {pooled[config.pool]}, is no part of the adapter: it is in {HEAD}")
    return Exported(files, tuple(notes))


def _targets(base: _Base, modules: Sequence[str], ends: list[str]) -> list[str]:
    """The modules by how their names end, or in full where peft would take others for them, too."""
    known = {name.removesuffix(".weight") for part in base.parts for name in part.theirs}
    meant = {name for name in known if any(name.endswith(f".{end}") for end in ends)}
    return ends if meant == set(modules) else sorted(modules)


def _pairs(place: Place, part: Part, weights: Mapping[str, Tensor], base: _Base) -> dict[str, tuple[Tensor, Tensor]]:
    """A (rank, inputs) and B (outputs, rank) of each of their modules that a layer of ours is made of."""
    a, b = (weights[f"{place.name}.{name}"] for name in (A, B))
    wide, rank, start, found = place.widened(a, b), b.shape[1], 0, {}
    for name, n in zip(part.theirs, part.rows, strict=True):
        own = [i for i, (first, end) in enumerate(place.spans) if first < start + n and end > start]
        kept = [row for i in own for row in range(i * rank, (i + 1) * rank)]
        if kept:
            rows = base.outward(name, wide[start : start + n, kept])
            found[name.removesuffix(".weight")] = (a[kept].contiguous(), rows.contiguous())
        start += n
    return found


def _decoder_base(config: TransformerConfig, name: str) -> _Base:
    architecture = ARCHITECTURES[name]
    config = config.replace(**architecture.biases(config))
    parts = list(architecture.parts(config))
    return _Base("CAUSAL_LM", parts, lambda theirs, rows: architecture.outward(theirs, rows, config))


def _classifier_base(config: ClassifierConfig) -> _Base:
    """The bare model of the trunk."""
    sizes = {"vocab_size": config.vocab_size, "context_length": config.context_length}
    if not config.trunk.causal:
        return _Base("FEATURE_EXTRACTION", bert_parts(EncoderConfig(**sizes, trunk=config.trunk)), lambda _, rows: rows)
    name = stock_architecture(config.body, "model.trunk")
    base = _decoder_base(config.body, name)
    parts = [replace(part, ours=f"trunk.{part.ours}") for part in bare(base.parts, ARCHITECTURES[name].prefix)]
    return base._replace(task="FEATURE_EXTRACTION", parts=parts)

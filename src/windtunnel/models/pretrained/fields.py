"""The fields of a foreign config.json: each is mapped, known to have no effect on the logits, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained.parts import listing

_METADATA = """
model_type architectures torch_dtype dtype transformers_version name_or_path task_specific_params finetuning_task
problem_type id2label label2id num_labels tokenizer_class prefix return_dict use_return_dict output_hidden_states
output_attentions output_past torchscript use_bfloat16 use_cache attn_implementation experts_implementation
gradient_checkpointing initializer_range chunk_size_feed_forward keys_to_ignore_at_inference tie_last_hidden_states
is_decoder tie_encoder_decoder cross_attention_hidden_size is_llama_config unsloth_version unsloth_fixed
transformers.js_config n_ctx

bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id

max_length max_new_tokens min_length min_new_tokens do_sample early_stopping num_beams num_beam_groups
diversity_penalty temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff repetition_penalty
encoder_repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
"""  # about the file and what a call returns; tokens with a task; settings of generation, once kept here
METADATA = frozenset(_METADATA.split())
"""Fields of every model that have no effect on the logits; so has every field that begins with an underscore."""

LARGEST = 2**62

COMMON_NEEDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "is_encoder_decoder": ((False, None), "the model is a decoder only"),
    "add_cross_attention": ((False, None), "there is no encoder to attend to"),
    "pruned_heads": (({}, None), "every layer has all of its heads"),
    "per_layer_config": (({}, None), "all layers have the same sizes"),
    "quantization_config": ((None,), "quantised weights are not read; use the model's float weights"),
    "rope_interleaved": ((False, None), "the two halves of a head are turned together, as in transformers"),
    "auto_map": (({}, None), "it needs the code that comes with the model, and no foreign code is run"),
}
"""Fields of every model that are honoured at some values only: those values, and the reason."""


@dataclass(frozen=True)
class Fields:
    """What the config.json of an architecture may hold.

    Attributes:
        mapped: the fields that become our settings, each with the value it has when config.json leaves it out.
        needs: further fields that are honoured at some values only, and why.
        no_effect: further fields that do not change the logits.
        spellings: other spellings of mapped fields.
        objects: the mapped fields that may hold an object.
        inside: further fields that hold an object with fields of its own.
    """

    mapped: dict[str, Any]
    needs: dict[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    no_effect: frozenset[str] = frozenset()
    spellings: dict[str, str] = field(default_factory=dict)
    objects: frozenset[str] = frozenset()
    inside: Mapping[str, Fields] = field(default_factory=dict)


def take_fields(data: Mapping[str, Any], fields: Fields, where: object) -> dict[str, Any]:
    """The mapped fields with their values, defaults filled in.

    Raises:
        ArtifactError: one, that names every field that cannot be honoured or is unknown, with the reason.
    """
    needs = {**COMMON_NEEDS, **fields.needs}
    values, refused, unknown = dict(fields.mapped), [], []
    for name, inner in fields.inside.items():
        given = data.get(name)
        given = {} if given is None else given if isinstance(given, dict) else {"": given}
        values[name] = take_fields(given, inner, f"{where}, {name}")
    for name, value in data.items():
        known_as, shown = fields.spellings.get(name, name), _shown(name, value)
        if name in fields.inside:
            continue
        if known_as in fields.mapped:
            if known_as != name and data.get(known_as, value) != value:
                refused.append(f"{shown} contradicts {_shown(known_as, data[known_as])}")
            if isinstance(value, list | dict) and name not in fields.objects:
                refused.append(f"{shown} (expected one value)")
            if _too_large(value):
                refused.append(f"{shown} (larger than any model's)")
            values[known_as] = value
        elif name in needs:
            allowed, reason = needs[name]
            if value not in allowed:
                refused.append(f"{shown} ({reason})")
        elif name not in METADATA and name not in fields.no_effect and not name.startswith("_"):
            refused.append(f"{shown} (unknown here, so what it does to the logits is too)")
            unknown.append(name)
    if refused:
        cure = f"; if {listing(unknown)} do nothing, remove them from the file" if unknown else ""
        raise ArtifactError(f"{where} asks for what this model cannot be: {'; '.join(refused)}{cure}")
    return values


def computing(data: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The fields of a config.json that decide what the model computes, as they are stated.

    Nothing else of the file may reach another program: some fields there load code (auto_map, _attn_implementation).
    """
    known = {"model_type", *fields.mapped, *fields.spellings, *fields.needs}
    inside = {name: computing(data.get(name) or {}, inner) for name, inner in fields.inside.items()}
    return {name: value for name, value in data.items() if name in known} | inside


def _too_large(value: Any) -> bool:
    """Whether it is or holds a number that no size, rate or width has, and that 64 bits do not hold."""
    if isinstance(value, list | dict):
        return any(map(_too_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and abs(value) > LARGEST


def _shown(name: str, value: Any) -> str:
    """`name=value` in one line, the beginning of it when it is long."""
    text = f"{name if name.isprintable() else repr(name)}={value!r}"
    return text if len(text) <= 100 else text[:99] + "…"

"""CLIP as transformers stores it (CLIPModel), read: config.json, weights, tokenizer and what pictures are prepared by.

Radford et al. 2021 (arXiv 2103.00020).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from windtunnel.config import parse
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import read_given
from windtunnel.models.clip import CLIPConfig
from windtunnel.models.pretrained.fields import Fields, take_fields
from windtunnel.models.pretrained.huggingface import Pretrained, tokenizer_of
from windtunnel.models.pretrained.marks import LARGEST, read_marks
from windtunnel.models.pretrained.parts import Part, check_tensors, gather, linear, norm, single
from windtunnel.models.pretrained.safetensors_files import list_tensors, read_tensors
from windtunnel.text.tokenizers import Tokenizer

ACTIVATIONS = {
    "quick_gelu": "quick_gelu", "gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip
BUFFERS = re.compile(r"(text|vision)_model\.embeddings\.position_ids")
HIGHEST = 2
"""The eos_token_id of old files; there the token with the highest id ends a caption, whichever it is."""

_TOWER = {
    "num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0,
    "dropout": 0.0,
}  # fmt: skip
_OF_BOTH = frozenset({"projection_dim", "initializer_factor", "tie_word_embeddings"})  # the model's own is what counts
FIELDS = Fields(
    mapped={"projection_dim": 512},
    no_effect=frozenset({"logit_scale_init_value", "initializer_factor", "tie_word_embeddings"}),
    inside={
        "text_config": Fields(
            mapped={
                **_TOWER, "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
                "max_position_embeddings": 77, "eos_token_id": 49407,
            },
            no_effect=_OF_BOTH,
        ),
        "vision_config": Fields(
            mapped={
                **_TOWER, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224,
                "patch_size": 32,
            },
            needs={"num_channels": ((3,), "a picture has red, green and blue")},
            no_effect=_OF_BOTH,
        ),
    },
)  # fmt: skip
PREPARED = "preprocessor_config.json"
_PREPARED = Fields(
    mapped={
        "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    needs={
        "do_resize": ((True,), "a picture is made as small as the model reads it"),
        "do_center_crop": ((True,), "the middle square of a picture is read"),
        "do_rescale": ((True,), "colours are read from 0 to 1"),
        "rescale_factor": ((1 / 255, 0.00392156862745098), "colours are read from 0 to 1"),
        "do_normalize": ((True,), "colours are less their mean, divided by their deviation"),
        "do_convert_rgb": ((True, None), "pictures are read as red, green and blue"),
        "resample": ((3,), "pictures are made smaller by bicubic interpolation"),
    },
    no_effect=frozenset(
        {
            "image_processor_type", "feature_extractor_type", "processor_class", "default_to_square", "data_format",
            "input_data_format", "return_tensors", "device", "disable_grouping", "do_pad", "pad_size",
        }
    ),
    objects=frozenset({"size", "crop_size", "image_mean", "image_std"}),
)  # fmt: skip


def effective(data: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json as transformers takes it: text_config_dict and vision_config_dict, of old files, win."""
    own = dict(data)
    for name in FIELDS.inside:
        if (old := own.pop(f"{name}_dict", None)) is not None:
            own[name] = old
    return own


def read_clip(folder: Path, data: Mapping[str, Any]) -> Pretrained:
    """A CLIP out of a Hugging Face folder; every field and tensor is accounted for.

    Args:
        data: the config.json.

    Raises:
        ArtifactError: when a field asks for what this model cannot be, or the weights do not fit, listing the tensors.
        DataError: when there is no tokenizer with the marks that a caption stands between.
    """
    where = folder / "config.json"
    values = take_fields(effective(data), FIELDS, where)
    prepared, notes = _prepared(folder, values["vision_config"]["image_size"])
    entries = list_tensors(folder)
    config = clip_config(values, prepared, where)
    if max(values[name]["num_hidden_layers"] for name in FIELDS.inside) > len(entries):
        raise ArtifactError(f"{where} says more layers than there are tensors in {folder}")
    parts = list(clip_parts(config))
    check_tensors(parts, {name: entry.shape for name, entry in entries.items()}, BUFFERS, folder)
    tensors = read_tensors({name: entries[name] for part in parts for name in part.theirs})
    weights = gather(parts, tensors.pop)
    weights["picture.patches.weight"] = weights["picture.patches.weight"].flatten(1)
    tokenizer, about = tokenizer_of(folder, config.vocab_size)
    if tokenizer is not None:
        _check_marks(tokenizer, values["text_config"]["eos_token_id"], folder)
    config = with_scale(config, weights["log_scale"])
    return Pretrained(config, weights, tokenizer, "clip", (*notes, *about), read_marks(folder, data))


def _prepared(folder: Path, size: Any) -> tuple[dict[str, Any], list[str]]:
    """How the model wants its pictures, as settings of the tower."""
    path, given, notes = folder / PREPARED, {}, []
    if path.exists():
        try:
            given = json.loads(read_given(path, LARGEST))
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: cannot be read as JSON ({error}); download it again") from None
    else:
        notes = [f"the folder has no {PREPARED}: pictures are prepared as OpenAI's CLIP has them"]
        given = {"size": size, "crop_size": size}
    values = take_fields(given if isinstance(given, dict) else {"": given}, _PREPARED, path)
    sides = {"size": _side(values["size"], "shortest_edge"), "crop_size": _side(values["crop_size"], "height", "width")}
    for name, side in sides.items():
        if side != size:
            raise ArtifactError(
                f"{path}: {name}={values[name]!r}, and the model reads pictures of {size!r} pixels a side "
                f"(image_size in config.json); only {name} of the same side is read: correct the wrong one"
            )
    return {"mean": values["image_mean"], "deviation": values["image_std"], "cropped": True}, notes


def _side(given: Any, *names: str) -> Any:
    """The side of a square; None where it is none."""
    if not isinstance(given, dict):
        return given
    sides = {json.dumps(given.get(name)) for name in names}
    return given.get(names[0]) if len(sides) == 1 and given.keys() == set(names) else None


def clip_config(values: Mapping[str, Any], prepared: Mapping[str, Any], where: object) -> CLIPConfig:
    """Our settings from CLIP's fields.

    Raises:
        ArtifactError: for an activation that is not built in, dropouts that differ, or sizes that do not fit.
    """
    text, vision = values["text_config"], values["vision_config"]
    picture = {
        "kind": "vit", "size": vision["image_size"], "patch": vision["patch_size"], "pool": "class", **prepared,
        "trunk": {**_trunk(vision, f"{where}, vision_config"), "causal": False, "embedding_norm": True},
    }  # fmt: skip
    caption = {"kind": "transformer", "pool": "last", "trunk": _trunk(text, f"{where}, text_config")}
    sizes = {"vocab_size": text["vocab_size"], "context_length": text["max_position_embeddings"]}
    try:
        return parse(
            CLIPConfig, {**sizes, "d_shared": values["projection_dim"], "picture": picture, "caption": caption}
        )
    except ConfigError as error:
        raise ArtifactError(f"{where} describes no model that can be built: {error}") from None


def _trunk(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    act = values["hidden_act"]
    if act not in ACTIVATIONS:
        raise ArtifactError(
            f"{where}: hidden_act={act!r} is not built in, only {', '.join(ACTIVATIONS)} are; use a CLIP with one of "
            "these"
        )
    dropouts = {float(values[name] or 0) for name in ("dropout", "attention_dropout")}
    if dropouts != {0.0}:
        raise ArtifactError(
            f"{where}: dropout={values['dropout']!r} and attention_dropout={values['attention_dropout']!r}; they act "
            "in training only: set both to 0.0, and say the dropout of a training by --set"
        )
    return {
        "n_layers": values["num_hidden_layers"], "n_heads": values["num_attention_heads"],
        "d_model": values["hidden_size"], "d_ff": values["intermediate_size"], "activation": ACTIVATIONS[act],
        "norm_epsilon": values["layer_norm_eps"], "dropout": 0.0,
    }  # fmt: skip


def with_scale(config: CLIPConfig, log_scale: Tensor) -> CLIPConfig:
    """The config with bounds in which the scale of the weights lies."""
    scale = float(log_scale.exp())
    bounds = {"least_scale": min(config.least_scale, scale), "most_scale": max(config.most_scale, scale)}
    return config.replace(scale=scale, **bounds)


def clip_parts(config: CLIPConfig) -> Iterator[Part]:
    """The tensors of a CLIPModel."""
    picture: Any = config.picture
    body, text = picture.body, config.words.trunk  # type: ignore[attr-defined]
    d, seen, read = body.d_model, "vision_model.embeddings", "text_model.embeddings"
    patch = (d, 3, picture.patch, picture.patch)
    yield Part("picture.patches.weight", (f"{seen}.patch_embedding.weight",), (patch,))
    yield single("picture.class_token", f"{seen}.class_embedding", d)
    yield single("picture.position.embedding.weight", f"{seen}.position_embedding.weight", body.context_length, d)
    yield from norm("picture.embedding_norm", "vision_model.pre_layrnorm", d, True)
    yield from _layers("picture", "vision_model", body)
    yield from norm("picture.norm", "vision_model.post_layernorm", d, True)
    yield single("caption.trunk.embedding.weight", f"{read}.token_embedding.weight", config.vocab_size, text.d_model)
    places = (config.context_length, text.d_model)
    yield single("caption.trunk.position.embedding.weight", f"{read}.position_embedding.weight", *places)
    yield from _layers("caption.trunk", "text_model", text)
    yield from norm("caption.trunk.norm", "text_model.final_layer_norm", text.d_model, True)
    yield single("picture_projection.weight", "visual_projection.weight", config.d_shared, d)
    yield single("caption_projection.weight", "text_projection.weight", config.d_shared, text.d_model)
    yield single("log_scale", "logit_scale")


def _layers(ours: str, theirs: str, body: Any) -> Iterator[Part]:
    d, ff = body.d_model, body.ff_width
    for i in range(body.n_layers):
        mine, other = f"{ours}.blocks.{i}", f"{theirs}.encoder.layers.{i}"
        qkv = [f"{other}.self_attn.{one}_proj" for one in "qkv"]
        yield from norm(f"{mine}.norm_1", f"{other}.layer_norm1", d, True)
        yield from linear(f"{mine}.attention.qkv", qkv, d, [d, d, d], True)
        yield from linear(f"{mine}.attention.out", [f"{other}.self_attn.out_proj"], d, [d], True)
        yield from norm(f"{mine}.norm_2", f"{other}.layer_norm2", d, True)
        yield from linear(f"{mine}.feed_forward.widen", [f"{other}.mlp.fc1"], d, [ff], True)
        yield from linear(f"{mine}.feed_forward.narrow", [f"{other}.mlp.fc2"], ff, [d], True)


def _check_marks(tokenizer: Tokenizer, end: Any, folder: Path) -> None:
    """A caption stands between two marks, and the last is where its vector is read."""
    if not {"cls", "end"} <= tokenizer.marks.keys():
        raise DataError(
            f"{folder}: the tokenizer has no <|startoftext|> and <|endoftext|> around a text; put the tokenizer there "
            "that the model was trained with"
        )
    expected = tokenizer.vocab_size - 1 if end == HIGHEST else end
    if tokenizer.marks["end"] != expected:
        raise DataError(
            f"{folder}: a caption ends with token {tokenizer.marks['end']} of the tokenizer, and config.json says "
            f"{expected} (eos_token_id of text_config); use the tokenizer that the model was trained with"
        )

"""BERT, RoBERTa and DistilBERT as transformers stores them (BertModel, RobertaModel, DistilBertModel), read.

What a text of one sentence adds to every token, the vector of token type 0, is added to the positions. RoBERTa counts
positions from its padding token's id + 1 on; the rows before are cut off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from windtunnel.config import parse
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import read_given
from windtunnel.models.encoder import EncoderConfig
from windtunnel.models.pretrained.fields import Fields, take_fields
from windtunnel.models.pretrained.gpt2 import ACTIVATIONS
from windtunnel.models.pretrained.huggingface import Pretrained, canonical, tokenizer_of
from windtunnel.models.pretrained.marks import LARGEST, read_marks
from windtunnel.models.pretrained.parts import Part, check_tensors, gather, linear, listing, norm, single
from windtunnel.models.pretrained.safetensors_files import list_tensors, read_tensors
from windtunnel.text.tokenizers import Tokenizer

TYPES = "token types"
"""The name under which the vectors of token types are kept until they are added to the positions."""
HEADS = re.compile(r"(cls|lm_head|classifier|pre_classifier|qa_outputs|vocab_\w+)\..*")
BUFFERS = re.compile(r".*\.position_ids")
_ROBERTA_FIRST = 2

_BERT = Fields(
    mapped={
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512, "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
    },
    needs={
        "position_embedding_type": (("absolute", None), "positions are learned vectors here"),
        "is_decoder": ((False, None), "an encoder sees the whole text"),
    },
    no_effect=frozenset({"classifier_dropout", "tie_word_embeddings"}),
)  # fmt: skip
_ROBERTA = Fields(
    mapped={**_BERT.mapped, "vocab_size": 50265},
    needs={**_BERT.needs, "pad_token_id": ((1,), "positions begin at its id + 1, and 2 is what is read")},
    no_effect=_BERT.no_effect,
)
_DISTILBERT = Fields(
    mapped={
        "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu",
        "dropout": 0.1, "attention_dropout": 0.1, "max_position_embeddings": 512,
    },
    no_effect=frozenset(
        {"sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout", "tie_word_embeddings", "tie_weights_"}
    ),
    spellings={"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
)  # fmt: skip


@dataclass(frozen=True)
class Names:
    """The fields and tensors of one architecture.

    Attributes:
        fields: of its config.json, and `ours`, what they are called in BERT's.
        inside: of a layer, our modules and theirs.
    """

    classes: str
    prefix: str
    fields: Fields
    ours: Mapping[str, str]
    layers: str
    qkv: tuple[str, str, str]
    inside: Mapping[str, str]


_LIKE_BERT = {
    "layers": "encoder.layer",
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "inside": {
        "attention.out": "attention.output.dense", "norm_1": "attention.output.LayerNorm",
        "feed_forward.widen": "intermediate.dense", "feed_forward.narrow": "output.dense", "norm_2": "output.LayerNorm",
    },
}  # fmt: skip
ENCODERS = {
    "bert": Names("Bert", "bert.", _BERT, {}, **_LIKE_BERT),  # type: ignore[arg-type]
    "roberta": Names("Roberta", "roberta.", _ROBERTA, {}, **_LIKE_BERT),  # type: ignore[arg-type]
    "distilbert": Names(
        "DistilBert",
        "distilbert.",
        _DISTILBERT,
        {
            "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
            "hidden_dim": "intermediate_size", "activation": "hidden_act", "dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        "transformer.layer",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        {
            "attention.out": "attention.out_lin", "norm_1": "sa_layer_norm", "feed_forward.widen": "ffn.lin1",
            "feed_forward.narrow": "ffn.lin2", "norm_2": "output_layer_norm",
        },
    ),
}  # fmt: skip


def read_encoder(folder: Path, origin: str, data: Mapping[str, Any]) -> Pretrained:
    """An encoder out of a Hugging Face folder; a head that was trained on it is left out, and named.

    Args:
        origin: the model_type, one of `ENCODERS`.
        data: the config.json.

    Raises:
        ArtifactError: when config.json asks for what this model cannot be or names another class, or the weights do
            not fit it, listing the tensors.
        DataError: when there is no tokenizer with the marks that a text stands between.
    """
    names, where = ENCODERS[origin], folder / "config.json"
    _check_class(data, names, where)
    values = take_fields(data, names.fields, where)
    values = {names.ours.get(name, name): value for name, value in values.items()}
    entries = canonical(list_tensors(folder), names.prefix, folder, HEADS)
    heads = sorted(name for name in entries if HEADS.fullmatch(name))
    body = {name: entry for name, entry in entries.items() if name not in heads}
    config = encoder_config(values, origin, f"{names.prefix}pooler.dense.weight" in body, where)
    if config.trunk.n_layers > len(body):
        raise ArtifactError(f"{where} says {config.trunk.n_layers} layers, and there are {len(body)} tensors")
    parts = list(encoder_parts(config, origin, values.get("type_vocab_size", 0)))
    check_tensors(parts, {name: entry.shape for name, entry in body.items()}, BUFFERS, folder)
    tensors = read_tensors({name: body[name] for part in parts for name in part.theirs})
    weights = _folded(gather(parts, tensors.pop), origin)
    tokenizer, notes = tokenizer_of(folder, config.vocab_size, _words(folder) if origin != "roberta" else None)
    if tokenizer is not None and not {"cls", "end"} <= tokenizer.marks.keys():
        raise DataError(f"{folder}: the tokenizer lacks the marks around a text; put its tokenizer.json there")
    notes += [f"a head that was trained on it was left out: {listing(heads)}"] * bool(heads)
    return Pretrained(config, weights, tokenizer, origin, tuple(notes), read_marks(folder, data))


def _check_class(data: Mapping[str, Any], names: Names, where: object) -> None:
    """A RoBERTa has BERT's tensors by name and shape; only the class tells that its positions mean something else."""
    classes = data.get("architectures") or []
    if not isinstance(classes, list) or not all(str(one).startswith(names.classes) for one in classes):
        raise ArtifactError(
            f"{where}: model_type={data.get('model_type')!r} and architectures={str(classes)[:80]} are two "
            "architectures; their tensors may have the same names and mean other things: correct the wrong one"
        )


def encoder_config(values: Mapping[str, Any], origin: str, pooler: bool, where: object) -> EncoderConfig:
    """Our settings from an architecture's fields, which have BERT's names.

    Raises:
        ArtifactError: for an activation that is not built in, dropouts that differ, or sizes that do not fit.
    """
    if values["hidden_act"] not in ACTIVATIONS:
        raise ArtifactError(f"{where}: the activation {values['hidden_act']!r} is not one of {', '.join(ACTIVATIONS)}")
    if values["hidden_dropout_prob"] != values["attention_probs_dropout_prob"]:
        both = f"{values['hidden_dropout_prob']} and {values['attention_probs_dropout_prob']}"
        raise ArtifactError(f"{where}: dropouts {both} differ; here is one, which acts in training only: set one")
    positions, first = values["max_position_embeddings"], _ROBERTA_FIRST if origin == "roberta" else 0
    trunk = {
        "n_layers": values["num_hidden_layers"],
        "n_heads": values["num_attention_heads"],
        "d_model": values["hidden_size"],
        "d_ff": values["intermediate_size"],
        "activation": ACTIVATIONS[values["hidden_act"]],
        "dropout": values["hidden_dropout_prob"],
        "norm_epsilon": values.get("layer_norm_eps", 1e-12),
        "causal": False,
        "norm_position": "post",
        "embedding_norm": True,
    }
    sizes = {"vocab_size": values["vocab_size"], "context_length": positions - first if type(positions) is int else 0}
    try:
        return parse(EncoderConfig, {**sizes, "pooler": pooler, "trunk": {**trunk, **sizes}})
    except ConfigError as error:
        raise ArtifactError(f"{where} describes no model that can be built: {error}") from None


def encoder_parts(config: EncoderConfig, origin: str, n_types: int) -> Iterator[Part]:
    """The tensors; `n_types` token types have a vector each."""
    names, body = ENCODERS[origin], config.body
    d, first, start = body.d_model, _ROBERTA_FIRST if origin == "roberta" else 0, names.prefix
    yield single("trunk.embedding.weight", f"{start}embeddings.word_embeddings.weight", body.vocab_size, d)
    rows = body.context_length + first
    yield single("trunk.position.embedding.weight", f"{start}embeddings.position_embeddings.weight", rows, d)
    if n_types:
        yield single(TYPES, f"{start}embeddings.token_type_embeddings.weight", n_types, d)
    yield from norm("trunk.embedding_norm", f"{start}embeddings.LayerNorm", d, True)
    sizes = {
        "attention.out": (d, d),
        "feed_forward.widen": (d, body.ff_width),
        "feed_forward.narrow": (body.ff_width, d),
    }
    for layer in range(body.n_layers):
        ours, theirs = f"trunk.blocks.{layer}", f"{start}{names.layers}.{layer}"
        yield from linear(f"{ours}.attention.qkv", [f"{theirs}.{name}" for name in names.qkv], d, [d, d, d], True)
        for module, name in names.inside.items():
            if module in sizes:
                yield from linear(f"{ours}.{module}", [f"{theirs}.{name}"], sizes[module][0], [sizes[module][1]], True)
            else:
                yield from norm(f"{ours}.{module}", f"{theirs}.{name}", d, True)
    if config.pooler:
        yield from linear("head", [f"{start}pooler.dense"], d, [d], True)


def _folded(weights: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Positions without the rows that RoBERTa does not use, and with the vector of token type 0."""
    name = "trunk.position.embedding.weight"
    if origin == "roberta":
        weights[name] = weights[name][_ROBERTA_FIRST:].contiguous()
    if TYPES in weights:
        weights[name] = weights[name] + weights.pop(TYPES)[0]
    return weights


def _words(folder: Path) -> Callable[[], Tokenizer] | None:
    """How to make BERT's tokenizer of a folder that has nothing but the list of its words."""
    path = folder / "vocab.txt"
    return (lambda: wordpiece(path)) if path.exists() and not (folder / "tokenizer.json").exists() else None


def wordpiece(path: Path) -> Tokenizer:
    """BERT's WordPiece tokenizer out of its vocab.txt, one token a line (Devlin et al. 2018, section 3).

    Text is lower-cased unless `do_lower_case` in the tokenizer_config.json beside it is false.

    Raises:
        DataError: when the list cannot be read, or is no such vocabulary.
    """
    try:
        tokens = read_given(path, 1 << 26).removesuffix("\n").split("\n")
        beside = path.parent / "tokenizer_config.json"
        told = json.loads(read_given(beside, LARGEST)) if beside.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as BERT's list of tokens ({error})") from None
    lower = bool(told.get("do_lower_case", True)) if isinstance(told, dict) else True
    vocab = {token: number for number, token in enumerate(tokens)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    marks = [name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in vocab]
    normalizer = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": lower,
    }  # fmt: skip
    model = {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": vocab,
    }  # fmt: skip
    data = {
        "version": "1.0",
        "added_tokens": [{"id": vocab[name], "content": name, **flags} for name in marks],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model,
    }
    return Tokenizer.from_json(json.dumps(data))

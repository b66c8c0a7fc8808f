"""Hundreds of damaged model folders: each is imported or refused by our own error, soon and in little memory."""

import copy
import json
import random
import resource
import struct
import sys
from pathlib import Path

import pytest
import safetensors.torch
from foreign_models import TOKENIZER, change_config, make, save
from transformers import AutoModelForCausalLM

from windtunnel.errors import ArtifactError, DataError
from windtunnel.models.pretrained.huggingface import read_huggingface, to_model
from windtunnel.models.pretrained.proof import compare_with_transformers
from windtunnel.text.tokenizers import Tokenizer, train_bpe

BYTES = TOKENIZER.to_json()
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ODD = [
    None, True, False, 0, 1, -1, 7, 10**6, 3 * 10**12, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308, float("inf"),
    float("nan"), "", "7", "x", "\ud800", "a\nb", [], [1], [[]], {}, {"a": 1},
    {"rope_type": "linear", "factor": 10**400},
]  # fmt: skip
MEMORY = 3 << 30  # bytes that a mutation may take beside what the process has


@pytest.fixture
def little_memory():
    """What asks for more address space than the process has and some GiB fails with a MemoryError."""
    if sys.platform != "linux":
        pytest.skip("the limit is measured in /proc")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def places(data, path=()):
    """Every place in a JSON value, but of long lists and tables the first few."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items)[:40]:
        yield from places(value, (*path, key))


def mutated(data, draw):
    """One or two places changed, left out, or given a neighbour."""
    data = json.loads(json.dumps(data))
    for _ in range(draw.choice((1, 1, 2))):
        path = draw.choice([path for path in places(data) if path] or [()])
        if not path:
            return data
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        what = draw.random()
        if what < 0.1:
            del inner[path[-1]]
        elif what < 0.2 and isinstance(inner, list):
            inner.append(inner[path[-1]])
        elif what < 0.3 and isinstance(inner, dict):
            inner[str(draw.choice(ODD))] = inner[path[-1]]
        else:
            inner[path[-1]] = copy.deepcopy(draw.choice(ODD))
    return data


def outcome(action):
    """The error's sentence, or None; anything else than our own errors is a failure of the test."""
    try:
        action()
        return None
    except (ArtifactError, DataError) as error:
        says = str(error)
    assert "\n" not in says
    assert len(says) < 4000
    return says


def import_and_compare(folder):
    """As `windtunnel import` does it."""
    found = read_huggingface(folder)
    compare_with_transformers(to_model(found.config, found.weights), folder, found.tokenizer, lengths=[2], n_tokens=1)


@pytest.mark.parametrize("name", ["gpt2", "llama 3 scaling", "mistral with a window"])
def test_any_config_is_honoured_or_refused(name, tmp_path, little_memory):
    folder = save(make(name), tmp_path)
    data, draw = json.loads((folder / "config.json").read_text()), random.Random(name)
    told = []
    for _ in range(80):
        (folder / "config.json").write_text(json.dumps(mutated(data, draw)))
        told.append(outcome(lambda: import_and_compare(folder)))
    assert 5 < told.count(None) < 75


@pytest.mark.parametrize("kind", ["bytes", "bpe", "Unigram", "WordPiece"])
def test_any_tokenizer_is_read_or_refused(kind, little_memory):
    text = (
        Tokenizer.from_json(BYTES) if kind == "bytes" else train_bpe(["the cat sat on the mat " * 9], 300)
    ).to_json()
    data, draw = json.loads(text), random.Random(kind)
    if kind == "Unigram":
        data["model"] = {"type": kind, "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]}
    if kind == "WordPiece":
        vocab = {"[UNK]": 0, "a": 1, "##b": 2}
        data["model"] = {"type": kind, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab}
        data["model"]["max_input_chars_per_word"] = 100
    if kind in ("Unigram", "WordPiece"):
        data |= {"added_tokens": [], "pre_tokenizer": None, "decoder": None}
    told = []
    for _ in range(250):
        changed = json.dumps(mutated(data, draw))
        told.append(outcome(lambda text=changed: Tokenizer.from_json(text).encode("ab")))
    assert 5 < told.count(None) < 245


def weights_file(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def test_any_weights_file_is_read_or_refused(tmp_path, little_memory):
    folder = save(make("gpt2"), tmp_path)
    content, draw = (folder / WEIGHTS).read_bytes(), random.Random(0)
    n = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + n]), content[8 + n :]
    told = []
    for _ in range(250):
        (folder / WEIGHTS).write_bytes(weights_file(mutated(header, draw)) + body)
        told.append(outcome(lambda: import_and_compare(folder)))
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 4))):
            damaged[draw.randrange(n + 8)] = draw.randrange(256)
        (folder / WEIGHTS).write_bytes(damaged[: draw.choice((len(content), n // 2, 5))])
        told.append(outcome(lambda: import_and_compare(folder)))
    assert 2 < told.count(None) < 340


def test_any_index_is_read_or_refused(tmp_path, little_memory):
    folder = save(make("gpt2"), tmp_path, max_shard_size="100KB")
    data, draw = json.loads((folder / INDEX).read_text()), random.Random(0)
    told = []
    for _ in range(100):
        (folder / INDEX).write_text(json.dumps(mutated(data, draw)))
        told.append(outcome(lambda: import_and_compare(folder)))
    assert 2 < told.count(None) < 95
    for text in ("{}", "[]", "null", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ""}}'):
        (folder / INDEX).write_text(text)
        assert outcome(lambda: import_and_compare(folder))


def test_an_index_without_metadata_is_enough(tmp_path):
    folder = save(make("gpt2"), tmp_path, max_shard_size="100KB")
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    import_and_compare(folder)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": {"dtype": "F32", "shape": [10**4200], "data_offsets": [0, 10**4200]}}, "no readable safetensors header"),
        ({"a": {"dtype": "F32", "shape": [10**9] * 10**5, "data_offsets": [0, 0]}}, "no readable safetensors header"),
        ({"a\nb": {"dtype": "F32", "shape": [3], "data_offsets": [0, 0]}}, r"'a\nb' of type F32"),
    ],
)
def test_a_header_is_bounded_before_it_is_reckoned_with(tmp_path, header, words):
    folder = save(make("gpt2"), tmp_path)
    sys.set_int_max_str_digits(0)
    text = json.dumps(header).encode()
    sys.set_int_max_str_digits(4300)
    (folder / WEIGHTS).write_bytes(weights_file(text))
    assert words in outcome(lambda: read_huggingface(folder))


def test_a_config_for_terabytes_is_refused_before_memory_is_asked_for(tmp_path, little_memory):
    folder = save(make("llama"), tmp_path)
    for changes in ({"hidden_size": 3 * 10**6, "head_dim": 8}, {"vocab_size": 10**12}, {"intermediate_size": 10**12}):
        change_config(folder, **{"hidden_size": 48, "vocab_size": 300, "intermediate_size": 80, **changes})
        assert "of another shape" in outcome(lambda: import_and_compare(folder))
    change_config(folder, num_attention_heads=3 * 10**12 + 1, num_key_value_heads=7, head_dim=8)
    assert "possible are 1" in outcome(lambda: import_and_compare(folder))
    change_config(folder, num_attention_heads=10**400)
    assert "larger than any model's" in outcome(lambda: import_and_compare(folder))


def test_nothing_of_the_folder_but_weights_and_known_fields_reaches_transformers(tmp_path, monkeypatch):
    folder = save(make("gpt2"), tmp_path)
    change_config(folder, _attn_implementation="kernels-community/flash-attn", _commit_hash="x", eos_token_id="seven")
    (folder / "modeling_gpt2.py").write_text("raise SystemExit")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else"}))
    (folder / "generation_config.json").write_text("[")
    load, seen = AutoModelForCausalLM.from_pretrained, []

    def watched(plain, **how):
        files = sorted(path.name for path in Path(plain).iterdir())
        seen.append((files, json.loads((Path(plain) / "config.json").read_text()), how["trust_remote_code"]))
        return load(plain, **how)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    import_and_compare(folder)
    [(files, fields, trusted)] = seen
    assert (files, trusted, fields["n_embd"]) == (["config.json", WEIGHTS], False, 48)
    assert not [name for name in fields if name.startswith("_")]
    assert {value for name, value in fields.items() if "token_id" in name} == {None}  # ours, not the file's


def test_what_transformers_refuses_is_said(tmp_path):
    folder = change_config(save(make("llama"), tmp_path), rms_norm_eps=1)
    assert "transformers cannot load the model in" in outcome(lambda: import_and_compare(folder))


def test_a_file_that_names_another_framework_is_compared_or_refused(tmp_path):
    folder = save(make("gpt2"), tmp_path)
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "stone"})
    outcome(lambda: import_and_compare(folder))


@pytest.mark.parametrize(
    "added",
    [
        [{"content": "x", "id": 10**9}, {"content": "x", "id": 257}],
        [{"content": "", "id": 257}],
        [{"content": "x", "id": 10**9}],
        [{"content": "x", "id": 257.0}],
        [{"content": "x", "id": "257"}],
        [{"content": "x", "id": -1}],
        [{"content": "x", "id": True}],
    ],
)
def test_the_ids_of_added_tokens_are_those_of_the_table(added):
    data = json.loads(BYTES)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    data["added_tokens"] += [{**flags, **token} for token in added]
    assert outcome(lambda: Tokenizer.from_json(json.dumps(data)))

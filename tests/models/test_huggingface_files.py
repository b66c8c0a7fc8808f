"""Reading a Hugging Face folder: spellings and layouts that mean the same, and everything that must be refused."""

import json
import re
import struct

import pytest
import safetensors.torch
import torch
from foreign_models import CONFIGS, TOKENIZER, change_config, make, save
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, MistralConfig

from windtunnel.errors import ArtifactError, DataError
from windtunnel.models.pretrained.fields import COMMON_NEEDS, METADATA
from windtunnel.models.pretrained.gpt2 import FIELDS as GPT2
from windtunnel.models.pretrained.huggingface import read_huggingface
from windtunnel.models.pretrained.llama import LLAMA, MISTRAL
from windtunnel.nn.positions import RopeScaling
from windtunnel.text.tokenizers import Tokenizer, bytes_tokenizer

WEIGHTS = "model.safetensors"


@pytest.fixture
def gpt2(tmp_path):
    return save(make("gpt2"), tmp_path)


@pytest.fixture
def llama(tmp_path):
    return save(make("llama"), tmp_path)


def tensors_of(folder):
    return safetensors.torch.load((folder / WEIGHTS).read_bytes())


def rewrite(folder, tensors):
    (folder / WEIGHTS).write_bytes(
        safetensors.torch.save({name: t.clone().contiguous() for name, t in tensors.items()})
    )


def refusal(folder, kind=ArtifactError):
    with pytest.raises(kind) as caught:
        read_huggingface(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(a, b):
    assert a.config == b.config
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


# ------------------------------------------------------------------------------------------------ what means the same


def test_shards_hold_the_same_model(gpt2, tmp_path):
    sharded = save(make("gpt2"), tmp_path / "sharded", max_shard_size="100KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 3
    assert_same(read_huggingface(sharded), read_huggingface(gpt2))


def test_a_file_of_the_bare_model_with_its_buffers_and_tied_head_holds_the_same_model(gpt2):
    """As the published GPT-2 is stored: no prefix, the mask with the weights."""
    expected, tensors = read_huggingface(gpt2), tensors_of(gpt2)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 32, 32).tril() for layer in range(3)}
    rewrite(gpt2, {**bare, **masks, "lm_head.weight": bare["wte.weight"].clone()})
    found = read_huggingface(gpt2)
    assert_same(found, expected)
    assert "buffers that can be computed were left out: transformer.h.*.attn.bias" in found.notes
    assert any("lm_head.weight is the token embedding a second time" in note for note in found.notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_into_float32(gpt2, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(gpt2).items()}
    rewrite(gpt2, tensors)
    found = read_huggingface(gpt2)
    assert all(tensor.dtype == torch.float32 for tensor in found.weights.values())
    assert torch.equal(found.weights["embedding.weight"], tensors["transformer.wte.weight"].float())
    assert any("were read into float32" in note for note in found.notes)


@pytest.fixture
def old(gpt2):
    """A folder with vocab.json and merges.txt."""
    (gpt2 / "tokenizer.json").unlink()
    data = json.loads(TOKENIZER.to_json())
    (gpt2 / "vocab.json").write_text(json.dumps(data["model"]["vocab"]))
    (gpt2 / "merges.txt").write_text("#version: 0.2\n")
    return gpt2


def test_gpt2s_own_tokenizer_files_are_read(old):
    found = read_huggingface(old)
    assert found.tokenizer.decode(found.tokenizer.encode("wörld")) == "wörld"
    assert found.notes == ("the embedding has 43 rows more than the tokenizer tokens",)


ADDED = {
    "added_tokens.json": {"<tool>": 257, "<|im_end|>": 258},
    "special_tokens_map.json": {"additional_special_tokens": ["<|im_end|>"]},
    "tokenizer_config.json": {
        "added_tokens_decoder": {
            "257": {"content": "<tool>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False,
                    "special": False},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("names", [(), ("added_tokens.json", "special_tokens_map.json"), ("tokenizer_config.json",)])
@pytest.mark.parametrize("told", [{}, {"add_prefix_space": True}, {"add_bos_token": True}])
def test_what_lies_beside_gpt2s_own_tokenizer_files_is_respected(old, names, told):
    files = {name: ADDED[name] for name in names}
    files["tokenizer_config.json"] = {**files.get("tokenizer_config.json", {}), **told}
    for name, held in files.items():
        (old / name).write_text(json.dumps(held))
    ours, theirs = Tokenizer.load(old), AutoTokenizer.from_pretrained(old)
    for text in ("a <tool> b", "wörld", " <tool>", "\n"):
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False)
    assert ("<|im_end|>" in ours.specials) == ("added_tokens.json" in names)


@pytest.mark.parametrize("given", ["258", [258], 258.0])
def test_an_added_token_whose_id_is_no_whole_number_is_named(old, given):
    (old / "added_tokens.json").write_text(json.dumps({"<tool>": 257, "<late>": given}))
    with pytest.raises(DataError, match=re.escape(f"the id of '<late>' is {given!r}, expected a whole number")):
        Tokenizer.load(old)


def test_a_begin_token_that_is_none_is_put_nowhere(old):
    (old / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": null}')
    assert Tokenizer.load(old).front == ()


def test_a_folder_without_a_tokenizer_says_so(gpt2):
    (gpt2 / "tokenizer.json").unlink()
    found = read_huggingface(gpt2)
    assert found.tokenizer is None
    assert "no tokenizer" in found.notes[0]


def test_both_spellings_of_rotary_settings_are_the_same(llama):
    scaling = {"factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    change_config(llama, rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, **scaling})
    new = read_huggingface(llama).config
    change_config(llama, rope_parameters=None, rope_theta=500.0, rope_scaling={"type": "llama3", **scaling})
    old = read_huggingface(llama).config
    assert old == new
    assert (new.rope_base, new.rope_scaling.original_context_length) == (500.0, 32)
    assert new.rope_scaling == RopeScaling(
        kind="llama3", factor=8.0, low_freq_factor=2.0, high_freq_factor=4.0, original_context_length=32
    )


def test_a_field_that_is_left_out_has_the_librarys_default(tmp_path):
    """transformers writes all fields; other programs leave the usual ones out."""
    folder = save(make("mistral with a window"), tmp_path)
    path = folder / "config.json"
    data = json.loads(path.read_text())
    del data["sliding_window"], data["rms_norm_eps"], data["tie_word_embeddings"], data["rope_parameters"]
    path.write_text(json.dumps(data))
    found = read_huggingface(folder).config
    assert (found.window, found.norm_epsilon, found.tie_embeddings, found.rope_base) == (4096, 1e-6, False, 10000.0)


@pytest.mark.parametrize(("kind", "fields"), [(GPT2Config, GPT2), (LlamaConfig, LLAMA), (MistralConfig, MISTRAL)])
def test_every_field_of_transformers_is_known_and_has_its_default(kind, fields):
    config = kind()
    stated = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    known = {*fields.mapped, *fields.needs, *COMMON_NEEDS, *fields.no_effect, *METADATA}
    assert stated.keys() - known == set()
    derived = {"head_dim", "rope_parameters", "num_key_value_heads"}  # left out, they follow from the others
    for name in stated.keys() & fields.mapped.keys() - derived:
        assert fields.mapped[name] == stated[name], name


# --------------------------------------------------------------------------------------------- fields that are refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True (attention scores are"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False (attention scores are always divided"),
        ({"add_cross_attention": True}, "add_cross_attention=True (there is no encoder"),
        ({"activation_function": "silu"}, "activation_function='silu' is not one of gelu_new"),
        ({"activation_function": ["relu"]}, "activation_function=['relu'] (expected one value)"),
        ({"attn_pdrop": 0.3}, "attn_pdrop=0.3, resid_pdrop=0.1 differ, and there is one dropout here"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are not read"),
        ({"auto_map": {"AutoModel": "m.M"}}, "no foreign code is run"),
        ({"rotary_pct": 0.25}, "rotary_pct=0.25 (unknown here"),
        ({"a": 1, "b": 2}, "a=1 (unknown here, so what it does to the logits is too); b=2"),
        ({"a": 1, "b": 2}, "; if a, b do nothing, remove them from the file"),
        ({"n_head": 5}, "d_model 48 is not divisible by n_heads 5"),
        ({"n_layer": "many"}, "n_layers: input should be a valid integer"),
        ({"n_layer": 0}, "n_layers: input should be greater than 0"),
        ({"n_layer": 10**9}, "config.json says 1000000000 layers, and there are 40 tensors"),
        ({"hidden_size": 64}, "hidden_size=64 contradicts n_embd=48"),
        ({"model_type": "bert"}, "model_type 'bert' is not one that can be read: gpt2, llama, mistral"),
    ],
)  # fmt: skip
def test_fields_of_gpt2_that_cannot_be_honoured_are_refused_by_name(gpt2, changes, message):
    assert message in refusal(change_config(gpt2, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type='yarn' is not built in"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic' is not"),
        ({"rope_parameters": {"rope_type": "linear"}}, "missing or unknown: factor"),
        ({"rope_parameters": {"rope_type": "default", "beta": 1}}, "missing or unknown: beta"),
        ({"rope_parameters": 7}, "rope_scaling=7 is not an object"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"attention_bias": True}, "8 missing: model.layers.0.self_attn.q_proj.bias"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout=0.1"),
        ({"sliding_window": 8}, "sliding_window=8 (transformers' Llama ignores it"),
        ({"head_dim": 7}, "d_head must be even, given 7"),
        ({"num_key_value_heads": 4}, "n_heads 6 is not divisible by n_kv_heads 4"),
        ({"rope_interleaved": True}, "rope_interleaved=True (the two halves of a head are turned together"),
        ({"per_layer_config": {"0": {"head_dim": 8}}}, "per_layer_config="),
    ],
)
def test_fields_of_llama_that_cannot_be_honoured_are_refused_by_name(llama, changes, message):
    assert message in refusal(change_config(llama, **changes))


def test_fields_that_do_nothing_are_accepted_by_name(gpt2, llama):
    plain = read_huggingface(llama)
    inert = {"is_llama_config": True, "rope_interleaved": False, "unsloth_version": "1", "transformers.js_config": {}}
    assert_same(read_huggingface(change_config(llama, **inert)), plain)
    plain = read_huggingface(gpt2)
    assert_same(read_huggingface(change_config(gpt2, n_ctx=16)), plain)  # transformers reads n_positions only


def test_a_tokenizer_with_a_hole_in_its_ids_is_read_where_the_rows_exist(gpt2):
    data = json.loads((gpt2 / "tokenizer.json").read_text())
    data["added_tokens"].append({**data["added_tokens"][0], "content": "<late>", "id": 270, "special": False})
    (gpt2 / "tokenizer.json").write_text(json.dumps(data))
    found = read_huggingface(gpt2).tokenizer
    assert (found.vocab_size, found.encode("<late>").tolist()) == (271, [270])
    found.save(gpt2 / "tokenizer.json")  # now transformers does not number the token anew
    assert found.encode("<late> a").tolist() == AutoTokenizer.from_pretrained(gpt2).encode("<late> a")
    assert (found.token(265), found.decode([270, 265, 98])) == ("<unused 265>", "<late>a")


def test_a_config_that_is_none_is_refused(gpt2):
    for text in ("[]", "{", "[" * 100_000, '{"model_type": {}}'):
        (gpt2 / "config.json").write_text(text)
        assert "config.json" in refusal(gpt2)
    (gpt2 / "config.json").unlink()
    assert "cannot be read (No such file or directory)" in refusal(gpt2)


# ------------------------------------------------------------------------------------------------ tensors and files


def test_a_mark_before_config_json_is_dropped_and_what_is_no_text_is_named(gpt2):
    plain, path = read_huggingface(gpt2), gpt2 / "config.json"
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert_same(read_huggingface(gpt2), plain)
    path.write_text(text, encoding="utf-16")
    assert "it is UTF-16 text, and UTF-8 is expected; convert it: iconv -f UTF-16" in refusal(gpt2)
    path.write_text(text, encoding="utf-16-le")
    assert "it is UTF-16LE text" in refusal(gpt2)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(gpt2, name):
    (gpt2 / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    said = refusal(gpt2, DataError if name == "tokenizer.json" else ArtifactError)
    assert name in said
    assert "it is a git-LFS pointer and not the file itself; fetch that: git lfs pull" in said


def test_tensors_that_do_not_fit_are_one_error_that_lists_them(gpt2):
    tensors = tensors_of(gpt2)
    del tensors["transformer.h.0.attn.c_attn.bias"], tensors["transformer.ln_f.weight"]
    tensors["transformer.h.1.attn.c_attn.weight"] = tensors["transformer.h.1.attn.c_attn.weight"].T
    tensors["transformer.adapter.weight"] = torch.zeros(3)
    rewrite(gpt2, tensors)
    message = refusal(gpt2)
    assert "2 missing: transformer.h.0.attn.c_attn.bias, transformer.ln_f.weight" in message
    assert "1 unexpected: transformer.adapter.weight" in message
    assert "transformer.h.1.attn.c_attn.weight (expected (48, 144), given (144, 48))" in message


def test_a_model_with_another_number_of_layers_is_refused(gpt2):
    assert "12 unexpected: transformer.h.2." in refusal(change_config(gpt2, n_layer=2))
    assert "12 missing: transformer.h.3." in refusal(change_config(gpt2, n_layer=4))


def test_a_tied_head_that_is_another_tensor_is_refused(gpt2):
    tensors = tensors_of(gpt2)
    rewrite(gpt2, {**tensors, "lm_head.weight": tensors["transformer.wte.weight"] + 1})
    assert "ties the head to the token embedding, and lm_head.weight is another tensor" in refusal(gpt2)
    untied = read_huggingface(change_config(gpt2, tie_word_embeddings=False))
    assert torch.equal(untied.weights["head.weight"], tensors["transformer.wte.weight"] + 1)


def test_a_tensor_with_and_without_its_prefix_is_refused(gpt2):
    tensors = tensors_of(gpt2)
    rewrite(gpt2, {**tensors, "wte.weight": tensors["transformer.wte.weight"]})
    assert "has the tensor transformer.wte.weight twice" in refusal(gpt2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_nan_or_an_infinity_is_named_with_its_tensor(gpt2, value):
    tensors = tensors_of(gpt2)
    tensors["transformer.h.2.mlp.c_fc.weight"][7, 9] = value
    rewrite(gpt2, tensors)
    assert "NaN or infinity in the weights transformer.h.2.mlp.c_fc.weight;" in refusal(gpt2)


def test_integers_are_no_weights(gpt2):
    tensors = tensors_of(gpt2)
    tensors["transformer.ln_f.weight"] = tensors["transformer.ln_f.weight"].to(torch.int8)
    rewrite(gpt2, tensors)
    assert "transformer.ln_f.weight (I8)" in refusal(gpt2)


def test_pickled_weights_are_refused_with_the_cure(gpt2):
    (gpt2 / WEIGHTS).rename(gpt2 / "pytorch_model.bin")
    message = refusal(gpt2)
    assert "only pickled weights (pytorch_model.bin)" in message
    assert "save_pretrained(NEW)" in message
    (gpt2 / "pytorch_model.bin").unlink()
    assert "has no weights; expected model.safetensors" in refusal(gpt2)


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"\xff" * 1000, "its header alone would take 18,446,744,073,709,551,615"),
        (header({"w": {"dtype": "F32", "shape": [50257, 50257], "data_offsets": [0, 10103064196]}}, b"\0" * 900),
         "its header declares 10,103,064,2"),
        (header({"w": {"dtype": "F32", "shape": [50257, 50257], "data_offsets": [0, 900]}}, b"\0" * 900),
         "w of type F32 and shape (50257, 50257) needs 10,103,064,196 bytes, its header gives it 900"),
        (header({"w": {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]}}, b"\0" * 16), "is damaged"),
        (header({"w": {"shape": "x"}}), "is damaged"),
        (header([1, 2]), "is damaged"),
        (struct.pack("<Q", 3) + b"{{{", "is damaged"),
    ],
)  # fmt: skip
def test_a_file_that_lies_about_its_size_is_refused_before_anything_is_read(gpt2, content, message):
    (gpt2 / WEIGHTS).write_bytes(content)
    assert message in refusal(gpt2)


def test_half_a_download_is_named(gpt2, tmp_path):
    whole = (gpt2 / WEIGHTS).read_bytes()
    (gpt2 / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert f"has {len(whole) // 2:,} bytes, its header declares {len(whole):,}; download it again" in refusal(gpt2)
    sharded = save(make("gpt2"), tmp_path / "sharded", max_shard_size="100KB")
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert f"{shard.name} is incomplete or damaged" in refusal(sharded)
    shard.unlink()
    assert f"lacks 1 of {len(list(sharded.glob('model-*'))) + 1} shards: {shard.name}" in refusal(sharded)


def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path):
    folder = save(make("gpt2"), tmp_path, max_shard_size="100KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    place = index["weight_map"].pop("transformer.wpe.weight")
    path.write_text(json.dumps(index))
    assert f"{place} and model.safetensors.index.json differ in transformer.wpe.weight" in refusal(folder)
    index["weight_map"]["transformer.wpe.weight"] = "../" + place
    path.write_text(json.dumps(index))
    assert "lists files outside its folder" in refusal(folder)
    path.write_text('{"weight_map": [1]}')
    assert "is damaged" in refusal(folder)


# -------------------------------------------------------------------------------------------------------- tokenizers


def test_a_vocabulary_larger_than_the_embedding_is_refused(gpt2):
    tensors = tensors_of(gpt2)
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:200]
    rewrite(gpt2, tensors)
    assert "has 257 tokens, the model's embedding 200 rows" in refusal(change_config(gpt2, vocab_size=200), DataError)


def test_a_tokenizer_that_makes_the_library_panic_is_one_sentence(gpt2):
    data = json.loads(bytes_tokenizer(end=True).to_json())
    data["model"]["merges"] = [["a" * 40, "b"]]
    (gpt2 / "tokenizer.json").write_text(json.dumps(data))
    assert "merge 0 needs the token" in refusal(gpt2, DataError)
    data["model"]["merges"] = []
    for strategy, multiple in (({"Fixed": 0}, None), ("BatchLongest", 0)):
        data["padding"] = {
            "strategy": strategy, "direction": "Right", "pad_to_multiple_of": multiple, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "a",
        }  # fmt: skip
        (gpt2 / "tokenizer.json").write_text(json.dumps(data))
        tokenizer = read_huggingface(gpt2).tokenizer
        assert tokenizer.encode("abc").tolist() == Tokenizer.from_json(TOKENIZER.to_json()).encode("abc").tolist()


def test_every_saved_variant_is_read_without_a_complaint(tmp_path):
    for name in CONFIGS:
        found = read_huggingface(save(make(name), tmp_path / name))
        assert found.origin == name.split()[0]
        assert found.notes[-1] == "the embedding has 43 rows more than the tokenizer tokens"


def test_pythias_head_has_another_name(tmp_path):
    folder = save(make("gpt_neox"), tmp_path)
    expected = read_huggingface(folder).weights["head.weight"]
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (stored,) = weights.keys() & {"lm_head.weight", "embed_out.weight"}
    other = ({"lm_head.weight", "embed_out.weight"} - {stored}).pop()
    weights[other] = weights.pop(stored)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(read_huggingface(folder).weights["head.weight"], expected)

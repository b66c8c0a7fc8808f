"""GGUF files read: bit for bit what the gguf package makes of them, and no harm from a damaged one."""

import random
import struct
import time
import tracemalloc

import numpy as np
import pytest
import torch
from test_export import LLAMA, model_of

from patience import PATIENCE
from windtunnel.errors import ArtifactError, DataError, WindtunnelError
from windtunnel.models.pretrained.gguf import gguf_files
from windtunnel.models.pretrained.gguf_blocks import PACKINGS, dequantise
from windtunnel.models.pretrained.gguf_model import read_gguf_model
from windtunnel.models.pretrained.gguf_reader import read_gguf
from windtunnel.models.pretrained.gguf_tokenizer import WORDS, gguf_marks, gguf_tokenizer
from windtunnel.models.pretrained.huggingface import to_model
from windtunnel.models.pretrained.marks import Marks
from windtunnel.models.pretrained.proof import compare_with_transformers
from windtunnel.nn.positions import RopeScaling
from windtunnel.text.tokenizers import bytes_tokenizer, train_bpe

gguf = pytest.importorskip("gguf")

BPE = train_bpe(["the wind tunnel hums in 1903 and the wind hums too " * 4], 280)
TEXTS = ["the wind\n\n  hums", "in 1903, 12345 hums!", "naïve 東京 \x00 <|endoftext|>", " "]
LLAMA3 = RopeScaling(kind="llama3", factor=8.0, original_context_length=8192)
VARIANTS = {
    "gpt2": {},
    "gpt2 untied": {"tie_embeddings": False},
    "llama": {**LLAMA, "n_kv_heads": 2, "rope_base": 700.0},
    "llama, wide heads, biases": {**LLAMA, "d_head": 16, "bias": True, "tie_embeddings": False},
    "llama, linear": {**LLAMA, "rope_scaling": RopeScaling(kind="linear", factor=4.0)},
    "llama 3": {**LLAMA, "d_head": 64, "rope_base": 500000.0, "rope_scaling": LLAMA3},
}


def written(tmp_path, tokenizer=BPE, **settings):
    model = model_of(**settings)
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_files(model.config, model.state_dict(), tokenizer).files["model.gguf"])
    return model, path


@pytest.mark.parametrize("number", PACKINGS)
def test_blocks_are_what_the_gguf_package_makes_of_them(number):
    name, packing = PACKINGS[number]
    kind = gguf.GGMLQuantizationType[name]
    assert kind == number
    assert gguf.GGML_QUANT_SIZES[kind] == (packing.numbers, packing.n_bytes)
    data = np.random.default_rng(0).integers(0, 256, (5000, packing.n_bytes), np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data, kind).reshape(-1)
    found = dequantise(packing, data.reshape(-1))
    nan = np.isnan(expected)
    assert np.array_equal(nan, np.isnan(found))
    assert np.array_equal(found.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


@pytest.mark.parametrize("name", VARIANTS)
def test_what_we_write_is_read_back(tmp_path, name):
    model, path = written(tmp_path, **VARIANTS[name])
    found = read_gguf_model(path)
    assert found.config.replace(dropout=0.1) == model.config.replace(
        dropout=0.1, n_kv_heads=model.config.kv_heads, d_ff=model.config.ff_width
    )
    assert found.weights.keys() == model.state_dict().keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in model.state_dict().items())
    for text in TEXTS:
        assert found.tokenizer.encode(text).tolist() == BPE.encode(text).tolist()
    assert found.tokenizer.end_id == BPE.end_id


@pytest.mark.parametrize("name", ["llama", "llama, linear", "llama 3"])
def test_transformers_gives_the_same_logits_for_the_same_file(tmp_path, name):
    pytest.importorskip("accelerate")
    _, path = written(tmp_path, **VARIANTS[name])
    found = read_gguf_model(path)
    proof = compare_with_transformers(to_model(found.config, found.weights), path, found.tokenizer)
    if name != "llama":  # transformers leaves the scaling of the positions out, which llama.cpp reads
        assert not proof.holds
    else:
        assert max(proof.max_difference.values()) < 1e-5
        assert proof.holds


def quantised(tmp_path, kind, change=lambda writer: None, pre="gpt-2", head="F32"):
    """A llama of one layer whose matrices are stored as `kind`."""
    path, generator = tmp_path / "small.gguf", np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "context_length": 64,
        "block_count": 1,
        "embedding_length": 256,
        "feed_forward_length": 256,
    }.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    tokens = ["<|endoftext|>", "<|end|>", *gguf_bytes(), "<more>"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 256, 5])
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages }}")
    change(writer)
    stored = {}
    shapes = {"token_embd": (259, 256), "output": (259, 256), "output_norm": (256,)}
    shapes |= {f"blk.0.{name}_norm": (256,) for name in ("attn", "ffn")}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (256, 256) for name in matrices}
    for name, shape in shapes.items():
        numbers = generator.standard_normal(shape).astype(np.float32)
        used = gguf.GGMLQuantizationType[head if name == "output" else kind if len(shape) > 1 else "F32"]
        try:
            data = gguf.quants.quantize(numbers, used)
        except NotImplementedError:  # K types can be read by the package only
            _, n_bytes = gguf.GGML_QUANT_SIZES[used]
            data = generator.integers(0, 60, (shape[0], n_bytes), np.uint8)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=used)
        stored[f"{name}.weight"] = gguf.quants.dequantize(data, used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, stored


def gguf_bytes():
    from windtunnel.text.tokenizer_json import byte_characters

    return byte_characters()


@pytest.mark.parametrize("kind", [name for name, _ in PACKINGS.values()])
def test_a_file_of_any_type_is_read_whole(tmp_path, kind):
    path, stored = quantised(tmp_path, kind)
    file = read_gguf(path)
    for name, expected in stored.items():
        assert np.array_equal(file.read(name).numpy(), expected), name
    found = read_gguf_model(path)
    values = torch.from_numpy(stored["blk.0.attn_v.weight"])
    assert torch.equal(found.weights["blocks.0.attention.qkv.weight"][512:], values)
    assert (found.config.tie_embeddings, found.tokenizer.vocab_size, found.config.vocab_size) == (False, 258, 259)
    assert found.marks.chat == {"bos_token": "<|endoftext|>", "eos_token": "<|end|>", "chat_template": "{{ messages }}"}
    assert any(kind in note for note in found.notes) == (kind != "F32")


def test_a_head_that_is_the_embedding_again_is_tied(tmp_path):
    path, _ = quantised(tmp_path, "F32")
    file = read_gguf(path)
    data = bytearray(path.read_bytes())
    first, second = file.tensors["token_embd.weight"], file.tensors["output.weight"]
    data[second.start : second.start + second.n_bytes] = data[first.start : first.start + first.n_bytes]
    path.write_bytes(data)
    assert read_gguf_model(path).config.tie_embeddings


def test_digits_stand_alone_in_smollms_words(tmp_path):
    path, _ = quantised(tmp_path, "F32", pre="smollm")
    settings = dict(read_gguf(path).settings)
    settings["tokenizer.ggml.tokens"] = [*settings["tokenizer.ggml.tokens"][:-1], "12", "ab"]
    settings["tokenizer.ggml.merges"] = ["1 2", "a b"]
    settings["tokenizer.ggml.token_type"] = [3, 3, *[1] * 258]
    split = gguf_tokenizer(settings, path)
    joined = gguf_tokenizer({**settings, "tokenizer.ggml.pre": "gpt-2"}, path)
    assert [split.token(i) for i in split.encode("ab12")] == ["ab", "1", "2"]
    assert [joined.token(i) for i in joined.encode("ab12")] == ["ab", "12"]
    for name in WORDS:
        tokenizer = gguf_tokenizer({**settings, "tokenizer.ggml.pre": name}, path)
        assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in TEXTS)
    assert gguf_marks({"tokenizer.ggml.bos_token_id": 7}) == Marks()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda w: w.add_uint32("llama.expert_count", 8), r"cannot be honoured; unknown here: expert_count=8"),
        (lambda w: w.add_uint32("llama.rope.dimension_count", 32), r"the widths .*; here they are one"),
        (lambda w: w.add_string("llama.rope.scaling.type", "yarn"), r"rope.scaling.type='yarn' is not built in"),
        (lambda w: w.add_uint32("general.alignment", 24), r"general.alignment is 24, and no power of two"),
        (lambda w: w.add_array("x", [[1], [2]]), r"a list among the settings is of the unknown type 9"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, change, refusal):
    path, _ = quantised(tmp_path, "F32", change)
    with pytest.raises(ArtifactError, match=refusal):
        read_gguf_model(path)


def test_an_unknown_pre_tokenizer_or_type_is_refused(tmp_path):
    path, _ = quantised(tmp_path, "F32", pre="falcon")
    with pytest.raises(ArtifactError, match=r"pre-tokenizer is 'falcon'.*known are gpt-2, smollm.*Hugging Face folder"):
        read_gguf_model(path)
    path, _ = quantised(tmp_path, "F32")
    settings = read_gguf(path).settings
    with pytest.raises(
        ArtifactError, match=r"of the kind 't5'; a byte-level BPE \(gpt2\) and SentencePiece's \(llama\)"
    ):
        gguf_tokenizer({**settings, "tokenizer.ggml.model": "t5"}, path)
    with pytest.raises(ArtifactError, match="258 tokens and 0 scores, by which they are put together"):
        gguf_tokenizer({**settings, "tokenizer.ggml.model": "llama"}, path)
    with pytest.raises(DataError, match="merge 0 needs the token"):
        gguf_tokenizer({**settings, "tokenizer.ggml.merges": ["! ?"]}, path)
    path.write_bytes(
        path.read_bytes().replace(
            b"output.weight" + struct.pack("<IQQI", 2, 256, 259, 0),
            b"output.weight" + struct.pack("<IQQI", 2, 256, 259, 10),
        )
    )
    with pytest.raises(ArtifactError, match=r"output\.weight is stored as type 10 of ggml, which is not read"):
        read_gguf(path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ArtifactError, match=r"model\.gguf: it is a git-LFS pointer.*git lfs pull"):
        read_gguf(path)


def test_a_missing_tensor_and_nan_are_told(tmp_path):
    path, _ = quantised(tmp_path, "F32")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.0.ffn_up.weight", b"blk.0.ffn_uq.weight"))
    with pytest.raises(ArtifactError, match=r"1 missing: blk\.0\.ffn_up\.weight; 1 unexpected: blk\.0\.ffn_uq\.weight"):
        read_gguf_model(path)
    path.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
    with pytest.raises(ArtifactError, match=r"NaN or infinity in the weights blk\.0"):
        read_gguf_model(path)
    for length in (0, 3, 20, 3000, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=r"damaged or incomplete|no GGUF file"):
            read_gguf_model(path)


def test_hundreds_of_mutated_files_are_refused_or_read_quickly_and_in_little_memory(tmp_path):
    """Bytes, lengths and counts of the header at random; the gguf package needed 83 s and 7.6 GB for one such file."""
    _, path = written(tmp_path, bytes_tokenizer(end=True), **LLAMA, n_layers=1)
    data = path.read_bytes()
    header = min(stored.start for stored in read_gguf(path).tensors.values())
    draw, refused = random.Random(0), 0
    huge = [2**64 - 1, 2**63, 2**40, 2**32 - 1, 2**31, 10**6, 255, 0]
    tracemalloc.start()
    begin = time.monotonic()
    for number in range(600):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(4, header - 8)
            size = draw.choice([1, 4, 8])
            value = draw.choice(huge) if number % 2 else draw.getrandbits(64)
            changed[place : place + size] = struct.pack("<Q", value)[:size]
        path.write_bytes(changed[: draw.choice([len(data), len(data), draw.randrange(len(data))])])
        try:
            read_gguf_model(path)
        except WindtunnelError:
            refused += 1
    assert refused > 300
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    assert time.monotonic() - begin < PATIENCE  # a hang, not a speed
    tracemalloc.stop()

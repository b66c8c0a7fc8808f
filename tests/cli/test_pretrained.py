"""`windtunnel import`, `export`, `alter` and `train --from`: there and back, and a user's mistakes in one sentence."""

import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from patience import PATIENCE
from windtunnel.config import override
from windtunnel.models.pretrained.catalogue import MODELS, Listed
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load, open_run

WEIGHTS = "model.safetensors"
SETTINGS = [
    "model.n_layers=2", "model.d_model=16", "model.n_heads=4", "model.context_length=16", "train.threads=1",
    "model.bias=true", "model.activation=gelu_tanh", "text.tokenizer=bytes", "train.steps=30", "train.sample_tokens=0",
    "train.compile=false",
]  # fmt: skip


@pytest.fixture
def document(windtunnel):
    """Run a command that succeeds; gives the JSON that it prints."""

    def run(*words):
        code, out, err = windtunnel(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="session")
def trained(names, tmp_path_factory):
    """A finished run of a model that GPT-2 has the settings of."""
    folder = tmp_path_factory.mktemp("runs") / "trained" / "seed-0"
    folder.parent.mkdir()
    assert list(fit(override(recipe("tiny", str(names)), ["text.unit=line", *SETTINGS]), folder))
    return folder


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    from windtunnel.training.exports import export_run

    folder = tmp_path_factory.mktemp("exported") / "hf"
    assert export_run(trained, folder, "hf") == ()
    return folder


@pytest.fixture
def hf(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    return shutil.copytree(exported, tmp_path / "hf")


# --------------------------------------------------------------------------------------------------- there and back


def test_there_and_back_is_the_same_model(windtunnel, trained, names, tmp_path, document):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    code, out, err = windtunnel("export", trained, "hf")
    assert (code, out, err) == (0, "written: hf\n", "")
    found = document("import", "hf", "--corpus", names, "--unit", "line")
    assert (found["run"], found["origin"], found["tokenizer"]["kind"]) == ("runs/import-hf/seed-0", "gpt2", "bytes")
    assert found["n_parameters"] == sum(p.numel() for p in load(trained).model.parameters())
    assert found["proof"]["holds"]
    assert max(found["proof"]["max_difference"].values()) < 1e-5
    again = document("evaluate", "import-hf")["seeds"][0][1]
    before = document("evaluate", trained)["seeds"][0][1]
    assert (again["scores"]["loss"], again["n_tokens"], again["whole"]) == (
        before["scores"]["loss"],
        before["n_tokens"],
        True,
    )

    ours, theirs = load(trained), AutoModelForCausalLM.from_pretrained("hf").eval()
    ids = torch.randint(257, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours.model(ids), theirs(ids).logits, atol=1e-5)
    assert AutoTokenizer.from_pretrained("hf")("anna").input_ids == ours.tokenizer.encode("anna").tolist()

    assert windtunnel("export", "import-hf", "again")[0] == 0
    for name in ("config.json", WEIGHTS, "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes(), name


def test_the_run_tells_where_its_weights_are_from(windtunnel, exported, document):
    code, out, err = windtunnel("import", exported, "--out", "mine")
    assert code == 0
    assert "gpt2: " in out
    assert "the same model\n" in out
    assert "greedy continuation of 15 tokens: the same" in out
    shown = document("runs", "mine")
    assert (shown["state"], shown["step"], shown["steps"]) == ("imported", 0, 0)
    assert shown["record"]["proof"]["holds"]
    assert sorted(shown["record"]["source"]["sha256"]) == ["config.json", WEIGHTS, "tokenizer.json"]
    code, out, err = windtunnel("import", exported, "--out", "mine")
    assert (code, out) == (2, "")
    assert "mine/seed-0 is not empty; nothing is written over it" in err


def test_every_command_works_on_it(windtunnel, exported, trained, document):
    assert windtunnel("import", exported)[0] == 0
    for words in (["generate", "import-hf", "an", "--tokens", 4], ["cost", "import-hf"], ["resume", "import-hf"],
                  ["runs"], ["export", "import-hf", "out"], ["look", "import-hf", "anna"]):  # fmt: skip
        assert windtunnel(*words)[0] == 0, words
    greedy = ("anna", "--tokens", 6, "--temperature", 0)
    assert document("generate", "import-hf", *greedy)["text"] == document("generate", trained, *greedy)["text"]
    code, out, err = windtunnel("evaluate", "import-hf")
    assert (code, out) == (2, "")
    assert "runs/import-hf/seed-0 has no corpus; give evaluate one with --corpus CORPUS" in err


def test_without_transformers_it_says_that_nothing_was_compared(windtunnel, exported, monkeypatch, document):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name))
    code, out, _ = windtunnel("import", exported)
    assert code == 0
    assert "not compared with transformers; --proof does, and needs: pip install transformers" in out
    assert document("runs", "import-hf")["record"]["proof"] is None


def test_gguf_is_read_back(trained, tmp_path, document):
    gguf = pytest.importorskip("gguf")
    found = document("export", trained, "out", "--format", "gguf")
    assert found == {"folder": "out", "format": "gguf", "notes": []}
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    weights = load(trained).model.state_dict()
    assert len(tensors) == len(weights)
    assert (tensors["blk.1.attn_qkv.weight"] == weights["blocks.1.attention.qkv.weight"].numpy()).all()


def test_seeds_start_from_an_imported_run(windtunnel, exported, names, document):
    """In processes of their own, as `train` runs them."""
    assert windtunnel("import", exported, "--corpus", names, "--unit", "line")[0] == 0
    imported = document("evaluate", "import-hf")["scores"]["loss"]["estimate"]
    words = ["train", names, "--from", "import-hf", "--steps", 2, "--seeds", 2]
    summary = document(*words, "--set", "train.sample_tokens=0", "--set", "train.threads=1")
    assert [seed["reason"] for seed in summary["seeds"]] == ["finished", "finished"]
    for seed in summary["seeds"]:
        run = open_run(Path(seed["folder"]))
        first = next(event for event in run.events() if hasattr(event, "split"))
        assert first.loss == pytest.approx(imported, abs=1e-9)
        assert run.config.optimizer.lr == 5e-5
    code, _, err = windtunnel(*words, "--set", "model.d_ff=8")
    assert code == 2
    assert "other tensors: blocks.0.feed_forward.narrow.weight, blocks.0.feed_forward.widen.bias" in err


def test_an_alteration_is_measured_before_after_and_later(windtunnel, trained, document):
    code, out, _ = windtunnel("alter", trained, "--kv-heads", 2, "--rotary", "--out", "altered")
    assert code == 0
    assert "on the whole dev split" in out
    assert "--from altered/seed-0 --steps 200" in out
    measured = document("evaluate", "altered")["scores"]["loss"]["estimate"]
    found = document("alter", trained, "--kv-heads", 2, "--rotary", "--out", "other", "--steps", 20)
    assert found["after"]["scores"]["loss"] == pytest.approx(measured, abs=1e-9)
    assert found["before"]["scores"]["loss"] == document("evaluate", trained)["scores"]["loss"]["estimate"]
    assert found["trained"]["dev"]["scores"]["loss"] < found["after"]["scores"]["loss"]
    assert document("runs", found["trained"]["run"])["config"]["start"]["run"].endswith("other/seed-0")


# ---------------------------------------------------------------------------------------------------------- mistakes


def tensors_changed(change):
    def damage(folder):
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        change(tensors)
        safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def config_changed(**changes):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def half_a_shard(folder):
    content = (folder / WEIGHTS).read_bytes()
    names = list(safetensors.torch.load(content))
    shard = "model-00001-of-00001.safetensors"
    (folder / WEIGHTS).unlink()
    (folder / shard).write_bytes(content[: len(content) // 2])
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))


def header_of_ten_gigabytes(folder):
    text = json.dumps(
        {"transformer.wte.weight": {"dtype": "F32", "shape": [50000, 50000], "data_offsets": [0, 10**10]}}
    )
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(900))


def panicking_tokenizer(folder):
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["merges"] = [["a" * 40, "b"]]
    path.write_text(json.dumps(data))


def many_tokens(folder):
    characters_tokenizer((chr(number) for number in range(32, 1032)), end=True).save(folder / "tokenizer.json")


LAST = "transformer.h.1.mlp.c_proj.bias"
FOLDERS = {
    "no such folder": (shutil.rmtree, ["hf does not exist; expected a Hugging Face model's folder"]),
    "no Hugging Face folder": (lambda f: (f / "config.json").unlink(), ["config.json cannot be read"]),
    "another model": (config_changed(model_type="t5"), ["model_type 't5' is not one that can be read: gpt2"]),
    "a field": (config_changed(add_cross_attention=True), ["add_cross_attention=True (there is no encoder"]),
    "pickled": (pickled, ["only pickled weights (pytorch_model.bin)", "save_pretrained(NEW)"]),
    "a tensor missing": (tensors_changed(lambda t: t.pop(LAST)), [f"1 missing: {LAST}"]),
    "a tensor more": (tensors_changed(lambda t: t.update(extra=torch.ones(2))), ["1 unexpected: transformer.extra"]),
    "NaN": (tensors_changed(lambda t: t[LAST].fill_(torch.nan)), [f"NaN or infinity in the weights {LAST}"]),
    "half a shard": (half_a_shard, ["model-00001-of-00001.safetensors is incomplete", "download it again"]),
    "a lying config": (config_changed(n_layer=10**6, n_embd=10**4), ["config.json says 1000000 layers"]),
    "a lying vocabulary": (config_changed(vocab_size=10**9), ["transformer.wte.weight (expected (1000000000, 16)"]),
    "a lying header": (header_of_ten_gigabytes, ["its header declares 10,000,000,"]),
    "a tokenizer that panics": (panicking_tokenizer, ["merge 0 needs the token"]),
    "too many tokens": (many_tokens, ["the tokenizer has 1,001 tokens, the model's embedding 257 rows"]),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        ["no tokenizer that can be read", "merges.txt, beside"],
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_cannot_be_imported(windtunnel, hf, tmp_path, case):
    damage, words = FOLDERS[case]
    damage(hf)
    code, out, err = windtunnel("import", "hf")
    assert (code, out) == (3, "")
    assert all(word in err for word in words), err
    assert err.count("windtunnel: ") == 1
    assert not (tmp_path / "runs").exists()


def test_a_corpus_that_the_tokenizer_cannot_read(windtunnel, hf, tmp_path):
    characters_tokenizer("abc", end=True).save(hf / "tokenizer.json")
    (tmp_path / "text.txt").write_text("abcabc zebra " * 200)
    code, out, err = windtunnel("import", "hf", "--corpus", "text.txt")
    assert (code, out) == (3, "")
    assert "no token for the character" in err


def test_a_real_process_says_it_in_one_line(hf):
    pickled(hf)
    result = subprocess.run(
        [sys.executable, "-m", "windtunnel", "import", "hf"],
        cwd=hf.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("windtunnel: hf has only pickled weights")
    assert result.stderr.count("\n") == 1


def test_exports_that_are_refused(windtunnel, trained, exported, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    assert windtunnel("alter", trained, "--rotary", "--out", "rotary")[0] == 0
    assert windtunnel("alter", trained, "--window", "4", "--out", "windowed")[0] == 0
    for words, message in {
        (trained, "full"): "full is not empty; nothing is written over it: choose another folder",
        (trained, "file"): "file is a file; nothing is written over it",
        (trained, "new", "--format", "onnx"): "there is no format 'onnx'; known are hf, gguf",
        ("windowed", "new"): "the nearest, gpt2, has not model.window=4; train with --set model.window=none",
        ("rotary", "new", "--format", "gguf"): "model.position=rope",
    }.items():
        code, out, err = windtunnel("export", *words)
        assert (code, out) == (2, ""), words
        assert message in err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kv-heads", 3), "4 key and value heads cannot become n_kv_heads=3; possible are 1, 2, 4"),
        (("--window", 0), "Invalid value for '--window'"),
        ((), "nothing to alter; give --kv-heads N, --rotary or --window W"),
    ],
)
def test_alterations_that_are_refused(windtunnel, trained, words, message, tmp_path):
    code, out, err = windtunnel("alter", trained, *words, "--out", "altered")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "altered").exists()


def test_training_from_what_is_no_run(windtunnel, names):
    code, _, err = windtunnel("train", names, "--from", "nowhere", "--steps", 2)
    assert code == 3
    assert "nowhere does not exist" in err


def test_folding_says_that_nothing_changed(windtunnel, document, trained, names, tmp_path):
    changes = ["model.d_hidden=8", "train.steps=30", "train.sample_tokens=0", "train.compile=false", "text.unit=line"]
    folder = tmp_path / "mlp" / "seed-0"
    list(fit(override(recipe("mlp", str(names)), changes), folder))
    found = document("fold", folder, "--out", "folded")
    assert found["agreement"]["same"] == found["agreement"]["n"] == found["after"]["n_tokens"]
    assert found["n_before"] == found["n_after"] + 8
    code, out, _ = windtunnel("fold", folder, "--out", "other")
    assert code == 0
    assert f"the same in {found['agreement']['n']:,} of them" in out
    code, _, err = windtunnel("fold", trained, "--out", "third")
    assert code == 2
    assert err.startswith("windtunnel: nothing to fold: ")
    assert "this transformer has none" in err


def test_a_gguf_file_comes_back_as_the_same_model(trained, document, windtunnel, tmp_path):
    pytest.importorskip("gguf")
    assert windtunnel("export", trained, tmp_path / "out", "--format", "gguf")[0] == 0
    file = tmp_path / "out" / "model.gguf"
    found = document("import", file, "--out", tmp_path / "back", "--no-proof")
    back, before = load(tmp_path / "back" / "seed-0"), load(trained)
    assert (found["origin"], found["proof"], back.tokenizer.kind) == ("gpt2", None, "bytes")
    ids = torch.from_numpy(before.tokenizer.encode("banana"))[None]
    assert torch.equal(back.model(ids), before.model(ids))
    record = json.loads((tmp_path / "back" / "seed-0" / "record.json").read_text())
    assert list(record["source"]["sha256"]) == ["model.gguf"]
    assert record["chat"] == {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    shown = document("generate", tmp_path / "back" / "seed-0", "ba", "--tokens", "2", "--temperature", "0")
    assert [token["id"] for token in shown["tokens"][:2]] == [99, 98]


def test_what_is_no_model_is_told(windtunnel, tmp_path):
    (tmp_path / "text.gguf").write_text("some text")
    code, _, err = windtunnel("import", tmp_path / "text.gguf", "--out", tmp_path / "run")
    assert (code, "is no GGUF file" in err) == (3, True)
    code, _, err = windtunnel("import", "nothing-here")
    assert (code, "smollm2-135m" in err) == (3, True)


def test_an_encoder_is_imported_and_a_classifier_begins_with_it(windtunnel, document, tmp_path, monkeypatch):
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "was", "film", "book", "good", "bad"]
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**small, vocab_size=12, max_position_embeddings=16)).save_pretrained("bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words))
    found = document("import", "bert")
    assert (found["origin"], found["proof"]["holds"], found["proof"]["continuation"]) == ("bert", True, [])
    lines = [f"The {kind} was {word},{word}" for kind in ("film", "book") for word in ("good", "bad")]
    (tmp_path / "table.csv").write_text("text,label\n" + "\n".join(f"{i} {line}" for i, line in enumerate(lines * 30)))
    trained = document("train", "table.csv", "--from", "import-bert", "--steps", 2, "--out", "out")
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "bert").rename(tmp_path / "cache" / "models" / "tiny-bert")
    listed = Listed("tiny-bert", "tiny", "MIT", "tiny", "tiny-1-py3-none-any.whl", 1, "", "tiny", ())
    monkeypatch.setitem(MODELS, "tiny-bert", listed)
    for _ in range(2):  # it is imported once
        by_name = document("train", "table.csv", "--from", "tiny-bert", "--steps", 1)
    assert (by_name["seeds"][0]["step"], (tmp_path / "runs" / "import-tiny-bert").is_dir()) == (1, True)
    code, _, err = windtunnel("train", "table.csv", "--from", "minilm-l6")
    assert (code, "get it: windtunnel models get minilm-l6" in err) == (3, True)
    model = load(open_run(tmp_path / "out" / "seed-0").folder).model
    assert (model.config.family, model.config.trunk.embedding_norm, trained["seeds"][0]["step"]) == (
        "classifier",
        True,
        2,
    )
    code, _, err = windtunnel("generate", "import-bert", "the")
    assert (code, "reads whole texts and writes none" in err) == (2, True)


def test_an_imported_model_is_evaluated_on_any_text(windtunnel, exported, names, document, tmp_path):
    assert windtunnel("import", exported, "--no-proof")[0] == 0
    assert windtunnel("import", exported, "--no-proof", "--corpus", names, "--out", "own")[0] == 0
    other = document("evaluate", "import-hf", "--corpus", names)["seeds"][0][1]
    assert other["scores"] == document("evaluate", "own")["seeds"][0][1]["scores"]
    code, _, err = windtunnel("evaluate", "own", "--corpus", names, "--slices")
    assert (code, "leave --corpus out" in err) == (2, True)
    code, _, err = windtunnel("evaluate", "own", "--split", "all")
    assert (code, "has nothing in a split 'all'; it has train, dev, test" in err) == (2, True)


def test_of_another_text_all_of_it_is_read_and_the_perplexity_stands_beside_the_loss(
    windtunnel, exported, document, tmp_path
):
    assert windtunnel("import", exported, "--no-proof")[0] == 0
    page = tmp_path / "page.txt"
    page.write_text("ann " * 50)
    found = document("evaluate", "import-hf", "--corpus", page, "--split", "all")
    trained = load(tmp_path / "runs" / "import-hf" / "seed-0")
    assert found["seeds"][0][1]["n_tokens"] == len(trained.tokenizer.encode("ann " * 50)) - 1
    loss = found["scores"]["loss"]["estimate"]
    assert found["perplexity"]["estimate"] == pytest.approx(np.exp(loss))
    _, out, _ = windtunnel("evaluate", "import-hf", "--corpus", page, "--split", "all")
    assert f"nats per token, perplexity {np.exp(loss):.2f}, on the whole text of" in out
    page.write_text("ann an")  # shorter than the context
    short = document("evaluate", "import-hf", "--corpus", page, "--split", "all")["seeds"][0][1]
    ids = torch.from_numpy(trained.tokenizer.encode("ann an"))
    assert trained.run.config.model.context_length > len(ids)
    nats = torch.nn.functional.cross_entropy(trained.model(ids[None, :-1])[0], ids[1:])
    assert (short["n_tokens"], short["scores"]["loss"]) == (len(ids) - 1, pytest.approx(nats.item(), rel=1e-5))


def test_the_cache_is_listed_and_cleared(windtunnel, document, tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    assert document("cache")["kept"] == []
    for name in ("models", "features"):
        (tmp_path / "cache" / name / "one").mkdir(parents=True)
        (tmp_path / "cache" / name / "one" / "file").write_bytes(b"x" * 2_000_000)
    (tmp_path / "cache" / "mine").mkdir()
    found = {kept["name"]: (kept["n_files"], kept["n_bytes"]) for kept in document("cache")["kept"]}
    assert found == {"models": (1, 2_000_000), "features": (1, 2_000_000)}
    assert "2.0 MB" in windtunnel("cache")[1]
    code, _, err = windtunnel("cache", "clear", "models")
    assert (code, "models: 2.0 MB cleared" in err) == (0, True)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["features", "mine"]
    code, _, err = windtunnel("cache", "clear", "mine")
    assert (code, "no folder 'mine'; known are models, corpora" in err) == (2, True)

"""Where texts of a model from elsewhere begin and end: through import, generation, further training and export."""

import json

import pytest
import tokenizers as hf
import torch
from foreign_models import CONFIGS, change_config
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import windtunnel as wt
from windtunnel.models.pretrained.gguf_tokenizer import gguf_marks
from windtunnel.models.pretrained.marks import Marks, marks_of, read_marks
from windtunnel.text.tokenizers import bytes_tokenizer
from windtunnel.text.vocab_files import begin_with
from windtunnel.training.run import open_run

BEGIN, END, TURN = 1, 2, 261
GENERATION = {"eos_token_id": [END, TURN], "temperature": 0.6, "do_sample": True}
TOLD = {
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>"},
    "chat_template": "{{ messages[0].content }}",
}


def tokenizer():
    """Bytes, SentencePiece's two marks, one that ends a turn, and a post-processor that begins a text."""
    vocab = {"<unk>": 0, "<s>": BEGIN, "</s>": END} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    library = hf.Tokenizer(hf.models.BPE({**vocab, "▁": 259, "a": 260}, [], byte_fallback=True))
    library.normalizer = hf.normalizers.Replace(" ", "▁")
    d = hf.decoders
    library.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()])
    library.add_special_tokens([hf.AddedToken(text, normalized=False) for text in ("<s>", "</s>", "<|turn_end|>")])
    return json.loads(library.to_str()) | {"post_processor": begin_with("<s>", BEGIN)}


def folder_of(folder, always):
    """A Llama whose most probable token is always the same."""
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"])
    with torch.no_grad():
        for parameter in (model.lm_head.weight, model.model.embed_tokens.weight):
            parameter.zero_()
        model.model.embed_tokens.weight[:, 0] = model.lm_head.weight[always, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    for name, data in (("tokenizer.json", tokenizer()), ("tokenizer_config.json", TOLD)):
        (folder / name).write_text(json.dumps(data))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return change_config(folder, eos_token_id=END, bos_token_id=BEGIN)


@pytest.mark.parametrize("always", [END, TURN])
def test_a_text_begins_with_the_begin_token_and_stops_at_each_end_id(tmp_path, always):
    model = wt.import_model(folder_of(tmp_path / "llama", always), out=tmp_path / "run")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "llama")("an a")["input_ids"]
    found = model.generate("an a", 6, temperature=0)
    assert [token.id for token in found.tokens] == [*theirs, always]
    assert (found.finish, found.text, theirs[0]) == ("stop", "an a", BEGIN)
    assert model.ids("an a") == theirs
    assert model.logits("an a").shape[0] == len(theirs)


def test_they_survive_the_export(tmp_path):
    model = wt.import_model(folder_of(tmp_path / "llama", END), out=tmp_path / "run", proof=False)
    wt.export(model, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (told["bos_token_id"], told["eos_token_id"]) == (BEGIN, END)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == GENERATION
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [END, TURN]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (theirs.bos_token, theirs.eos_token, theirs.chat_template) == ("<s>", "</s>", TOLD["chat_template"])
    assert theirs("a")["input_ids"] == [BEGIN, 260]


def test_a_run_that_begins_with_an_imported_model_keeps_them(tmp_path):
    wt.import_model(folder_of(tmp_path / "llama", END), out=tmp_path / "run", proof=False)
    (tmp_path / "text.txt").write_text("a an a na\n" * 300)
    wt.train(tmp_path / "text.txt", start=tmp_path / "run" / "seed-0", steps=1, out=tmp_path / "further")
    run = open_run(tmp_path / "further" / "seed-0")
    assert marks_of(run.record) == marks_of(open_run(tmp_path / "run" / "seed-0").record)


def test_what_the_files_say_is_read_as_far_as_it_can_be(tmp_path):
    told = {
        "eos_token": 7,
        "chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    (tmp_path / "generation_config.json").write_text("[")
    marks = read_marks(tmp_path, {"eos_token_id": [3, "x", -1], "bos_token_id": None})
    assert marks == Marks({"chat_template": "yes"}, {"eos_token_id": [3, "x", -1]}, {})
    assert marks.ends(bytes_tokenizer(end=True)) == {3}
    assert marks_of({}) is None
    assert marks_of({"chat": {"eos_token": "<|endoftext|>"}}).ends(bytes_tokenizer(end=True)) == {0}


def test_gguf_files_have_two_end_ids():
    given = {"tokens": ["a", "<s>", "</s>", "<end>"], "bos_token_id": 1, "eos_token_id": 2, "eot_token_id": 3}
    marks = gguf_marks({f"tokenizer.ggml.{name}": value for name, value in given.items()})
    assert marks.ids == {"bos_token_id": 1, "eos_token_id": [2, 3]}

"""BERT, RoBERTa and DistilBERT: the vectors of transformers, whatever the padding; and what is refused."""

import json

import pytest
import safetensors.torch
import torch
from foreign_models import change_config, randomised
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    DistilBertConfig,
    RobertaConfig,
)

from windtunnel.errors import ArtifactError, DataError
from windtunnel.models.encoder import EncoderConfig
from windtunnel.models.pretrained.encoder_export import encoder_files
from windtunnel.models.pretrained.encoders import wordpiece
from windtunnel.models.pretrained.huggingface import to_model
from windtunnel.models.pretrained.proof import compare_with_transformers
from windtunnel.models.pretrained.read import read_pretrained
from windtunnel.tasks.classification import text_rows
from windtunnel.text.tokenizers import Tokenizer

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "wind",
    "tunnel",
    "##s",
    "hum",
    ",",
    "!",
    "1",
    "##2",
    "cafe",
]
_BERT = {
    "vocab_size": 40, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80,
    "max_position_embeddings": 34,
}  # fmt: skip
CONFIGS = {
    "bert": BertConfig(**_BERT),
    "bert, relu, one type": BertConfig(**_BERT, hidden_act="relu", type_vocab_size=1, layer_norm_eps=1e-5),
    "roberta": RobertaConfig(**_BERT, layer_norm_eps=1e-5),
    "distilbert": DistilBertConfig(
        vocab_size=40, dim=48, n_layers=3, n_heads=4, hidden_dim=80, max_position_embeddings=34
    ),
}


def saved(name, folder, kind=AutoModel.from_config):
    """A model with random weights, and BERT's list of words beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomised(kind(CONFIGS[name]))
    model.save_pretrained(folder)
    if name == "roberta":
        marks(folder)
    else:
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return model


def marks(folder):
    """A tokenizer with RoBERTa's marks."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": number, "content": name, **flags} for number, name in enumerate(names[:5])]
    model = {"type": "WordLevel", "vocab": {name: number for number, name in enumerate(names)}, "unk_token": "<unk>"}
    split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    data = {"version": "1.0", "added_tokens": added, "pre_tokenizer": split, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(data))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_vectors_are_those_of_transformers_whatever_the_padding(tmp_path, name):
    theirs = saved(name, tmp_path)
    found = read_pretrained(tmp_path)
    ours = to_model(found.config, found.weights)
    context = 32 if name == "roberta" else 34
    assert (found.origin, found.config.context_length) == (name.partition(",")[0], context)
    ids = torch.randint(5, 40, (3, context), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([context, 7, 1])
    kept = torch.arange(context) < lengths[:, None]
    ids[~kept] = 1
    with torch.no_grad():
        expected = theirs(ids, attention_mask=kept.long())
        hidden = ours(ids, kept)
        assert expected.last_hidden_state.std() > 0.1
        assert (hidden - expected.last_hidden_state)[kept].abs().max() < 1e-5
        alone = [ours(ids[row : row + 1, :n])[0] for row, n in enumerate(lengths.tolist())]
        assert (hidden[kept] - torch.cat(alone)).abs().max() < 1e-5
        means = torch.stack([vectors.mean(0) for vectors in alone])
        assert torch.allclose(ours.pooled(ids, kept, "mean"), means, atol=1e-5)
        assert torch.allclose(ours.pooled(ids, kept, "first"), hidden[:, 0])
        if found.config.pooler:
            assert (ours.pooled(ids, kept, "pooler") - expected.pooler_output).abs().max() < 1e-5
        else:
            with pytest.raises(ValueError, match="no pooler"):
                ours.pooled(ids, kept, "pooler")
    assert found.config.pooler == (name != "distilbert")
    assert found.config.n_parameters() == sum(tensor.numel() for tensor in found.weights.values())
    proof = compare_with_transformers(ours, tmp_path)
    assert proof.holds
    assert (max(proof.max_difference.values()) < 1e-5, proof.continuation) == (True, ())


def test_a_head_that_was_trained_on_it_is_left_out_and_named(tmp_path):
    theirs = saved("bert", tmp_path, BertForMaskedLM)
    found = read_pretrained(tmp_path)
    assert not found.config.pooler
    (note,) = (note for note in found.notes if "left out" in note)
    assert "cls.predictions.transform.dense.weight" in note
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = theirs.bert(ids).last_hidden_state
        assert (to_model(found.config, found.weights)(ids) - expected).abs().max() < 1e-5


def test_a_checkpoint_of_another_class_is_refused_with_its_tensors(tmp_path):
    """Row 004-3.4: BERTweet, a RoBERTa, was loaded into a class for BERT, and its layers were random in silence."""
    roberta = saved("roberta", tmp_path)
    change_config(tmp_path, model_type="bert")
    with pytest.raises(ArtifactError, match=r"model_type='bert' and architectures=\['RobertaModel'\] are two"):
        read_pretrained(tmp_path)
    change_config(tmp_path, architectures=None)
    safetensors.torch.save_file(
        {f"roberta.{name}": tensor for name, tensor in roberta.state_dict().items()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ArtifactError) as caught:
        read_pretrained(tmp_path)
    n = len(roberta.state_dict())
    assert f"{n} unexpected: bert.roberta.embeddings.LayerNorm.bias" in str(caught.value)
    assert f"{n - 2} missing: bert.embeddings.word_embeddings.weight" in str(caught.value)  # there may be no pooler


def test_a_part_that_is_missing_or_cannot_be_honoured_is_told(tmp_path):
    saved("bert", tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    short = {name: tensor for name, tensor in weights.items() if ".layer.2.output" not in name}
    safetensors.torch.save_file(short, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"4 missing: bert\.encoder\.layer\.2\.output\.dense\.weight"):
        read_pretrained(tmp_path)
    for change, refusal in (
        ({"is_decoder": True}, "an encoder sees the whole text"),
        ({"position_embedding_type": "relative_key"}, "positions are learned vectors here"),
        ({"hidden_act": "silu"}, "'silu' is not one of gelu_new"),
        ({"attention_probs_dropout_prob": 0.2}, r"dropouts 0\.1 and 0\.2 differ"),
        ({"num_hidden_layers": 10**6}, "says 1000000 layers"),
        ({"max_position_embeddings": 0}, "describes no model"),
    ):
        saved("bert", tmp_path)
        with pytest.raises(ArtifactError, match=refusal):
            read_pretrained(change_config(tmp_path, **change))
    saved("bert", tmp_path)
    (tmp_path / "vocab.txt").write_text("the\nwind\n")
    with pytest.raises(DataError, match="lacks the marks around a text"):
        read_pretrained(tmp_path)


def test_wordpiece_is_berts(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    theirs, ours = BertTokenizerFast(vocab=str(path)), wordpiece(path)
    for text in ("The winds hum, the tunnels hum!", "Café 12\t\n wind", "東京 [SEP] quokka", ""):
        expected = theirs(text.replace("[SEP]", "sep"), add_special_tokens=False).input_ids
        assert ours.encode(text.replace("[SEP]", "sep")).tolist() == expected
    assert ours.marks == {"mask": 4, "cls": 2, "end": 3, "pad": 0}
    assert 3 not in ours.encode("[SEP]").tolist()  # a user's text has no marks
    rows = text_rows([ours.encode("the wind"), ours.encode("hum " * 9)], ours, 6)
    assert rows["ids"].tolist() == [[2, 5, 6, 3, 0, 0], [2, 9, 9, 9, 9, 3]]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert wordpiece(path).encode("The").tolist() == [1]
    assert Tokenizer.from_json(ours.to_json()).marks == ours.marks


def test_an_encoder_is_built_and_counted():
    config = EncoderConfig(vocab_size=40, context_length=12, pooler=True)
    config = config.replace(trunk=config.trunk.replace(n_layers=1, n_heads=2, d_model=8))
    model = config.build(0)
    assert config.n_parameters() == sum(parameter.numel() for parameter in model.parameters())
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 8)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_out_again_it_is_a_bert_with_the_same_vectors_and_tokens(name, tmp_path):
    original = saved(name, tmp_path / "there")
    found = read_pretrained(tmp_path / "there")
    exported = encoder_files(found.config, found.weights, found.tokenizer)
    (tmp_path / "back").mkdir()
    for file, content in exported.files.items():
        (tmp_path / "back" / file).write_bytes(content)
    ids = torch.randint(5, 7, (2, 30), generator=torch.Generator().manual_seed(0))
    theirs, again = original.eval()(ids), AutoModel.from_pretrained(tmp_path / "back").eval()(ids)
    torch.testing.assert_close(again.last_hidden_state, theirs.last_hidden_state, atol=1e-5, rtol=0)
    if found.config.pooler:
        torch.testing.assert_close(again.pooler_output, theirs.pooler_output, atol=1e-5, rtol=0)
        assert exported.notes == ()
    else:
        assert "it was written as zeros" in exported.notes[0]
    text = "the wind tunnels" if name != "roberta" else "ab"
    rows = text_rows([found.tokenizer.encode(text)], found.tokenizer, 32)["ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "back")(text)["input_ids"] == rows[0].tolist()
    assert read_pretrained(tmp_path / "back").tokenizer.marks == found.tokenizer.marks

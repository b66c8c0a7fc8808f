"""The expressions of row 004-3: the published counts, and the split of scikit-learn."""

from collections import Counter
from itertools import pairwise

from windtunnel.experiments.frame import Claim, Setting
from windtunnel.experiments.minilm_arms import UNTRAINED, WHOLE, minilm_arms
from windtunnel.experiments.training import write_labelled
from windtunnel.experiments.verbal_arithmetic import (
    NUMBERS,
    counting,
    expressions,
    large_arms,
    source_split,
)
from windtunnel.models.pretrained.catalogue import MINILM
from windtunnel.models.pretrained.encoders import wordpiece
from windtunnel.text.tokenizers import open_tokenizer
from windtunnel.training.checkpoint import weights_sha256
from windtunnel.training.run import initial_model


def test_the_table_is_whole_and_has_the_published_counts():
    pairs = expressions()
    assert len({text for text, _ in pairs}) == 800
    assert Counter(label for _, label in pairs) == {"negative": 190, "zero": 21, "positive": 589}
    assert dict(pairs)["three minus five"] == "negative"
    assert dict(pairs)["zero plus zero"] == dict(pairs)["nineteen minus nineteen"] == "zero"


def test_the_parts_have_the_published_counts_and_nothing_in_common():
    parts = source_split()
    counts = {name: Counter(label for _, label in own) for name, own in parts.items()}
    assert counts["train"] == {"negative": 100, "zero": 13, "positive": 335}
    assert counts["dev"] == {"negative": 43, "zero": 6, "positive": 143}
    assert counts["test"] == {"negative": 47, "zero": 2, "positive": 111}
    assert sorted(pair for own in parts.values() for pair in own) == sorted(expressions())
    assert source_split() == parts


def test_counting_says_nothing_of_two_numbers_but_successors():
    told = counting()
    assert set(" ".join(told).split()) == {*NUMBERS, "plus", "minus", "is"}
    for line in told:
        words = line.split()
        if "is" in words:
            assert words[2] == "one"
        else:
            places = [NUMBERS.index(word) for word in words]
            assert {b - a for a, b in pairwise(places)} in ({1}, {-1})
    tried = {text for text, _ in expressions()}
    assert not tried & set(told)


def test_the_arms_of_minilm_are_what_they_say(tmp_path, monkeypatch):
    """On a tiny BERT that stands where MiniLM would."""
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NUMBERS, "plus", "minus", "##s"]
    small = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    BertModel(BertConfig(**small, vocab_size=len(words), max_position_embeddings=16)).save_pretrained(MINILM.path)
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (MINILM.path / "tokenizer.json").write_text(wordpiece(tmp_path / "vocab.txt").to_json())
    at, corpus = Setting(quick=True, seed=0, out=tmp_path / "out"), tmp_path / "expressions.csv"
    write_labelled(corpus, source_split())
    (at.out / "runs" / "import-minilm-wrong-ids").mkdir(parents=True)  # as an import leaves it that was interrupted
    found = list(large_arms(at, corpus))
    claims = [claim for claim in found if isinstance(claim, Claim)]
    assert {claim.id for claim in claims} == {"004-3.2", "004-3.3", "004-3.4"}
    whole, read_wrongly = minilm_arms(at, corpus)[3:]
    ids = [open_tokenizer(arm.config.text.tokenizer).encode("three minus five") for arm in (whole, read_wrongly)]
    assert (ids[0].tolist(), sorted(set(ids[0]) & set(ids[1]))) == ([8, 26, 10], [])
    weights = {
        arm.name: weights_sha256(initial_model(arm.config).trunk.state_dict()) for arm in minilm_arms(at, corpus)
    }
    assert len({*weights.values()}) == 2
    assert weights[UNTRAINED] != weights[WHOLE]
    assert [arm.config.train.freeze for arm in minilm_arms(at, corpus)] == [None, "all", 4, None, None]

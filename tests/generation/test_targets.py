"""Targets of many sources: the same as one by one and as plain forward passes, for a stream and for pairs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation import translate as module
from windtunnel.generation.sampling import log_softmax
from windtunnel.generation.translate import target_tokens, translate, translate_all, translate_lines
from windtunnel.models import FAMILIES, build
from windtunnel.tasks import LanguageConfig, TranslationConfig
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.run import Run, TrainedModel
from windtunnel.training.run_config import RunConfig

CONTEXT = 12
SMALL = {
    "context_length": CONTEXT, "n_layers": 2, "n_heads": 2, "d_model": 16, "position": "rope", "dropout": 0.0,
    "tie_embeddings": False,
}  # fmt: skip
SOURCES = ["ab", "c", "abcab", "ba", "ab", "cacacaca", "bb", "a"]


def untrained(family, alphabet="\tabc", task=None):
    """A model in float64 whose weights are random and large."""
    tokenizer = characters_tokenizer(alphabet, end=True)
    config = RunConfig(
        corpus="none",
        text=TextConfig(unit="line"),
        task=task or TranslationConfig(),
        model=FAMILIES[family](vocab_size=tokenizer.vocab_size, **SMALL),
    )
    network = build(config.model, seed=6).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return TrainedModel(Run(Path("runs/untrained"), config, tokenizer, {}), network, tokenizer, 1, ())


@pytest.fixture(params=["transformer", "translator"], name="trained")
def _families(request):
    return untrained(request.param)


def plainly(trained, source, ids):
    """The readable twin: the logits (T, V) of every token of a target, of one forward pass without a cache."""
    end, encoded = trained.tokenizer.end_id, trained.tokenizer.encode(source).tolist()
    with torch.no_grad():
        if trained.model.config.reads == "pair":
            return trained.model(torch.tensor([[end, *ids[:-1]]]), torch.tensor([[*encoded, end]]))[0].numpy()
        turn = trained.tokenizer.encode("\t").tolist()
        read = [end, *encoded, *turn, *ids[:-1]]
        return trained.model(torch.tensor([read]))[0, len(encoded) + 1 :].numpy()


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        assert (a.source, a.target, a.complete) == (b.source, b.target, b.complete)
        assert [one.ids for one in a.alternatives] == [one.ids for one in b.alternatives]
        for one, other in zip(a.alternatives, b.alternatives, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-12)
            assert one.score == pytest.approx(other.score, abs=1e-12)


@pytest.mark.parametrize(("beam", "alternatives"), [(1, 1), (4, 3), (20, 20)])
def test_many_sources_are_translated_as_each_by_itself_in_their_order(trained, monkeypatch, beam, alternatives):
    together = translate_all(trained, SOURCES, beam, alternatives)
    assert [one.source for one in together] == SOURCES
    assert len({tuple(target.ids for target in one.alternatives) for one in together}) > 3
    assert_same(together, [translate_all(trained, [source], beam, alternatives)[0] for source in SOURCES])
    monkeypatch.setattr(module, "AT_ONCE", 1)
    assert_same(together, translate_all(trained, SOURCES, beam, alternatives))
    monkeypatch.setattr(type(trained.model), "new_cache", lambda *_: None)
    assert_same(together, translate_all(trained, SOURCES, beam, alternatives))


def test_greedy_targets_are_the_most_probable_token_at_each_step(trained):
    for one in translate_all(trained, SOURCES):
        (target,) = one.alternatives
        assert plainly(trained, one.source, target.ids).argmax(-1).tolist() == list(target.ids)
        assert trained.tokenizer.end_id not in target.ids[:-1]
        assert one.complete == (target.ids[-1] == trained.tokenizer.end_id)
        room = CONTEXT if trained.model.config.reads == "pair" else CONTEXT - 1 - len(one.source)
        assert one.complete or len(target.ids) == room


def test_every_target_has_the_probability_of_all_its_tokens(trained):
    for one in translate_all(trained, SOURCES, beam=6, alternatives=6, length_penalty=1):
        assert len({target.ids for target in one.alternatives}) == 6
        for target in one.alternatives:
            log_TV = log_softmax(plainly(trained, one.source, target.ids))
            total = sum(log_V[id] for log_V, id in zip(log_TV, target.ids, strict=True))
            assert target.log_probability == pytest.approx(total, abs=1e-11)
            assert target.probability == pytest.approx(math.exp(total))
            assert target.score == pytest.approx(total / ((5 + len(target.ids)) / 6))
            assert target.target == trained.tokenizer.decode([id for id in target.ids if id])
        ranked = [(not target.complete, -target.score) for target in one.alternatives]
        assert ranked == sorted(ranked)
        assert (one.target, one.probability) == (one.alternatives[0].target, one.alternatives[0].probability)


def test_the_tokens_of_a_target_have_alternatives(trained):
    for one in translate_all(trained, SOURCES, beam=3):
        tokens = target_tokens(trained, one, 4)
        assert "".join(token.piece for token in tokens) == one.target
        assert tuple(token.id for token in tokens) == one.alternatives[0].ids
        assert math.prod(token.probability_1 for token in tokens) == pytest.approx(one.probability)
        p_TV = np.exp(log_softmax(plainly(trained, one.source, one.alternatives[0].ids)))
        for token, p_V in zip(tokens, p_TV, strict=True):
            assert [other.probability_1 for other in token.alternatives] == pytest.approx(sorted(p_V)[:-5:-1])


def test_a_line_is_a_source_where_a_space_is_known_and_words_are_where_it_is_not():
    words, lines = untrained("transformer"), untrained("transformer", "\tabc .")
    text = " ab  c\n\n \na\n"
    assert [[one.source for one in line] for line in translate_lines(words, text)] == [["ab", "c"], [], [], ["a"]]
    assert [one.source for one in translate(words, text)] == ["ab", "c", "a"]
    text = "a b. c.\n\nb\n"
    assert [[one.source for one in line] for line in translate_lines(lines, text)] == [["a b. c."], [], ["b"]]


@pytest.mark.parametrize("text", ["", " ", "\n", " \n\n"])
def test_a_text_of_nothing_is_refused(trained, text):
    with pytest.raises(ConfigError, match="something to translate, given an empty text"):
        translate(trained, text)


@pytest.mark.parametrize(("source", "message"), [
    ("", "a source to translate, given an empty one"),
    ("abd", r"cannot translate 'abd': no token for the character 'd' \(U\+0064\) at position 2"),
    ("a\tb", "it has a TAB"),
    ("a" * CONTEXT, f"it has {CONTEXT} tokens, and this model reads at most"),
])  # fmt: skip
def test_a_source_that_cannot_be_read_is_refused_by_its_name(trained, source, message):
    with pytest.raises(DataError, match=message):
        translate_all(trained, ["ab", source])


def test_the_longest_source_fills_the_context(trained):
    pair = trained.model.config.reads == "pair"
    longest = "a" * (CONTEXT - (1 if pair else 2))
    (one,) = translate_all(trained, [longest], beam=3)
    assert 1 <= len(one.alternatives[0].ids) <= (CONTEXT if pair else 1)
    with pytest.raises(DataError, match=f"at most {len(longest)}; shorten it"):
        translate_all(trained, [longest + "a"])


def test_a_beam_that_no_memory_holds_is_refused_with_the_widest_that_is(trained):
    with pytest.raises(ConfigError, match=r"a beam of 10,000,000 keeps \d+ GiB.*at most [\d,]+$") as refused:
        translate_all(trained, ["ab"], beam=10_000_000)
    most = int(str(refused.value).split()[-1].replace(",", ""))
    assert module._rows_at_once(trained.model.config, most) == 1


def test_a_run_that_was_not_trained_on_pairs_is_refused():
    with pytest.raises(ConfigError, match="was trained for language, not to translate"):
        translate(untrained("transformer", task=LanguageConfig()), "ab")

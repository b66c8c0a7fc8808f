"""The rows of 001: floors by hand, models that reach them, and verdicts that follow the numbers."""

import math

import numpy as np
import pytest
import torch

from windtunnel.errors import DataError
from windtunnel.experiments import larger_corpus, reading_a_gpt, tiny_corpus
from windtunnel.experiments.frame import Setting
from windtunnel.experiments.sentences import (
    Frequencies,
    Sentences,
    diluted,
    masked,
    minibatches,
    read_sentences,
    split_sentences,
)  # fmt: skip
from windtunnel.experiments.small_gpt import as_batch, example_losses, gpt_nano, train_on
from windtunnel.generation.decode import Position
from windtunnel.generation.trace import describe
from windtunnel.models.block import Block
from windtunnel.report.outcome import Claim
from windtunnel.stats.intervals import mean_interval
from windtunnel.text.corpora.pets import GRAMMAR, START, entropy_floor, sentence_entropy
from windtunnel.text.tokenizers import gpt2_tokenizer

FEW = [(1, 2, 3), (1, 2, 3), (1, 2, 4), (1, 5, 3, 3, 3)]
"""After 1 comes 2 in three of four, after 1 2 comes 3 in two of three; the rest is certain."""
NATS = 3 * -math.log(3 / 4) - math.log(1 / 4) + 2 * -math.log(2 / 3) - math.log(1 / 3)


@pytest.fixture(scope="module")
def gpt2():
    return gpt2_tokenizer()


def few():
    return Sentences(FEW, FEW, Frequencies(FEW, 8), "counted")


# ------------------------------------------------------------------------------------------------------------- floors


def test_floors_by_hand():
    losses = few().true_losses()
    assert masked(losses) == pytest.approx(NATS / 10)
    assert diluted(losses, size=1) == pytest.approx(np.mean([row.mean() for row in losses]))
    draws = minibatches(losses, 200_000, 0)
    assert diluted(losses) == pytest.approx(draws.mean(), abs=4 * draws.std() / math.sqrt(len(draws)))
    assert diluted(losses) < masked(losses)


def test_what_is_not_in_the_text_has_no_probabilities():
    rows = Frequencies(FEW, 8)([1, 2, 7])
    assert rows[0].tolist() == [0, 0, 0.75, 0, 0, 0.25, 0, 0]
    assert rows[1, 3] == pytest.approx(2 / 3)
    assert rows[2].sum() == 0


def test_the_truth_of_pets_is_its_grammar(gpt2):
    found = read_sentences("pets", gpt2, 300)
    first = -math.fsum(p * math.log(p) for p, _, _ in GRAMMAR[START])
    tokens = sentence_entropy() / entropy_floor(gpt2) - 1
    sums = np.array([row.sum() for row in found.true_losses()])
    assert sums.mean() == pytest.approx(sentence_entropy() - first, abs=4 * sums.std() / math.sqrt(len(sums)))
    assert np.mean([len(row) for row in found.true_losses()]) == pytest.approx(tokens - 1, rel=0.05)
    assert len(found.train) == 16_000


def test_a_text_is_cut_behind_its_full_stops(gpt2, tmp_path):
    assert split_sentences(" I rub a dog.  He rubs a cat .\nShe 1.5 ") == ["I rub a dog.", "He rubs a cat .", "She 1.5"]
    path = tmp_path / "text.txt"
    path.write_text("I rub a dog. I rub the cat. " * 5 + "He holds a cat. " * 3, encoding="utf-8")
    found = read_sentences(str(path), gpt2, 100)
    assert (len(found.train), found.judged) == (10, found.train)
    assert masked(found.true_losses()) == pytest.approx(math.log(2) / 4)
    path.write_text("I rub a dog.", encoding="utf-8")
    with pytest.raises(DataError, match="has 1 sentences of two tokens or more; expected at least 10"):
        read_sentences(str(path), gpt2, 1)
    path.write_text("I rub a dog. " * 10 + "I" + " rub" * 70 + ".", encoding="utf-8")
    with pytest.raises(DataError, match="has a sentence of 72 tokens; expected at most 64"):
        read_sentences(str(path), gpt2, 1)


# -------------------------------------------------------------------------------------------------------- tiny-corpus


def test_a_small_gpt_reaches_the_floor():
    model = gpt_nano(8, 5, 0)
    list(train_on(model, FEW, 200, 0))
    assert masked(example_losses(model, FEW)) == pytest.approx(masked(few().true_losses()), abs=0.02)


def verdict_at(losses, monkeypatch, setting):
    monkeypatch.setattr(tiny_corpus, "example_losses", lambda model, judged: losses)
    monkeypatch.setattr(tiny_corpus, "panels", lambda *_: ())
    monkeypatch.setattr(tiny_corpus, "draw", lambda *_: None)
    many = Sentences(FEW, FEW * 30, Frequencies(FEW, 8), "counted")
    learned = tiny_corpus.Learned(None, None, many, [], {})
    return next(tiny_corpus.losses(setting, learned))


def test_the_verdict_on_the_floor_follows_the_losses(monkeypatch, tmp_path):
    setting, true = Setting(True, 0, tmp_path), few().true_losses() * 30
    near, far = ([row + more for row in true] for more in (0.02, 0.05))
    assert verdict_at(near, monkeypatch, setting).verdict == "holds"
    claim = verdict_at(far, monkeypatch, setting)
    assert claim.verdict == "does not hold"
    assert claim.values["estimate"].estimate == pytest.approx(0.05)


def test_one_minibatch_says_little():
    narrow = tiny_corpus.one_minibatch(np.linspace(0.575, 0.585, 100), 0.58)
    wide = tiny_corpus.one_minibatch(np.linspace(0.5, 0.7, 1001), 0.6)
    assert (narrow.verdict, wide.verdict) == ("holds", "does not hold")
    assert (wide.values["low"], wide.values["high"]) == (pytest.approx(0.505), pytest.approx(0.695))


def traced(gpt2, believed, true, temperature=1.0):
    """A token's trace, given what a model believes and what is true, by token."""

    def row(of, rest):
        values = np.full(gpt2.vocab_size, rest)
        for word, p in of.items():
            values[gpt2.encode(word)[0]] = p
        return values

    logits, drawn = np.log(row(believed, 1e-9)), row(believed, 1e-9) ** (1 / temperature)
    position = Position(
        int(gpt2.encode(max(believed, key=believed.get))[0]), logits, drawn / drawn.sum(), row(true, 0.0)
    )
    return next(describe(gpt2, [position], 6))


def test_the_verdict_on_the_top_six_follows_the_truth(gpt2):
    true = {" can": 0.5, " hold": 0.25, " rub": 0.25}
    close = traced(gpt2, {" can": 0.48, " hold": 0.33, " rub": 0.18, " a": 0.01}, true)
    assert tiny_corpus.against_truth("He and I", close).verdict == "holds"
    assert tiny_corpus.against_truth("He and I", close).values["total_variation"] == pytest.approx(0.09, abs=1e-3)
    other = traced(gpt2, {" can": 0.48, " hold": 0.25, " a": 0.22, " rub": 0.2}, true)
    assert tiny_corpus.against_truth("He and I", other).verdict == "does not hold"


def test_probabilities_after_a_temperature_are_told_from_others(gpt2):
    believed = {" can": 0.5, " hold": 0.3, " rub": 0.2}
    assert tiny_corpus.tempered_gaps([traced(gpt2, believed, {}, 0.8)], 0.8) == [pytest.approx(0, abs=1e-9)]
    assert tiny_corpus.tempered_gaps([traced(gpt2, believed, {})], 0.8)[0] > 0.05


def test_a_quick_run_says_why_the_tail_is_nonsense(claims_of):
    claims = claims_of("tiny-corpus")
    never = claims.one("E12", "no full stop is ever read")
    assert (never.verdict, never.values["full_stops"]) == ("holds", 0)
    turned = claims.one("E12", "as random as at the start")
    assert (turned.verdict, turned.values["stop"] < 0.01 < 5 < turned.values["first"]) == ("holds", True)
    assert claims.one("E12", "last position").values["longest"] == 14
    assert claims.one("001-2.2", "greedy").values["same"] == 3
    assert claims.one("001-2.5", "one call").verdict == "holds"
    assert claims.one("001-2.1", "lowest loss").verdict == "does not hold"  # after 25 steps


# ------------------------------------------------------------------------------------------------------ reading-a-gpt


@pytest.fixture
def reading(gpt2):
    ids = tuple(tuple(gpt2.encode(text).tolist()) for text in (reading_a_gpt.SENTENCE, reading_a_gpt.LONGER))
    return reading_a_gpt.Reading(gpt_nano(gpt2.vocab_size, reading_a_gpt.CONTEXT, 0).eval(), gpt2, ids)


def verdicts(findings):
    with torch.no_grad():
        return [claim.verdict for claim in findings if isinstance(claim, Claim)]


def test_ten_questions_and_their_values(claims_of):
    claims = claims_of("reading-a-gpt")
    wrong = {id for (id, _), claim in claims.items() if claim.verdict != "holds"}
    assert wrong == {"E6", "E7", "E8", "E9", "E10"}
    assert all(claims.one(id, "").verdict == "does not hold" for id in wrong)
    assert claims.one("E6", "ones").values["token"] == '"'
    assert claims.one("001-1.2.4", "4 examples").values["got"] == 4
    assert claims.one("E8", "method").values == {"when_made": 0, "uses": 1}
    assert claims.one("E9", "N(0, 1)").values["fresh"] == pytest.approx(1, abs=0.02)
    assert claims.one("E10", "pos_emb").values["looked_up"] == (5, 48)


def test_other_weights_are_seen(reading):
    assert verdicts(reading_a_gpt.spreads(reading)) == ["holds", "holds", "does not hold"]
    with torch.no_grad():
        reading.model.embedding.weight.mul_(50)
        reading.model.position.embedding.weight.mul_(1.1)
    assert verdicts(reading_a_gpt.spreads(reading)) == ["does not hold", "does not hold", "holds"]


def test_a_block_without_skip_connections_is_seen(reading, monkeypatch):
    monkeypatch.setattr(reading_a_gpt, "zeroed", lambda model: None)
    assert verdicts(reading_a_gpt.skips(reading)) == ["holds", "holds", "does not hold"]
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, x, shared: forward(self, x, shared) - x)
    assert verdicts(reading_a_gpt.skips(reading))[0] == "does not hold"


def test_targets_that_are_not_shifted_are_seen(reading, monkeypatch):
    batch = as_batch(reading.sentences)
    monkeypatch.setattr(reading_a_gpt, "as_batch", lambda _: batch._replace(targets=batch.ids.clone()))
    found = reading_a_gpt.targets(reading)
    assert next(found).verdict == "does not hold"


# ------------------------------------------------------------------------------------------------------ larger-corpus


def test_eight_words_or_signs_are_copied_or_not():
    text = "def f(x): return x + 1"
    assert larger_corpus.words(text) == ["def", "f", "(", "x", ")", ":", "return", "x", "+", "1"]
    assert len(larger_corpus.grams(text)) == 3
    known = set(larger_corpus.grams("so: def  f(x):\n return x * 2"))
    assert larger_corpus.share_copied(text, known) == pytest.approx(1 / 3)
    assert larger_corpus.share_copied("too short", known) == 0


def test_the_first_characters_of_documents(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc", encoding="utf-8")
    (tmp_path / "b.txt").write_text("defg", encoding="utf-8")
    with pytest.raises(DataError, match="has 9 characters; expected at least 20,000"):
        larger_corpus.first_characters(str(tmp_path), 10)
    monkeypatch.setattr(larger_corpus, "FEWEST", 4)
    assert larger_corpus.first_characters(str(tmp_path), 6) == "abc\nde"
    assert larger_corpus.first_characters(str(tmp_path / "b.txt"), 6) == "defg"


def wrote(share, held_out, train, dev):
    return larger_corpus.Copied(["a", "b"], mean_interval([share - 0.01, share, share + 0.01]), held_out, train, dev)


def test_the_verdicts_on_copying_follow_the_shares():
    honest, learned = wrote(0.03, 0.05, 2.6, 4.3), wrote(0.7, 0.0, 0.1, 10.0)
    assert verdicts(larger_corpus.judged({"whole": honest, "part": learned})) == ["holds"] * 3
    assert verdicts(larger_corpus.judged({"whole": learned, "part": honest})) == ["does not hold"] * 3


def test_a_run_with_a_break_is_the_run_without(quick, tmp_path):
    (outcome, shown), text = quick("larger-corpus"), tmp_path / "text.txt"
    same = [claim for claim in outcome.claims if claim.id == "001-3.1"]
    assert [claim.verdict for claim in same] == ["holds"] * 4
    assert same[0].statement.startswith("stopped at step 3 and resumed")
    assert {progress.what for progress in shown} == {"without a break", "with a break", "a part of the text"}
    text.write_text(larger_corpus.first_characters("python", 20_000), encoding="utf-8")
    config = larger_corpus.config_of(Setting(True, 0, tmp_path), text)
    list(larger_corpus.trained(config, tmp_path / "a", "a"))
    list(larger_corpus.trained(config.replace(seed=1), tmp_path / "b", "b", break_at=2))
    assert verdicts(larger_corpus.same_model(tmp_path / "a", tmp_path / "b"))[:2] == ["does not hold"] * 2

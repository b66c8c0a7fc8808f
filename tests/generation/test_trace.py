"""The numbers of a trace are those of a direct forward pass."""

from __future__ import annotations

import json
import math
import string

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.decode import Position
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig, adjust
from windtunnel.generation.trace import chunked, describe, generate, trace
from windtunnel.text.corpora.pets import next_token
from windtunnel.text.tokenizers import characters_tokenizer

CONTEXT = 12
SAMPLING = SamplingConfig(temperature=0.8, top_k=4)


def direct(model, ids):
    """The probabilities of the token after each of ids, (T, V), by one plain forward pass a token."""
    with torch.no_grad():
        logits = torch.stack([model(torch.tensor([ids[: i + 1][-CONTEXT:]]))[0, -1] for i in range(len(ids))])
    return logits.double(), logits.double().softmax(dim=-1).numpy()


@pytest.mark.parametrize("prompt", ["abc a", "abc ab cab cab cab"])
def test_every_probability_equals_a_direct_forward_pass(trained, prompt):
    record = trace(trained, Request(prompt, 15, SAMPLING, seed=2))
    end = trained.tokenizer.end_id
    ids = [end, *(t.id for t in record.tokens)]
    assert ids[1 : 1 + len(prompt)] == list(trained.tokenizer.encode(prompt))
    logits, p = direct(trained.model, ids)
    assert record.n_prompt == len(prompt) < len(record.tokens)
    for i, token in enumerate(record.tokens):
        assert token.probability_1 == pytest.approx(p[i, token.id], abs=1e-6)
        assert token.surprise_bits == pytest.approx(-math.log2(p[i, token.id]), abs=1e-4)
        assert [a.probability_1 for a in token.alternatives] == pytest.approx(sorted(p[i])[::-1], abs=1e-6)
        assert [a.id for a in token.alternatives][token.rank - 1] == token.id
        sampled = adjust(logits[i].numpy(), SAMPLING)
        if i < record.n_prompt:
            assert token.probability is None
            assert all(a.probability is None for a in token.alternatives)
        else:
            assert token.probability == pytest.approx(sampled[token.id], abs=1e-6)
            assert [a.probability for a in token.alternatives] == pytest.approx(
                [sampled[a.id] for a in token.alternatives], abs=1e-6
            )


def test_the_totals_are_those_of_the_whole_sequence(make):
    trained = make(vocab_size=64)  # more rows than tokens: the rows that no token uses have probability, too
    record = trace(trained, Request("abc a", 6, SAMPLING))
    _, p = direct(trained.model, [0, *(t.id for t in record.tokens)])
    given = [p[i, token.id] for i, token in enumerate(record.tokens)]
    assert record.total().bits == pytest.approx(-sum(np.log2(given)), abs=1e-4)
    assert record.total("prompt").perplexity == pytest.approx(np.exp(-np.log(given[:5]).mean()), rel=1e-4)
    assert record.total("continuation").bits + record.total("prompt").bits == pytest.approx(record.total().bits)
    sampled = math.prod(t.probability for t in record.tokens[5:])
    assert 2 ** -record.sampled_bits() == pytest.approx(sampled)


def test_running_text_has_no_probability_for_its_first_token(make):
    record = trace(make("text"), Request("abc", 3, SAMPLING))
    first, second = record.tokens[:2]
    assert (first.probability_1, first.rank, first.surprise_bits, first.alternatives) == (None, None, None, ())
    assert second.probability_1 is not None
    assert record.total("prompt").n_tokens == 2
    assert "first token has no probability" in record.note
    assert trace(make("text"), Request("a", 0, SAMPLING)).to_dict()["totals"]["all"] is None


def test_an_empty_prompt_begins_at_the_end_mark_and_the_text_ends_before_one(make):
    record = next(
        r for seed in range(99) if (r := trace(make(), Request("", 30, SAMPLING, seed))).tokens[-1].text == "<end>"
    )
    assert record.n_prompt == 0
    assert len(record.tokens) < 30
    assert len(record.text) == len(record.tokens) - 1
    assert all(t.probability is not None for t in record.tokens)


def test_the_note_says_when_the_window_has_slid(make):
    fits = trace(make("text"), Request("abc", CONTEXT - 2, SAMPLING))
    slid = trace(make("text"), Request("abc", CONTEXT - 1, SAMPLING))
    assert "sees only the last 12" not in fits.note
    assert "sees only the last 12" in slid.note


def test_streaming_gives_what_is_collected(make):
    stream = generate(make(), Request("abc", 9, SAMPLING, seed=4))
    assert (next(stream), next(stream), *stream) == trace(make(), Request("abc", 9, SAMPLING, seed=4)).tokens


def test_greedy_takes_rank_one_with_certainty_and_still_shows_what_the_model_believes(make):
    record = trace(make(), Request("abc", 9, SamplingConfig(temperature=0), seed=4))
    new = record.tokens[3:]
    assert all(t.rank == 1 and t.probability == 1 and 0 < t.probability_1 < 1 for t in new)


def test_a_trace_is_plain_json(make):
    record = trace(make(), Request("a\nb", 4, SAMPLING, seed=4, alternatives=2))
    data = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert data["sampling"] == {"temperature": 0.8, "top_k": 4, "top_p": None}
    assert (data["n_prompt"], data["seed"], data["run"], data["step"]) == (3, 4, "untrained", 40)
    assert data["tokens"][1]["text"] == "⏎"
    assert len(data["tokens"][3]["alternatives"]) == 2
    assert data["totals"]["all"]["n_tokens"] == len(data["tokens"])


def test_the_truth_stands_beside_belief(make):
    tokenizer = characters_tokenizer(string.ascii_letters + " .", end=True)
    trained = make(tokenizer=tokenizer)
    record = trace(trained, Request("He ca", 3, SAMPLING), lambda ids: next_token(ids, tokenizer))
    _, p = direct(trained.model, [0, *(t.id for t in record.tokens)])
    assert record.tokens[0].true_probability == pytest.approx(0.22)  # H, of He
    assert record.tokens[1].true_probability == pytest.approx(1.0)
    # After "He " comes c as in can (.25) or calls (.6 x .08), of the .7 without "and".
    assert record.tokens[3].true_probability == pytest.approx(0.7 * (0.25 + 0.6 * (0.08 + 0.08)))
    for i, token in enumerate(record.tokens[:5]):
        true = next_token([0, *(t.id for t in record.tokens[:i])], tokenizer)
        assert token.total_variation == pytest.approx(np.abs(p[i] - true).sum() / 2, abs=1e-6)
        assert [a.true_probability for a in token.alternatives] == [true[a.id] for a in token.alternatives]


def test_where_the_source_cannot_come_there_is_no_truth(make):
    record = trace(make(), Request("abc", 1, SAMPLING), lambda ids: np.zeros(6))
    assert all(t.true_probability is None and t.total_variation is None for t in record.tokens)


def test_errors_come_at_the_call_not_at_the_first_token(make):
    with pytest.raises(DataError, match="'z'"):
        generate(make(), Request("z", 1))
    with pytest.raises(ConfigError, match="-1"):
        Request("a", -1)


def test_positions_described_at_once_are_what_each_is_alone(trained):
    rng = np.random.default_rng(0)
    positions = [
        Position(int(i), rng.normal(size=6), p) for i, p in zip(rng.integers(0, 6, 9), rng.random((9, 6)), strict=True)
    ]
    alone = [token for position in positions for token in describe(trained.tokenizer, [position], 3)]
    assert list(describe(trained.tokenizer, positions, 3)) == alone
    assert len({token.surprise_bits for token in alone}) == 9


@pytest.mark.parametrize(("seconds", "most", "sizes"), [(0, 64, [1] * 7), (1000, 64, [1, 6]), (1000, 4, [1, 4, 2])])
def test_what_comes_together_is_all_that_came_in_its_order(seconds, most, sizes):
    lists = list(chunked(range(7), seconds, most))
    assert [len(some) for some in lists] == sizes
    assert [item for some in lists for item in some] == list(range(7))

"""Decoding with a cache equals the full forward pass, before and after the context limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation import decode as decoding
from windtunnel.generation.decode import beliefs, decode, forward, rows
from windtunnel.generation.prompt import prompt_ids, spell
from windtunnel.generation.sampling import SamplingConfig, adjust, choose, uniform
from windtunnel.generation.write import write_sample

CONTEXT = 12
WARM = SamplingConfig(temperature=1.5)


def slowly(model, ids, n_tokens, sampling, seed):
    """The readable twin: a full forward pass on the last context_length ids for every token."""
    ids, rows = list(ids), []
    for index in range(n_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([ids[-CONTEXT:]]))[0, -1].double().numpy()
        rows.append(logits)
        ids.append(choose(adjust(logits, sampling), uniform(seed, index)))
    return ids[-n_tokens:], np.array(rows)


@pytest.mark.parametrize("n_prompt", [1, 5, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_cached_decoding_equals_full_forward_passes_before_and_after_the_limit(trained, n_prompt):
    ids = np.random.default_rng(n_prompt).integers(0, 6, n_prompt).tolist()
    expected, rows = slowly(trained.model, ids, 20, WARM, seed=5)
    decoded = list(decode(trained.model, ids, 20, WARM, seed=5))
    assert [token.id for token in decoded] == expected
    assert len(set(expected)) > 1
    np.testing.assert_allclose(np.array([token.logits_V for token in decoded]), rows, rtol=0, atol=2e-5)


def test_up_to_the_limit_each_new_token_reads_one_position(make, monkeypatch):
    model, lengths = make().model, []
    monkeypatch.setattr(model, "forward", lambda ids, cache=None: (lengths.append(ids.shape[1]), real(ids, cache))[1])
    real = type(model).forward.__get__(model)
    list(decode(model, [1, 2, 3], 14, WARM, seed=0))
    assert lengths == [3] + [1] * 9 + [CONTEXT] * 4


def test_the_seed_decides_the_text_and_a_prefix_of_it_is_the_shorter_text(make):
    model = make().model
    texts = {seed: [t.id for t in decode(model, [0], 30, WARM, seed)] for seed in range(5)}
    assert texts[2] == [t.id for t in decode(model, [0], 30, WARM, 2)]
    assert len({tuple(text) for text in texts.values()}) == 5
    assert texts[2][:9] == [t.id for t in decode(model, [0], 9, WARM, 2)]


def test_decoding_leaves_the_global_random_numbers_alone(make):
    model = make().model
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    list(decode(model, [0], 5, WARM, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_decoding_stops_after_the_end_mark(make):
    model = make().model
    full = [t.id for t in decode(model, [0], 40, WARM, 1)]
    stop = full[4]
    assert [t.id for t in decode(model, [0], 40, WARM, 1, stop_id=stop)] == full[: full.index(stop) + 1]


def test_ids_that_no_token_has_are_never_drawn(make):
    trained = make(vocab_size=64)
    drawn = [t for seed in range(5) for t in decode(trained.model, [0], 30, WARM, seed, vocab_size=6)]
    assert max(t.id for t in drawn) < 6
    assert all(t.probabilities_V[6:].sum() == 0 and len(t.logits_V) == 64 for t in drawn)
    assert max(t.id for t in decode(trained.model, [0], 30, WARM, 0)) >= 6


def test_the_beliefs_about_a_long_text_are_those_of_the_sliding_window(trained):
    ids = np.random.default_rng(0).integers(0, 6, 2 * CONTEXT).tolist()
    rows = list(beliefs(trained.model, ids))
    assert len(rows) == len(ids)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(row, forward(trained.model, ids[: i + 1])[-1], rtol=0, atol=2e-5)


def test_reading_fills_the_callers_cache(make):
    model = make().model
    cache = model.new_cache(1, CONTEXT)
    rows(model, np.array([[1, 2, 3]]), cache)
    assert cache.length == 3
    np.testing.assert_allclose(rows(model, np.array([[4]]), cache)[0], forward(model, [1, 2, 3, 4])[-1], atol=2e-5)
    assert cache.length == 4


def test_a_cache_used_past_the_limit_would_be_wrong(make):
    """Why the window slides without it: positions and what the upper layers saw are both different."""
    model = make(position="rope").model
    ids = np.random.default_rng(0).integers(0, 6, CONTEXT + 1).tolist()
    cache = model.new_cache(1, CONTEXT + 1)
    rows(model, np.array([ids[:-1]]), cache)
    stale = decoding.forward(model, ids[-1:], cache)[-1]
    assert np.abs(stale - forward(model, ids)[-1]).max() > 1e-2


@pytest.mark.parametrize("unit", ["line", "file"])
def test_a_document_begins_with_the_end_mark(make, unit):
    tokenizer = make(unit).tokenizer
    assert prompt_ids(tokenizer, unit, "ab") == [tokenizer.end_id, *tokenizer.encode("ab")]
    assert prompt_ids(tokenizer, unit, "") == [tokenizer.end_id]


def test_running_text_begins_with_the_prompt_itself_so_an_empty_one_is_refused(make, bytes_model):
    tokenizer = make("text").tokenizer
    assert prompt_ids(tokenizer, "text", "ab") == list(tokenizer.encode("ab"))
    assert prompt_ids(bytes_model.tokenizer, "text", "a") == [ord("a") + 1]
    with pytest.raises(DataError, match=r"prompt is empty.*give at least one character"):
        prompt_ids(tokenizer, "text", "")


def test_a_prompt_with_an_unknown_character_says_which(make):
    with pytest.raises(DataError, match=r"'z'.*position 2"):
        prompt_ids(make().tokenizer, "line", "abz")


@pytest.mark.parametrize("text", ["naïve 日本\n🙂 end", "", "a\n\nb", "\n"])
def test_spelling_joins_to_the_text_and_shows_no_half_characters(bytes_model, text):
    tokenizer = bytes_model.tokenizer
    pieces = list(spell(tokenizer, [*tokenizer.encode(text), tokenizer.end_id]))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_spelling_ends_with_bytes_that_never_became_a_character(bytes_model):
    half = bytes_model.tokenizer.encode("aé")[:-1]
    assert "".join(spell(bytes_model.tokenizer, half)) == "a\ufffd"


def test_a_sample_of_documents_begins_another_after_each_and_changes_nothing(make):
    trained = make(sample_tokens=60, dropout=0.5)
    trained.model.train()
    state = torch.get_rng_state()
    text = write_sample(trained.model, trained.run)
    assert text == write_sample(trained.model, trained.run)
    assert trained.model.training
    assert torch.equal(state, torch.get_rng_state())
    assert "end" not in text
    assert len(set(text.split("\n"))) > 3
    assert 50 < len(text) <= 60


def test_a_sample_of_running_text_has_the_asked_length(make):
    trained = make("text", sample_tokens=25)
    assert len(write_sample(trained.model, trained.run)) == 25
    assert not trained.model.training


def test_a_model_without_a_causal_mask_is_asked_prefix_by_prefix_and_cannot_write(make):
    trained = make(causal=False)
    ids = [0, 1, 2, 1, 0]
    rows = list(beliefs(trained.model, ids))
    for end, row in enumerate(rows, start=1):
        np.testing.assert_array_equal(row, forward(trained.model, ids[:end])[-1])
    assert np.abs(forward(trained.model, ids)[0] - rows[0]).max() > 1e-3  # read at once it sees what is to come
    with pytest.raises(ConfigError, match="cannot write"):
        next(decode(trained.model, ids, 2, WARM, seed=0))
    assert write_sample(trained.model, trained.run) == "(no sample: a model without a causal mask cannot write)"

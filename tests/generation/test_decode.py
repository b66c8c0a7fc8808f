"""Decoding with a cache equals the full forward pass, before and after the context limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import Reader, decode
from windtunnel.generation.prompt import prompt_ids
from windtunnel.generation.sampling import SamplingConfig, adjust, choose, uniform
from windtunnel.generation.write import write_sample
from windtunnel.training import machine

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


def test_ids_that_no_token_has_are_never_drawn(make):
    trained = make(vocab_size=64)
    drawn = [t for seed in range(5) for t in decode(trained.model, [0], 30, WARM, seed, vocab_size=6)]
    assert max(t.id for t in drawn) < 6
    assert all(t.probabilities_V[6:].sum() == 0 and len(t.logits_V) == 64 for t in drawn)
    assert max(t.id for t in decode(trained.model, [0], 30, WARM, 0)) >= 6


def from_the_start(model, ids_BT):
    """The readable twin of a reader: the logits (B, V) of one plain forward pass on the last context_length ids."""
    with torch.no_grad():
        return model(torch.tensor(np.array(ids_BT)[:, -CONTEXT:]))[:, -1].double().numpy()


def test_the_next_logits_of_a_long_text_are_those_of_the_sliding_window(trained):
    ids = np.random.default_rng(0).integers(0, 6, 2 * CONTEXT).tolist()
    rows = list(Reader(trained.model).next_logits(ids))
    assert len(rows) == len(ids)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(row, from_the_start(trained.model, [ids[: i + 1]])[0], rtol=0, atol=2e-5)


def test_a_cache_used_past_the_limit_would_be_wrong(make):
    """Why the window slides without it: positions and what the upper layers saw are both different."""
    model = make(position="rope").model
    ids = np.random.default_rng(0).integers(0, 6, CONTEXT + 1)
    cache = model.new_cache(1, CONTEXT + 1)
    with torch.no_grad():
        model(torch.from_numpy(ids[None, :-1]), cache)
        stale = model(torch.from_numpy(ids[None, -1:]), cache)[:, -1].double().numpy()
    assert np.abs(stale - from_the_start(model, ids[None])).max() > 1e-2


@pytest.mark.parametrize("lengths", [[1] * 20, [3, 1, 4, 1, 1, 5, 2, 3], [11, 3, 1, 1], [30, 1, 2]])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("n_tokens", [None, 8])
def test_a_reader_gives_the_logits_of_a_pass_from_the_start_however_the_ids_come(trained, lengths, alike, n_tokens):
    rng = np.random.default_rng(1)
    reader, ids_BT = Reader(trained.model, n_tokens), np.empty((3, 0), dtype=np.int64)
    for index, length in enumerate(lengths):
        new_BT = rng.integers(0, 6, (3, length))
        new_BT = new_BT[:1].repeat(3, axis=0) if alike and index == 0 else new_BT
        ids_BT = np.hstack([ids_BT, new_BT])
        np.testing.assert_allclose(reader.read(new_BT), from_the_start(trained.model, ids_BT), rtol=0, atol=2e-5)


KEPT = [[0, 0, 2], [2, 1, 0], [1, 1], [0, 1, 1, 0, 0], [3], [0, 0]]


def keeps(reader, model, rows, n_first, n_vocab=6, from_the_start=from_the_start):
    """Read, keep and read again, each time against the kept rows read from the start; the largest difference."""
    rng = np.random.default_rng(0)
    ids_BT = rng.integers(0, n_vocab, (3, n_first))
    differences = [np.abs(reader.read(ids_BT) - from_the_start(model, ids_BT)).max()]
    for rows_B in rows:
        reader.keep(rows_B)
        new_BT = rng.integers(0, n_vocab, (len(rows_B), 1))
        ids_BT = np.hstack([ids_BT[rows_B], new_BT])
        differences.append(np.abs(reader.read(new_BT) - from_the_start(model, ids_BT)).max())
    return max(differences)


@pytest.mark.parametrize("n_first", [1, 4, CONTEXT - 2, CONTEXT + 3])
def test_kept_rows_go_on_as_if_read_from_the_start(trained, n_first):
    assert keeps(Reader(trained.model), trained.model, KEPT, n_first) < 2e-5


@pytest.mark.slow
@pytest.mark.skipif(not machine.has_compiler() or machine.device().type != "cpu", reason="needs a C++ compiler")
def test_kept_rows_of_a_compiled_step_go_on_as_if_read_from_the_start(make, monkeypatch, tmp_path):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    model = make(position="rope").model
    steps = Steps(model, compile=True)
    rows = [[0, 0, 2], [2, 1, 0], [2, 0, 0], [1, 1, 0, 2], [3, 3, 2, 1]]
    assert keeps(Reader(model, steps=steps), model, rows, 3) < 1e-4
    assert sorted(shape[0] for shape in steps.loaded) == [3, 4]


def test_a_reader_that_has_read_nothing_has_no_rows_to_keep(make):
    with pytest.raises(ValueError, match="before the first read"):
        Reader(make().model).keep([0, 0])


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
    rows = list(Reader(trained.model).next_logits(ids))
    for end, row in enumerate(rows, start=1):
        np.testing.assert_array_equal(row, from_the_start(trained.model, [ids[:end]])[0])
    with torch.no_grad():
        at_once = trained.model(torch.tensor([ids]))[0, 0].numpy()
    assert np.abs(at_once - rows[0]).max() > 1e-3  # read at once it sees what is to come
    with pytest.raises(ConfigError, match="cannot write"):
        next(decode(trained.model, ids, 2, WARM, seed=0))
    assert write_sample(trained.model, trained.run) == "(no sample: a model without a causal mask cannot write)"

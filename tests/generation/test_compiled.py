"""The one-token step, its stored weights and its compiled form equal the eager model; many sequences equal each one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import windtunnel
from windtunnel.errors import ConfigError
from windtunnel.generation import compiled
from windtunnel.generation.compiled import ONE_THREAD, OneToken, Steps, one_token, settle, step_key
from windtunnel.generation.decode import decode, decode_many
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig, adjust, best, ranking
from windtunnel.generation.trace import trace
from windtunnel.generation.weights import Rows, by_library, by_sums, read_as, store, weights_of, with_weights
from windtunnel.generation.write import write_samples
from windtunnel.models import TransformerConfig, build
from windtunnel.nn.linear import LARGE
from windtunnel.training import machine

WARM = SamplingConfig(temperature=1.5)
needs_compiler = pytest.mark.skipif(
    not machine.has_compiler() or machine.device().type != "cpu", reason="needs a C++ compiler"
)


def by_steps(model, ids_BT, capacity):
    """The logits (B, T, V) of `OneToken`, uncompiled, token by token."""
    cache = model.new_cache(len(ids_BT), capacity)
    step = model if isinstance(model, OneToken) else one_token(model)
    with torch.no_grad():
        rows = [
            step(ids_BT[:, t : t + 1], torch.arange(t + 1), list(cache.keys.unbind()), list(cache.values.unbind()))
            for t in range(ids_BT.shape[1])
        ]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_step_of_every_variant_gives_the_logits_of_the_eager_model(trained, batch):
    ids = torch.from_numpy(np.random.default_rng(batch).integers(0, 6, (batch, 12)))
    with torch.no_grad():
        expected = trained.model(ids)
    found = by_steps(trained.model, ids, capacity=12)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_what_stands_after_the_token_in_the_cache_is_not_seen(make):
    model = make(position="alibi").model
    cache = model.new_cache(1, 12)
    cache.keys.fill_(9.0)
    cache.values.fill_(9.0)
    with torch.no_grad():
        step = one_token(model)
        found = step(torch.tensor([[2]]), torch.arange(1), list(cache.keys.unbind()), list(cache.values.unbind()))
        torch.testing.assert_close(found, model(torch.tensor([[2]]))[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "tolerance"), [("bf16", 0.01), ("int8", 0.02)])
@pytest.mark.parametrize("batch", [1, 3])
def test_rounded_weights_give_nearly_the_same_logits(trained, kind, tolerance, batch):
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (batch, 12)))
    with torch.no_grad():
        expected = trained.model(ids)
    rounded = with_weights(trained.model, kind)
    error = (by_steps(rounded, ids, 12) - expected).square().mean().sqrt() / expected.std()
    assert 1e-5 < error < tolerance * (1 if batch == 1 else 3)
    assert weights_of(rounded) == kind
    assert weights_of(trained.model) == "fp32"


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("shape", [(1, 1, 30), (3, 1, 30), (1, 5, 30)])
def test_what_is_compiled_for_a_few_vectors_is_the_product_of_the_stored_weights(kind, shape):
    generator = torch.Generator().manual_seed(0)
    weight, _ = store(torch.randn(40, 30, generator=generator), kind)
    x = torch.randn(shape, generator=generator)
    torch.testing.assert_close(by_sums(x, weight), x @ weight.float().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_rows", [40, LARGE // 64])
def test_the_product_with_a_large_matrix_is_that_with_a_small_one(n_rows):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(9, 1, 64, generator=generator), torch.randn(n_rows, 64, generator=generator)
    torch.testing.assert_close(by_library(x, weight), x @ weight.T, rtol=1e-5, atol=1e-4)


def test_a_row_of_int8_is_off_by_half_a_step_at_most_and_zero_rows_stay_zero():
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    stored, scale = store(weight, "int8")
    assert stored.dtype == torch.int8
    assert stored.abs().amax(dim=1)[:3].tolist() == [127] * 3
    assert ((stored * scale[:, None] - weight).abs() <= scale[:, None] / 2 + 1e-7).all()
    assert not stored[3].any()


def test_float32_weights_are_shared_and_follow_the_model(make):
    model = make().model
    decoder = with_weights(model, "fp32")
    assert isinstance(decoder.head, Rows)
    assert decoder.head.weight.data_ptr() == model.embedding.weight.data_ptr()
    assert decoder.blocks[0].attention.qkv.weight.data_ptr() == model.blocks[0].attention.qkv.weight.data_ptr()
    assert model.head is None


def test_a_trace_records_its_weights_and_unknown_ones_are_refused(make):
    trained = make()
    assert trace(trained, Request("abc", 2, WARM)).weights == "fp32"
    assert trace(read_as(trained, "int8"), Request("abc", 2, WARM)).to_dict()["weights"] == "int8"
    with pytest.raises(ConfigError, match="one of fp32, bf16, int8; given 'int4'"):
        read_as(trained, "int4")


def test_many_sequences_are_each_what_its_seed_gives_alone_past_the_limit_too(make):
    model, seeds = make().model, [3, 4, 5, 6]
    many = list(decode_many(model, [1, 2, 3], 20, WARM, seeds))
    for row, seed in enumerate(seeds):
        alone = list(decode(model, [1, 2, 3], 20, WARM, seed))
        assert [new[row] for new, _, _ in many] == [token.id for token in alone]
        found, expected = [logits[row] for _, logits, _ in many], [t.logits_V for t in alone]
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("stop", [(), ("cc", "aca")])
def test_samples_are_the_texts_of_their_seeds(make, stop):
    trained = make()
    samples = write_samples(trained, Request("ab", 15, WARM, 7, stop=stop), 12)
    alone = [trace(trained, Request("ab", 15, WARM, seed, stop=stop)) for seed in range(7, 19)]
    assert [tuple(sample) for sample in samples] == [(one.text, one.finish) for one in alone]
    assert len({sample.text for sample in samples}) > 1
    assert {sample.finish for sample in samples} == {"stop", "length"}


def test_decoding_many_ends_with_the_last_text_that_does(make, monkeypatch):
    trained, lengths = make(), []
    monkeypatch.setattr(
        trained.model, "forward", lambda ids, cache=None: (lengths.append(len(ids)), real(ids, cache))[1]
    )
    real = type(trained.model).forward.__get__(trained.model)
    longest = max(len(trace(trained, Request("ab", 40, WARM, seed)).tokens) for seed in range(4)) - 2
    lengths.clear()
    write_samples(trained, Request("ab", 40, WARM), 4)
    assert 4 < len(lengths) == longest < 40


def test_the_best_of_a_large_vocabulary_are_the_first_of_its_ranking_with_equals():
    scores = np.random.default_rng(0).integers(0, 40, 3000).astype(float)
    few = np.full(3000, -np.inf)
    few[[2000, 70, 9, 500]] = [1, 3, 3, 2]
    for n in (0, 1, 6, 16, 17, 100, 374, 376, 3000, 4000):
        assert best(scores, n).tolist() == ranking(scores)[:n].tolist()
        assert best(few, n).tolist() == ranking(few)[:n].tolist()


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999999, 1.0])
def test_top_p_of_a_large_vocabulary_is_that_of_a_whole_sort(top_p):
    logits = np.random.default_rng(1).normal(0, 2, (2, 3000))
    for row, found in zip(logits, adjust(logits, SamplingConfig(top_p=top_p)), strict=True):
        p = adjust(row, SamplingConfig())
        order = ranking(p)
        kept = order[np.concatenate([[0.0], np.cumsum(p[order])[:-1]]) < top_p]
        assert np.flatnonzero(found).tolist() == sorted(kept.tolist())
        assert found.sum() == pytest.approx(1)


def test_a_step_is_known_by_shape_weights_and_settings_but_not_by_the_weights_values(make):
    model = make().model
    key = step_key(model, 1, 12)
    assert step_key(build(model.config, 99).eval(), 1, 12) == key
    others = [step_key(model, 2, 12), step_key(model, 1, 11), step_key(with_weights(model, "int8"), 1, 12)]
    others.append(step_key(make(position="rope").model, 1, 12))
    assert len({key, *others}) == 5


@pytest.mark.parametrize(("n_sequences", "threads"), [(1, 1), (ONE_THREAD, 2)])
def test_a_small_step_gets_one_thread_and_one_of_many_sequences_keeps_both(make, n_sequences, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        settle(make().model, n_sequences)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_without_a_compiler_or_for_an_mlp_decoding_is_eager_and_says_why(make, monkeypatch, tmp_path):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "has_compiler", lambda: False)
    model = make().model
    steps = Steps(model, compile=True)
    assert [t.id for t in decode(model, [1], 9, WARM, 0, steps=steps)] == [t.id for t in decode(model, [1], 9, WARM, 0)]
    assert "no C++ compiler" in steps.eager_because
    assert not list(tmp_path.iterdir())


@needs_compiler
def test_the_compiled_step_decodes_as_the_eager_one_and_is_found_on_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    config = TransformerConfig(
        vocab_size=40, context_length=16, n_layers=1, n_heads=2, n_kv_heads=1, d_model=32, position="rope", window=9
    )
    model = build(config, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    expected = list(decode(model, [1, 2, 3], 20, WARM, 5))
    waiting = Steps(model)
    list(decode(model, [1, 2, 3], 3, WARM, 5, steps=waiting))
    assert not waiting.loaded  # three tokens do not earn a compiler's half minute
    steps = Steps(model, compile=True)
    for again in (steps, Steps(model)):  # the second one finds what the first has made
        found = list(decode(model, [1, 2, 3], 20, WARM, 5, steps=again))
        assert len(again.loaded) == 1
        assert [token.id for token in found] == [token.id for token in expected]
        np.testing.assert_allclose([t.logits_V for t in found], [t.logits_V for t in expected], rtol=0, atol=1e-4)
    long = list(range(20))  # more than the window, so it is read eagerly
    ids = [[token.id for token in decode(model, long, 3, WARM, 5, steps=s)] for s in (steps, None)]
    assert ids[0] == ids[1]
    other = build(config, 1).eval()  # the same compiled step with other weights
    found, expected = (
        [t.logits_V for t in decode(other, [1], 9, WARM, 5, steps=s)] for s in (Steps(other), Steps(other, False))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert not np.array_equal(found, expected)  # or it was not the compiled one


@needs_compiler
def test_the_compiled_step_of_several_sequences_and_rounded_weights_decodes_as_the_eager_one(monkeypatch, tmp_path):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    config = TransformerConfig(vocab_size=40, context_length=16, n_layers=1, n_heads=2, d_model=32, norm="rms")
    model = with_weights(build(config, 0).eval(), "int8")
    steps = Steps(model, compile=True)
    found, expected = (
        [logits_BV for _, logits_BV, _ in decode_many(model, [1, 2], 9, WARM, [3, 4, 5], steps=s)]
        for s in (steps, None)
    )
    assert len(steps.loaded) == 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert not np.array_equal(found, expected)


@pytest.mark.parametrize("pattern", compiled.SOURCES)
def test_what_a_compiled_step_is_made_from_is_there(pattern):
    """A name that matches no file would leave it out of the key, and a step of older code would be taken."""
    assert list(Path(windtunnel.__file__).parent.glob(pattern))

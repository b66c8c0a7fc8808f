"""The rows 000-T1 and 000-T2a to c: their numbers, and verdicts that follow the numbers."""

import numpy as np
import pytest
import torch

from windtunnel.experiments import gpt2_kv_heads, gpt2_positions, gpt2_source, gpt2_windows
from windtunnel.experiments.speed import exponent, rates
from windtunnel.inspect.prefix_loss import both_losses
from windtunnel.inspect.speed import DECODED, decoding, peak_bytes, take_turns, training
from windtunnel.models import TransformerConfig, build
from windtunnel.nn import positions
from windtunnel.report.outcome import Claim

TINY = TransformerConfig(vocab_size=29, context_length=12, n_layers=2, n_heads=4, d_model=32, dropout=0.0)


def verdicts(claims):
    return [claim.verdict for claim in claims]


def claims_of(findings):
    return [finding for finding in findings if isinstance(finding, Claim)]


def large(config):
    """A model whose weights are large enough that it looks at some tokens more than at others."""
    model = build(config, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    return model


# ------------------------------------------------------------------------------------------------ what is measured


def test_bytes_are_those_held_at_once_without_what_was_there_before():
    given = torch.zeros(1000)

    def call():
        for _ in range(5):
            made = given.view(10, 100) + 1  # the old one is still there while a new one is made
        return made

    assert peak_bytes(call) == 2 * 4000
    assert peak_bytes(lambda: given.view(10, 100)) == 0
    assert peak_bytes(lambda: [given + 1 for _ in range(3)]) == 3 * 4000


def test_the_memory_of_a_gradient_counts():
    x = torch.zeros(1000, requires_grad=True)
    assert peak_bytes(lambda: torch.autograd.grad(x.exp().sum(), x)) >= 2 * 4000


def test_rivals_take_turns_and_the_first_turn_does_not_count():
    called = []
    seconds = take_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert called == ["a", "b"] * 4
    assert {name: len(own) for name, own in seconds.items()} == {"a": 3, "b": 3}


def test_rates_are_tokens_by_the_median_of_the_seconds():
    seconds = {"training": {100: {"a": [1.0, 2.0, 9.0]}}, "decoding": {100: {"a": [4.0]}}}
    assert rates(seconds, "training") == {"a": {100: 50.0}}
    assert rates(seconds, "decoding") == {"a": {100: DECODED / 4}}


def test_decoding_reads_after_what_is_in_the_cache():
    model, caches = build(TINY, 0), []
    make = model.new_cache
    model.new_cache = lambda *size: caches.append(make(*size)) or caches[-1]
    decoding(model, 12 - DECODED)()
    assert caches[0].length == 12
    assert len(training(model, 12)()) == len(list(model.parameters()))


def test_the_exponent_of_a_power_is_its_exponent():
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


# ------------------------------------------------------------------------------------------------ positions (T2a)


def test_rotary_positions_in_gpt2s_size():
    claim = gpt2_positions.parameters()
    assert (claim.verdict, claim.measured) == ("holds", "123,653,376, which is 786,432 fewer")


def test_what_rotations_do(monkeypatch):
    assert verdicts(gpt2_positions.rotations(n=200)) == ["holds"] * 3
    right = positions.rotation
    monkeypatch.setattr(positions, "rotation", lambda t, d: right(t**2 + 1, d))  # angles that grow with m²
    assert verdicts(gpt2_positions.rotations(n=200)) == ["does not hold", "holds", "does not hold"]


def test_the_verdicts_on_longer_windows_follow_the_losses():
    one = [2.0, 2.1, 2.05, 2.02]
    losses = {
        "learned": {1: one, 2: [], 4: []},
        "rope": {1: one, 2: [x + 0.5 for x in one], 4: [x + 1 for x in one]},
        "alibi": {1: one, 2: [x - 0.01 for x in one], 4: [2.5, 2.0, 1.9, 2.2]},
    }
    claims = claims_of(gpt2_positions.longer_windows(losses, 0.01))
    assert verdicts(claims) == ["holds", "does not hold", "does not hold", "holds", "undecided"]
    assert claims[0].values == {"refused": [2, 4]}
    readable = {"learned": losses["rope"]}
    assert claims_of(gpt2_positions.longer_windows(readable, 0.01))[0].verdict == "does not hold"


def test_learned_positions_end_and_the_table_says_so(quick):
    outcome = quick("gpt2-positions")[0]
    assert {row[0]: row[2] == row[3] == "cannot" for row in outcome.tables[-1].rows} == {
        "learned": True,
        "rope": False,
        "none": False,
    }


# ------------------------------------------------------------------------------------- key and value heads (T2b)


def test_the_sizes_of_grouped_queries():
    parameters, cache = gpt2_kv_heads.sizes()
    assert verdicts([parameters, cache]) == ["holds", "holds"]
    assert parameters.values["got"][4] == 114_990_336
    assert cache.values["bytes"] == {1: 3072, 2: 6144, 4: 12_288, 6: 18_432, 12: 36_864}


def test_grouped_queries_are_repeated_heads(monkeypatch):
    assert [claim.measured for claim in gpt2_kv_heads.equalities()] == ["exact"] * 3
    monkeypatch.setattr(
        gpt2_kv_heads, "repeated", lambda model: build(model.config.replace(n_kv_heads=8), 1).state_dict()
    )
    assert verdicts(gpt2_kv_heads.equalities()) == ["does not hold", "holds", "does not hold"]


def test_the_verdict_on_decoding_follows_the_seconds():
    def claim(many, one):
        return gpt2_kv_heads.faster({"decoding": {8: {"n_kv_heads=8": many, "n_kv_heads=1": one}}})

    assert claim([2.0, 2.1, 2.2], [1.0, 1.0, 1.0]).verdict == "holds"
    assert claim([1.0, 1.0, 1.0], [2.0, 2.1, 2.2]).verdict == "does not hold"
    assert claim([1.0, 2.0, 0.5], [1.0, 1.0, 1.0]).verdict == "undecided"


# ------------------------------------------------------------------------------------------------- windows (T2c)


def test_what_a_window_sees_and_does_not_change():
    assert verdicts(gpt2_windows.equalities()) == ["holds"] * 3
    claim = gpt2_windows.receptive_field()
    assert (claim.verdict, claim.values["seen"]) == ("holds", [5, 6, 7, 8, 9, 10, 11])
    assert gpt2_windows.receptive_field(2, 4, 10).values["seen"] == list(range(3, 10))


def test_the_verdicts_on_growth_follow_the_measurements():
    tokens = (1024, 2048, 4096)

    def measured(power):
        own = {n: [n**power * (1 + 0.01 * turn) for turn in range(3)] for n in tokens}
        square = {n: [float(n**2)] * 3 for n in tokens}
        return {"full": square, gpt2_windows.MASKED: square, "window 64": own}

    assert verdicts(gpt2_windows.growth(measured(1), measured(1))) == ["holds", "holds"]
    assert verdicts(gpt2_windows.growth(measured(2), measured(2))) == ["does not hold", "does not hold"]


def test_the_memory_of_a_window_grows_like_the_number_of_tokens():
    held = {
        way: [peak_bytes(gpt2_windows.forward_and_backward(way, n)) for n in (512, 1024, 2048)]
        for way in ("window 64", gpt2_windows.MASKED)
    }
    assert exponent((512, 1024, 2048), held["window 64"]) == pytest.approx(1, abs=0.08)
    assert exponent((512, 1024, 2048), held[gpt2_windows.MASKED]) == pytest.approx(2, abs=0.05)


# ------------------------------------------------------------------------------------------ the source (T1 and E5)


def test_the_flaws_by_their_numbers():
    claims = [
        *gpt2_source.sizes(), *gpt2_source.leaks(), *gpt2_source.masks(), *gpt2_source.details(),
    ]  # fmt: skip
    assert verdicts(claims) == ["holds"] * 11
    values = {name: value for claim in claims for name, value in claim.values.items()}
    assert values["gelu"] == pytest.approx(4.73e-4, abs=1e-6)
    assert 1e-6 < values["untrained"] < 1e-4
    assert values["on_padding"] == pytest.approx(1)
    assert "non-singleton dimension" in values["refused"]


def test_a_repaired_source_is_seen(monkeypatch):
    monkeypatch.setattr(gpt2_source, "SOURCE", {})
    assert verdicts(gpt2_source.leaks()) == ["holds", "does not hold"]
    assert list(gpt2_source.details())[1].verdict == "does not hold"


def test_a_causal_model_has_one_loss_and_a_leaking_one_has_two():
    ids = np.random.default_rng(0).integers(0, 29, (30, 13))
    asked = [(row, 1 + i % 12) for i, row in enumerate(ids)]
    whole, alone = both_losses(large(TINY), asked)
    assert whole == pytest.approx(alone, abs=1e-5)
    whole, alone = both_losses(large(TINY.replace(causal=False)), asked)
    assert abs(whole - alone) > 1e-2


def test_a_quick_run_judges_every_arm_and_decides_nothing(quick):
    outcome = quick("gpt2-source")[0]
    costs = [claim for claim in outcome.claims if claim.measured.startswith("undecided")]
    assert len(costs) == 2
    arms, _, writing, honest = outcome.tables
    assert [row[0] for row in arms.rows] == ["GPT-2", "no causal mask", "the source"]
    assert [row[-1] == "-" for row in writing.rows] == [False, True, True]  # nothing to write with
    assert honest.rows[0][1] == honest.rows[0][2]

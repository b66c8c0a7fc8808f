"""Sampling: logits -> probabilities -> one token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from windtunnel.config import parse
from windtunnel.errors import ConfigError
from windtunnel.generation.sampling import SamplingConfig, adjust, choose, log_softmax, ranking, softmax, uniform

LOGITS = np.log([0.1, 0.4, 0.2, 0.25, 0.05])


def test_without_settings_the_probabilities_are_the_models_own():
    np.testing.assert_allclose(adjust(LOGITS, SamplingConfig()), [0.1, 0.4, 0.2, 0.25, 0.05], rtol=1e-12)


def test_temperature_raises_probabilities_to_its_inverse_power():
    powers = np.array([0.1, 0.4, 0.2, 0.25, 0.05]) ** (1 / 0.8)
    expected = powers / powers.sum()
    np.testing.assert_allclose(adjust(LOGITS, SamplingConfig(temperature=0.8)), expected, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-5])
def test_temperature_zero_and_the_smallest_ones_take_the_most_probable(temperature):
    p = adjust(1e4 * LOGITS, SamplingConfig(temperature=temperature))
    np.testing.assert_allclose(p, [0, 1, 0, 0, 0], atol=1e-12)


def test_greedy_takes_the_first_of_equals():
    assert adjust([0.0, 2.0, 2.0], SamplingConfig(temperature=0)).tolist() == [0, 1, 0]


def test_top_k_keeps_exactly_k_also_among_equals():
    p = adjust([1.0, 1.0, 1.0, 1.0], SamplingConfig(top_k=3))
    np.testing.assert_allclose(p, [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(adjust(LOGITS, SamplingConfig(top_k=2)), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0])
    np.testing.assert_allclose(adjust(LOGITS, SamplingConfig(top_k=99)), softmax(LOGITS))


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, 1), (0.39, 1), (0.41, 2), (0.64, 2), (0.66, 3), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    p = adjust(LOGITS, SamplingConfig(top_p=top_p))
    assert np.count_nonzero(p) == kept
    assert set(np.flatnonzero(p)) == set(ranking(LOGITS)[:kept])


def test_top_p_counts_what_temperature_and_top_k_left():
    # Of .4 and .25 renormalised the first has .615: with top_k first, .6 needs one token; without, it needs two.
    assert np.count_nonzero(adjust(LOGITS, SamplingConfig(top_k=2, top_p=0.6))) == 1
    assert np.count_nonzero(adjust(LOGITS, SamplingConfig(top_p=0.6))) == 2
    # At temperature 0.5 the first has .571, at 1 it has .4.
    assert np.count_nonzero(adjust(LOGITS, SamplingConfig(temperature=0.5, top_p=0.5))) == 1
    assert np.count_nonzero(adjust(LOGITS, SamplingConfig(top_p=0.5))) == 2


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=40),
    st.floats(0, 5),
    st.none() | st.integers(1, 50),
    st.none() | st.floats(0.01, 1),
    st.integers(0, 2**40),
)
def test_whatever_the_settings_the_result_is_a_distribution_and_the_choice_is_in_it(logits, t, k, p, seed):
    config = SamplingConfig(temperature=t, top_k=k, top_p=p)
    probabilities = adjust(logits, config)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities.min() >= 0
    assert k is None or np.count_nonzero(probabilities) <= k
    for u in (0.0, uniform(seed, 0), 1 - 2**-53):
        assert probabilities[choose(probabilities, u)] > 0


def test_choose_is_the_inverse_of_the_cumulated_probabilities():
    p = np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    assert [choose(p, u) for u in (0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53)] == [1, 1, 3, 3, 4, 4]


def test_draws_follow_the_probabilities():
    p = np.array([0.1, 0.4, 0.2, 0.25, 0.05])
    drawn = np.bincount([choose(p, uniform(7, i)) for i in range(20_000)], minlength=5)
    assert chisquare(drawn, 20_000 * p).pvalue > 1e-3


def test_the_random_number_depends_on_seed_and_index_only():
    assert uniform(3, 5) == uniform(3, 5)
    assert len({uniform(seed, index) for seed in range(50) for index in range(50)}) == 2500
    assert all(0 <= uniform(seed, 0) < 1 for seed in range(1000))


def test_log_softmax_is_finite_where_the_probability_underflows():
    assert log_softmax([0.0, -2000.0])[1] == -2000.0
    assert softmax([0.0, -2000.0])[1] == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"topk": 3}],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        parse(SamplingConfig, wrong)

"""Parameters, lookups, losses and replays give the rows' numbers and agree with torch."""

import math

import pytest
import torch
from torch import nn

from windtunnel.errors import ConfigError
from windtunnel.inspect.explain_embedding import explain_embedding
from windtunnel.inspect.explain_loss import explain_loss, explain_row_network, parse_logits, parse_targets
from windtunnel.inspect.explain_parameters import network_parameters, parse_widths, run_parameters
from windtunnel.inspect.explain_replay import RowNetwork, replay, row_replay
from windtunnel.training.recipes import recipe


def test_parameters_of_the_network_by_term():
    found = network_parameters([236, 472, 472, 10], bias=False)
    assert [term.n_parameters for term in found.terms] == [111_392, 222_784, 4_720]
    assert found.n_parameters == found.n_counted == 338_896
    assert any("339,850" in note for note in found.notes)
    assert network_parameters([236, 472, 472, 10]).n_parameters == 339_850


def test_layers_of_unequal_width_cannot_share_a_bias():
    """Claim E18."""
    assert any("(10) and (4)" in note for note in network_parameters([6, 10, 4]).notes)
    assert not any("shapes" in note for note in network_parameters([6, 10, 10]).notes)


@pytest.mark.parametrize("name", ["tiny", "small", "gpt2"])
def test_parameters_of_a_recipe_with_the_numbers_put_in(name):
    found = run_parameters(name, recipe(name, ""))
    for term in found.terms:
        assert eval(term.substituted) == term.n_parameters, term  # noqa: S307
    assert found.n_parameters == found.n_counted
    assert any(line.startswith("optimizer.lr = ") for line in found.hyper)


def test_widths_are_told_from_names():
    assert parse_widths("236-472-10") == [236, 472, 10]
    assert parse_widths("names-1a2b3c") is None
    for wrong in ("236", "236-", "236-0-10", "9" * 5000 + "-1"):
        with pytest.raises(ConfigError, match="two or more widths"):
            parse_widths(wrong)


def test_a_lookup_takes_rows():
    found = explain_embedding("10x5", "1,3,5,7,9")
    assert found.shape == (5, 5)
    assert found.n_parameters == 50
    torch.manual_seed(42)
    assert torch.equal(torch.tensor(found.rows), nn.Embedding(10, 5).weight[[1, 3, 5, 7, 9]])
    assert found.one_hot_difference < 1e-6


@pytest.mark.parametrize(("ids", "words"), [("1,10", "no row 10"), ("-1", "does not count from the end")])
def test_an_id_outside_the_table_is_explained(ids, words):
    with pytest.raises(ConfigError, match=f"{words}.*'index out of range in self'"):
        explain_embedding("10x5", ids)


@pytest.mark.parametrize(
    ("table", "ids"), [("10", "1"), ("0x5", "0"), ("99999999x9999", "0"), ("9x5", "a"), ("9x5", "")]
)
def test_a_lookup_that_cannot_be_read(table, ids):
    with pytest.raises(ConfigError, match="expected"):
        explain_embedding(table, ids)


def test_the_loss_and_what_a_second_softmax_does():
    found = explain_loss([[2, 0, -1]], [0])
    assert (round(found.mean, 5), round(found.second_softmax, 5)) == (0.16985, 0.65785)
    assert found.mean == pytest.approx(found.torch_mean, abs=1e-12)
    assert "-ln 0.84379 = 0.16985" in found.rows[0].steps[-1]
    perfect = explain_loss([[1000, 0, 0]], [0])
    assert perfect.second_softmax == pytest.approx(perfect.floor)


def test_losses_agree_with_torch_where_probabilities_underflow():
    found = explain_loss([[800, -800.5, 3], [1, 2, 3]], [1, 0])
    assert found.rows[0].loss == 1600.5
    assert found.mean == pytest.approx(found.torch_mean)


WRONG_LOSSES = {
    "ragged": (([[1, 2], [1]], [0, 0]), "one length, given 2, 1"),
    "none": (([], []), "given none"),
    "target": (([[1, 2]], [2]), "target 2 is no column of the logits, which are 0 to 1"),
    "negative": (([[1, 2]], [-1]), "target -1"),
    "count": (([[1, 2]], [0, 1]), "1 rows and 2 targets"),
    "nan": (([[1, math.nan]], [0]), "finite"),
}


@pytest.mark.parametrize("case", WRONG_LOSSES)
def test_a_loss_that_cannot_be(case):
    given, words = WRONG_LOSSES[case]
    with pytest.raises(ConfigError, match=words):
        explain_loss(*given)


def test_logits_and_targets_are_read():
    assert parse_logits("2,0,-1; .5,1e1,0;") == [[2, 0, -1], [0.5, 10, 0]]
    assert parse_targets("0, 2") == [0, 2]
    for parse in (parse_logits, parse_targets):
        with pytest.raises(ConfigError, match="expected"):
            parse("1,x")


def test_the_rows_network_prints_both_numbers():
    """Claim E16: a clean run, and the fourth model built without reseeding."""
    assert sum(parameter.numel() for parameter in RowNetwork().parameters()) == 162
    assert explain_row_network(42).printed == 1.5464396476745605
    fourth = explain_row_network(42, 4)
    assert fourth.printed == 1.3744735717773438
    assert [round(x, 4) for x in fourth.rows[0].logits] == [0.3125, 0.0869, 0.2802, -0.1106]
    assert fourth.mean == pytest.approx(fourth.printed, abs=1e-6)


def test_a_printed_number_is_found_again():
    found = row_replay("1.3744735717773438")
    assert (found.found, found.draws, len(found.values)) == (4, 3 * 162, 4)
    assert found.expected_by_chance < 1e-4
    assert row_replay("1.5464396476745605").found == 1
    assert row_replay("1.3745").found == 4
    assert row_replay("1.3744735717773437", most=5).found == 4  # the same float32
    assert row_replay("1.3744735717773", most=5).found == 4
    assert row_replay("1.37447357177735", most=5).found is None
    assert row_replay("1.3744735717773438", seed=43, most=5).found is None


def test_replay_takes_any_build_and_leaves_the_generator_alone():
    torch.manual_seed(7)
    numbers = [torch.randn(()).item() for _ in range(9)]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found = replay(lambda: torch.randn(()).item(), 7, repr(numbers[8]), most=9)
    assert found.found == 9
    assert list(found.values) == numbers
    assert torch.equal(torch.random.get_rng_state(), before)
    assert replay(lambda: math.nan, 7, "1.5", most=3).found is None


@pytest.mark.parametrize("arguments", [("x", 42, 5), ("nan", 42, 5), ("1.5", -1, 5), ("1.5", 42, 0)])
def test_a_replay_that_cannot_be(arguments):
    with pytest.raises(ConfigError):
        row_replay(*arguments)

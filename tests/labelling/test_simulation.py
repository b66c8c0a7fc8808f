"""Simulated rounds: a strategy that helps is found, one that does not is not, and `auto` follows."""

from dataclasses import replace

import numpy as np
import pytest

from windtunnel.errors import ConfigError, DataError
from windtunnel.labelling.examples import Example
from windtunnel.labelling.features import vectors
from windtunnel.labelling.next import next_round, prepare, simulated
from windtunnel.labelling.simulation import Design, Simulation, design, encoded, simulate, verdicts
from windtunnel.labelling.strategies import STRATEGIES
from windtunnel.labelling.table import tables_of, tasks
from windtunnel.stats.intervals import mean_interval


def test_a_design_leaves_texts_to_choose_from():
    found = design(300, 5, 8)
    assert (found.held_out, found.batch, found.start, found.seeds) == (100, 11, 11, (0, 1, 2, 3, 4))
    assert found.sizes == tuple(11 * i for i in range(1, 10))
    assert design(90_000, 5, 4, budget=500).sizes[-1] == 500
    with pytest.raises(ConfigError, match="at least 40 labelled texts, given 39"):
        design(39, 5, 8)
    with pytest.raises(ConfigError, match="take fewer rounds"):
        design(60, 5, 30)
    with pytest.raises(ConfigError, match=r"budget of 9 labels at least.*budget 5"):
        design(600, 5, 8, budget=5)
    for margin in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            design(300, 5, 8, margin=margin)


def test_a_rare_kind_is_found_sooner_by_margin(texts):
    data = prepare(texts(900))
    found = simulated(data, seeds=8, rounds=4, budget=100)
    assert set(found.accuracy) == set(STRATEGIES)
    assert found.accuracy["margin"].shape == (8, 5)
    first = {tuple(own[:, 0]) for own in found.accuracy.values()}
    assert len(first) == 1  # the same held-out texts and first labels
    by_name = {verdict.arm: verdict for verdict in found.verdicts}
    assert by_name["margin"].word == "better"
    gain = found.scores["margin"] - found.scores["random"]
    assert by_name["margin"].difference.estimate == pytest.approx(gain.mean())
    assert found.best in [verdict.arm for verdict in found.verdicts if verdict.word == "better"]
    assert found.everything.estimate > 0.95


def test_random_does_not_beat_itself(texts):
    examples = texts(400)
    features, (labels, _) = vectors([e.text for e in examples], "words"), encoded([e.label for e in examples])
    arms = {"random": STRATEGIES["random"], **{f"again {i}": STRATEGIES["random"] for i in range(4)}}
    found = simulate(features, labels, design(400, 6, 3), arms)
    assert all(verdict.word != "better" for verdict in found.verdicts)
    assert found.best == "random"


def simulation(**gains):
    """Eight seeds with the gains given over random choice."""
    base = np.random.default_rng(0).normal(0.8, 0.02, (8, 3))
    wobble = np.linspace(-0.002, 0.002, 8)[:, None]
    accuracy = {"random": base, **{name: base + gain + wobble for name, gain in gains.items()}}
    shape = Design(tuple(range(8)), 2, 10, 10, 100)
    return Simulation(shape, accuracy, mean_interval([0.9] * 8), verdicts(accuracy, 0.01))


def test_the_best_is_one_that_is_shown_to_be_better():
    assert simulation(margin=0.03, diverse=0.02, entropy=-0.05).best == "margin"
    same = simulation(margin=0.002, diverse=-0.03)
    assert same.best == "random"
    assert [verdict.word for verdict in same.verdicts] == ["no difference that matters", "worse"]
    assert min(verdict.level for verdict in same.verdicts) == pytest.approx(0.025)  # Holm, for two


def test_auto_goes_by_the_simulation_or_falls_back(texts):
    found = next_round(prepare(texts(1800, labelled=0.5)), 20, seeds=8, rounds=4)
    assert found.strategy == found.simulation.best != "random"
    assert "shown to beat random" in found.why
    assert len({choice.example.id for choice in found.choices}) == 20
    assert all(not choice.example.answers for choice in found.choices)
    few = next_round(prepare(texts(200, labelled=0.1)), 20)
    assert (few.strategy, few.simulation, few.suspicions) == ("random", None, ())
    assert "too few for a simulation" in few.why
    none = next_round(prepare(texts(50, labelled=0.0)), 20)
    assert (none.strategy, none.agreement) == ("random", None)
    assert {choice.reason for choice in none.choices} == {"drawn at random"}


def test_nothing_learnable_is_nothing_to_choose(texts):
    rng = np.random.default_rng(1)
    noise = [type(e)(e.id, e.text, {"": str(rng.integers(2))} if e.answers else {}) for e in texts(500, labelled=0.6)]
    found = next_round(prepare(noise), 10, seeds=6, rounds=3)
    assert found.strategy == "random"
    assert "nothing is shown to beat it" in found.why


def test_a_draw_is_settled_not_labelled(texts):
    examples = texts(80, labelled=0.5)
    draw = replace(examples[0], answers={"ann": "sport", "bob": "ship"})
    found = next_round(prepare([draw, *examples[1:]]), 100, "random")
    assert draw.id not in {choice.example.id for choice in found.choices}
    assert [task.kind for task in tasks(found, 5) if task.example.id == draw.id] == ["settle"]
    assert len(tasks(found, 0)) == len(found.choices)


def test_tables_of_a_folder_in_their_order(tmp_path):
    for name in ("round-10.csv", "round-9.csv", "round-9.html", "more.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in tables_of(tmp_path)] == ["more.jsonl", "round-9.csv", "round-10.csv"]
    assert tables_of(tmp_path / "round-9.csv") == [tmp_path / "round-9.csv"]


def test_ids_are_no_labels(texts):
    ids = [Example(e.id, e.text, {"": e.id}) for e in texts(60)]
    with pytest.raises(DataError, match=r"60 different labels for 60 texts.*--label COLUMN"):
        prepare(ids)


def test_what_a_strategy_needs(texts):
    unlabelled = prepare(texts(60, labelled=0.0))
    with pytest.raises(ConfigError, match="margin asks a classifier"):
        next_round(unlabelled, 5, "margin")
    assert len(next_round(unlabelled, 5, "diverse").choices) == 5
    with pytest.raises(ConfigError, match="there is no strategy 'best'; expected auto, random"):
        next_round(unlabelled, 5, "best")
    with pytest.raises(ConfigError, match="two different labels at least, given none"):
        simulated(unlabelled, 4, 2)
    with pytest.raises(ConfigError, match="there is no strategy 'best'"):
        next_round(prepare(texts(60)), 5, "best")  # though nothing is left to choose
    whole = next_round(prepare(texts(60)), 5)
    assert (whole.choices, whole.why) == ((), "every text has an answer")

"""Rows 004-4.1 and 004-4.2 on shapes that a folder holds, small; and the numbers that they are made of."""

import itertools

import numpy as np
import pytest

from shapes import captioned_shapes
from windtunnel.experiments import EXPERIMENTS
from windtunnel.experiments.caption_hunt import hunt, margins
from windtunnel.experiments.clip_tour import right_among
from windtunnel.experiments.frame import Row, Setting, collect
from windtunnel.experiments.picture_search import more, shares
from windtunnel.inspect.closed_form import places_of
from windtunnel.inspect.zero_shot import class_words, labelled


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What both rows find of a folder of shapes, where no frozen net has been fetched."""
    folder = captioned_shapes(
        tmp_path_factory.mktemp("photos"),
        ["caption", "split"],
        lambda i, name: [[text, ("test", "dev", "train", "train")[i % 4]] for text in (name, f"a {name} on white")],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDTUNNEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {name: collect(EXPERIMENTS[name], Setting(True, 0, tmp_path_factory.mktemp(name), folder))
                for name in ("clip-tour", "caption-hunt")}  # fmt: skip


@pytest.mark.parametrize(("name", "row", "figures"), [
    ("clip-tour", "004-4.1", {"recall", "matrix", "classes"}),
    ("caption-hunt", "004-4.2", {"recall", "lengths"}),
])  # fmt: skip
def test_the_rows_run_small_on_a_folder_of_ones_own(outcomes, name, row, figures):
    outcome = outcomes[name]
    assert {claim.id for claim in outcome.claims} == {row}
    assert set(outcome.figures) == figures
    assert "efficientnet-lite0" in outcome.settings["not computed: ridge, frozen nets"]
    assert outcome.settings["pictures"] == {"train": 48, "dev": 24, "test": 24}
    first = outcome.tables[0]
    assert [cells[0] for cells in first.rows][:2] == ["two towers, trained", "text only, by letters"]
    assert [cells[1] for cells in first.rows][:2] == ["24", "24"]
    assert str(first.rows[1][2]).startswith("1.0")  # an alias holds the whole caption


def test_classes_are_judged_beside_what_needs_no_network(outcomes):
    (classes,) = [one for one in outcomes["clip-tour"].tables if one.title.startswith("Classes by words")]
    assert classes.title == "Classes by words: small, large"
    assert [row[0] for row in classes.rows] == [
        "zero-shot", "the nearest picture of training", "the commonest class",
        "the nearest caption of training by letters, asked with an alias", "zero-shot on these",
    ]  # fmt: skip


def test_what_a_search_found_says_how_many_captions_it_tried(outcomes):
    found = outcomes["caption-hunt"]
    (searched,) = [one for one in found.tables if one.title.startswith("Captions that a search found")]
    assert all(int(row[-1]) in (25, 49) for row in searched.rows)  # 1 + 3 places x 8 words, once or twice
    claims = {claim.statement: claim for claim in found.claims}
    assert any("the best of" in claim.measured for claim in claims.values())


def test_the_diagonal_over_all_draws_is_that_of_counting_them():
    scores = np.random.default_rng(0).normal(size=(7, 7)) + np.eye(7)
    counted = np.zeros(7)
    for i in range(7):
        draws = [[i, *some] for some in itertools.combinations([j for j in range(7) if j != i], 3)]
        counted[i] = np.mean([scores[i, some].argmax() == 0 for some in draws])
    np.testing.assert_allclose(right_among(scores, 4), counted)
    assert right_among(np.zeros((5, 5)), 3).tolist() == [0] * 5  # what is as near counts as nearer


def test_places_and_margins_are_by_their_definition():
    scores, targets = np.array([[0.3, 0.1, 0.2], [0.5, 0.5, 0.1]]), np.array([2, 0])
    assert places_of(scores, targets).tolist() == [2, 2]
    np.testing.assert_allclose(margins(scores, targets), [-0.1, 0.0])
    assert shares([np.eye(2), np.ones((2, 2))], 1).tolist() == [0.5, 0.5]


def test_classes_are_common_words_that_stand_apart():
    texts = ["flag of a", "flag of b", "flag of c", "red cat", "red dog", "red hen", "cat"]
    names = class_words(texts)
    assert names[:2] == ["flag", "red"]
    assert "cat" not in names  # red cat
    assert "of" not in names
    places, labels = labelled(["flag", "cat"], ["flag of d", "a dog", "cat on a flag", "the cat"])
    assert (places.tolist(), labels.tolist()) == ([0, 3], [0, 1])


def test_a_hunt_changes_the_word_that_helps_most_and_stops_where_none_does():
    """The score of a picture is the number of its words in the caption."""
    pictures = [{"red", "circle"}, {"red", "square"}, {"blue", "disc"}]

    def score(texts):
        return np.array([[len(own & {*text.split()}) for own in pictures] for text in texts], float)

    found = hunt(score, "red square", 2, ["red", "blue", "square", "disc"], rounds=5)
    assert found.text == "blue disc"
    assert found.tried == 1 + 3 * 8  # two words are changed, and then none
    assert (found.ranks, found.margins) == ((3, 1), (-2.0, 2.0))


def test_what_is_found_at_five_decides_nothing():
    zero, one = np.zeros(40), np.ones(40)
    claim = more(Row("r"), "s", {1: zero, 5: one}, {1: zero, 5: zero})
    assert claim.verdict == "does not hold"
    assert "at the first place not shown" in claim.measured
    assert more(Row("r"), "s", {1: one, 5: one}, {1: zero, 5: one}).verdict == "holds"

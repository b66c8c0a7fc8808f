"""How well a run finds pictures: ranks and recall by their definition, baselines, kinds of captions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from shapes import NAMES, shapes_corpus
from windtunnel.config import plain
from windtunnel.errors import DataError
from windtunnel.inspect import closed_form, retrieval
from windtunnel.inspect.captions import words
from windtunnel.inspect.closed_form import FORMS, KERNEL, RIDGE, RIDGE_STAGES, Seen, gaussian, solve
from windtunnel.inspect.retrieval import TEXTS, against, baselines, ranks_of, summarised
from windtunnel.inspect.zero_shot import ZeroShot
from windtunnel.models import CLIPConfig
from windtunnel.models.vision import ConvolutionalConfig
from windtunnel.report.retrieval import classes_table, first_lines, ranks_table, retrieval_dict, retrieval_lines
from windtunnel.stats.proportions import paired_proportions, wilson
from windtunnel.tasks import ContrastiveConfig
from windtunnel.text.store import TextConfig, prepare

ZERO_SHOT = ZeroShot(
    ("red", "blue"), 20, wilson(15, 20), wilson(9, 20), wilson(10, 20), paired_proportions(9, 6, 0, 5), 0.03125
)
SPLIT = TextConfig(dev_fraction=0.2, test_fraction=0.2, tokenizer="characters")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))


def task_of(**changes):
    store = prepare(shapes_corpus(**changes), SPLIT)
    model = CLIPConfig(vocab_size=store.tokenizer.vocab_size, picture=ConvolutionalConfig(size=16, widths=(8,)))
    return ContrastiveConfig().make(model, store)


def test_a_rank_counts_what_is_as_near_as_the_right_one_as_nearer():
    scores = np.array([[3.0, 1, 2], [5, 4, 4], [0, 9, 1]])
    assert ranks_of(scores).ranks.tolist() == [1, 3, 2]
    assert ranks_of(scores.T).ranks.tolist() == [2, 2, 3]  # captions by pictures
    assert ranks_of(np.ones((4, 4))).ranks.tolist() == [4] * 4
    assert ranks_of(np.full((4, 4), np.nan)).ranks.tolist() == [4] * 4


def test_recall_and_mean_rank_are_those_of_the_ranks():
    ranks = np.array([1, 1, 2, 5, 6, 10, 11, 40])
    found = summarised(ranks)
    assert [found.recall[k].estimate for k in (1, 5, 10)] == [2 / 8, 4 / 8, 6 / 8]
    assert found.recall[5].low < 0.5 < found.recall[5].high
    assert found.mean.estimate == ranks.mean()
    assert found.mean.low < ranks.mean() < found.mean.high
    assert found.median == 5.5


def test_a_baseline_is_compared_caption_by_caption():
    """8 captions only the model finds, none only the baseline: McNemar's p is 2 / 2^8."""
    n = 40
    ours, theirs = np.eye(n) + np.zeros((n, n)), np.eye(n)
    theirs[:8] = np.eye(n)[::-1][:8]
    found = against(ranks_of(ours), "other", "how", theirs, True)
    assert found.difference.estimate == pytest.approx(8 / n)
    assert found.difference.low > 0
    assert found.p == pytest.approx(2 / 2**8)
    assert against(ranks_of(ours), "other", "why not", None, True).ranks is None
    assert against(ranks_of(ours), "other", "other queries", theirs[:9, :9], False).difference is None


def test_text_only_asks_with_second_captions(monkeypatch):
    """Second captions that say the same find nearly all of them; ones about other things find no more than chance."""
    nets(monkeypatch, no_nets)
    for second, low, high in ((lambda name: f"a {name}!", 0.9, 1.0), (lambda name: "xyz", 0.0, 0.3)):
        task = task_of(captions=lambda name, second=second: [name, second(name)])
        found = {name: (how, scores) for name, how, scores, _ in baselines(task, task, "test")}
        how, scores = found[TEXTS]
        assert how.startswith(f"{task.n_units('test')} second captions")
        assert low <= (ranks_of(scores).ranks <= 1).mean() <= high
    task = task_of()
    found = {name: (how, scores) for name, how, scores, _ in baselines(task, task, "test")}
    assert found[TEXTS] == ("not computed, no picture has a second caption to ask with", None)


def no_nets(task, split):
    raise DataError("the model efficientnet-lite0 is not on this machine; get it")


def nets(monkeypatch, vectors):
    for module in (closed_form, retrieval):
        monkeypatch.setattr(module, "frozen_vectors", vectors)


def made(n, bent, seed=0):
    """Vectors of captions that are a linear map of those of pictures, or of their squares, with noise."""
    maps, draw = np.random.default_rng(1).normal(size=(12, 6)), np.random.default_rng(seed)
    seen = closed_form.unit(draw.normal(size=(n, 12 if not bent else 4)))
    read = seen @ maps if not bent else 9 * seen**2 @ maps[:4]
    return Seen(seen, closed_form.unit(read + 0.03 * draw.normal(size=(n, 6))))


def recall_at_1(scores):
    return (ranks_of(scores).ranks <= 1).mean()


def test_ridge_finds_what_is_linear_and_says_where_it_cannot(monkeypatch):
    task = task_of()
    parts = {name: made(task.n_units(name), False, seed) for seed, name in enumerate(("train", "dev", "test"))}
    nets(monkeypatch, lambda task, split: parts[split])
    *forms, _ = baselines(task, task, "test")
    assert [(name, paired) for name, _, _, paired in forms] == [(name, True) for name in FORMS]
    assert all("chosen on dev" in how for _, how, _, _ in forms)
    assert recall_at_1(forms[0][2]) > 0.9
    nets(monkeypatch, no_nets)
    (_, how, scores, _), _ = baselines(task, task, "test")
    assert scores is None
    assert "efficientnet-lite0 is not on this machine" in how


def test_a_kernel_finds_what_is_not_linear():
    """Captions by the squares of what pictures hold: no linear map can follow."""
    train, dev, test = (made(n, True, seed) for seed, n in enumerate((600, 100, 60)))
    linear, bent = (solve(name, train, dev) for name in (RIDGE_STAGES, KERNEL))
    assert recall_at_1(linear.scores(test)) < 0.1
    assert recall_at_1(bent.scores(test)) > 0.3


def test_dev_chooses_the_penalty():
    """Of more numbers than pictures, most of them noise, the smallest penalty fits the noise."""
    train, dev = (made(60, False, seed) for seed in range(2))
    noisy = [Seen(np.hstack([one.pictures, np.random.default_rng(i).normal(size=(60, 90))]), one.captions) for i, one in
             enumerate((train, dev))]  # fmt: skip
    clean, fitted = solve(RIDGE, train, dev), solve(RIDGE, *noisy)
    assert clean.penalty < fitted.penalty
    assert solve(RIDGE, noisy[0], None).penalty == closed_form.NO_DEV


def test_ridge_is_the_solution_of_its_equations():
    """X^T X w + penalty w = X^T y, with X standardised and y centred; a Gaussian of equal rows is 1."""
    train = made(50, False)
    form = solve(RIDGE_STAGES, train, None)
    x = closed_form.standardised(train.pictures, train.pictures)
    w = x.T @ form.weights
    penalty = form.penalty * (x**2).sum() / len(x)
    np.testing.assert_allclose(x.T @ x @ w + penalty * w, x.T @ (train.captions - train.captions.mean(0)), atol=1e-9)
    assert gaussian(np.eye(2), np.eye(2)) == pytest.approx(np.array([[1, np.exp(-2)], [np.exp(-2), 1]]))


def test_kinds_of_captions_are_told_by_the_words_of_training():
    task = task_of(captions=lambda name: [name if "cross" not in name else f"{name} number {NAMES.index(name)}"])
    ranks = np.arange(1, task.n_units("test") + 1)
    kinds = retrieval._kinds(task, task, "test", ranks)
    texts = list(task.store.documents("test"))
    new = [rank for rank, text in zip(ranks, texts, strict=True) if "number" in text]
    assert kinds["a word was not in training"].ranks.tolist() == new
    assert len(kinds["every word was in training"].ranks) == len(ranks) - len(new)
    assert words("Three fish, “in front” of (a) Coral!") == ["three", "fish", "in", "front", "of", "a", "coral"]


def test_the_report_says_recall_chance_and_what_was_not_computed():
    n, draw = 30, np.random.default_rng(3)
    scores = draw.normal(size=(n, n)) + np.eye(n)
    own = ranks_of(scores)
    rows = (
        against(own, RIDGE, "penalty 1", draw.normal(size=(n, n)), True),
        against(own, TEXTS, "not computed, no picture has a second caption to ask with", None, False),
    )
    kinds = {"a word was not in training": summarised(own.ranks[:9])}
    found = retrieval.JudgedRetrieval(
        "RUN", 7, "shapes", "dev", n, own, ranks_of(scores.T), rows, kinds, ZERO_SHOT, (0.2, 0.4)
    )
    (first,) = first_lines(found)
    assert first.startswith(f"recall@5 {own.recall[5].estimate:.3f} [")
    assert "by chance 0.167" in first
    table = ranks_table(found)
    assert [row[0] for row in table.rows] == [
        "a caption finds its picture", "a picture finds its caption", "- a word was not in training", RIDGE,
    ]  # fmt: skip
    classes = classes_table(found)
    assert classes.columns[0] == "class of 20 pictures, by a word of their captions"
    assert next(iter(classes.rows))[1].startswith("0.750 [")
    assert classes_table(replace(found, zero_shot=None)) is None
    said = "\n".join(retrieval_lines(found))
    assert "classes: red, blue, the commonest words" in said
    assert "McNemar's p .031" in said or "McNemar's p = .031" in said or "0.031" in said
    assert "text only: not computed, no picture has a second caption" in said
    assert "dev had a part in the model" in said
    assert "over 2 seeds: 0.3" in said
    data = json.loads(json.dumps(plain(retrieval_dict(found))))
    assert data["by_caption"]["ranks"] == own.ranks.tolist()
    assert data["against"][1]["ranks"] is None

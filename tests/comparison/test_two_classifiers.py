"""Two finished classifiers on the same texts: the numbers by hand, the words by the rules, other texts refused."""

import numpy as np
import pytest

from windtunnel.comparison.classifiers import compare_classifiers, predicted, word_of
from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.inspect.classification import classification_of, judge_classifier
from windtunnel.report.classifiers import between_dict, between_line, between_lines, between_table
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import mcnemar
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load

QUICK = [
    "model.trunk.n_layers=1", "model.trunk.d_model=16", "model.trunk.n_heads=2", "model.context_length=24",
    "train.batch_size=16", "train.eval_every=10", "train.threads=1", "train.precision=fp32", "optimizer.lr=0.01",
]  # fmt: skip


def config_of(folder, *changes):
    """240 texts, two thirds of which begin with a, as their label says."""
    path = folder / "texts.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{'aab'[i % 3]}{i}x\t{'aab'[i % 3]}\n" for i in range(240)))
    return override(recipe("auto", str(path)), [*QUICK, "text.tokenizer=characters", *changes])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A classifier that learned and one that did not, on one table, with other tokens."""
    folder = tmp_path_factory.mktemp("two")
    for name, changes in (("long", ["train.steps=40"]), ("short", ["train.steps=1", "text.tokenizer=bytes"])):
        list(fit(config_of(folder, *changes), folder / name))
    return folder / "long", folder / "short"


def test_the_numbers_are_those_of_each_alone_and_mcnemars(runs):
    found = compare_classifiers(*runs, "test")
    alone = [judge_classifier([run]) for run in runs]
    both, only, only_other, neither = found.table
    assert [s.estimate for s in found.scores] == [one.scores.accuracy.estimate for one in alone]
    assert found.macro_f1s == pytest.approx([one.scores.macro_f1.estimate for one in alone])
    assert found.n == both + only + only_other + neither == alone[0].n
    assert found.accuracy.estimate == pytest.approx((only - only_other) / found.n)
    assert found.macro_f1.estimate == pytest.approx(found.macro_f1s[0] - found.macro_f1s[1])
    assert found.macro_f1.low < found.macro_f1.estimate < found.macro_f1.high
    assert found.p == mcnemar(only, only_other).p < 0.05
    assert found.word == "better"
    assert compare_classifiers(*runs[::-1], "test").word == "worse"


def test_texts_are_paired_by_their_content(runs):
    a = predicted(runs[0], "test")
    trained = load(runs[0])
    task = classification_of(trained)
    documents = sorted(task.store.documents("test"))
    assert [text for text, _ in a.pairs] == documents
    assert a.sha256 == predicted(runs[1], "test").sha256 != predicted(runs[0], "dev").sha256


def test_other_test_texts_are_refused_with_what_differs(runs, tmp_path):
    other = config_of(tmp_path, "train.steps=1", "text.test_fraction=0.3")
    list(fit(other, tmp_path / "run"))
    with pytest.raises(
        ConfigError, match=r"test texts of the two runs are not the same \(SHA-256 .* are only in .*run, "
    ):
        compare_classifiers(runs[0], tmp_path / "run", "test")
    with pytest.raises(ConfigError, match="has nothing in a split 'exam'"):
        compare_classifiers(*runs, "exam")


@pytest.mark.parametrize(("difference", "p", "ends", "word"), [
    (9, 0.01, (0.01, 0.05), "better"),
    (-9, 0.01, (-0.05, -0.01), "worse"),
    (9, 0.2, (-0.01, 0.05), "undecided"),
    (1, 0.9, (-0.009, 0.009), "no difference that matters"),
    (9, 0.01, (0.001, 0.009), "no difference that matters"),
])  # fmt: skip
def test_the_words(difference, p, ends, word):
    assert word_of(difference, p, Estimate(np.mean(ends), *ends, 100, ""), 0.01) == word


def test_the_report_says_what_it_rests_on(runs):
    found = compare_classifiers(*runs, "dev")
    assert found.chosen_on_dev
    lines = between_lines(found)
    assert "this run alone on" in lines[0]
    assert found.sha256[:12] in lines[2]
    assert "the number to report is of --split test" in lines[-1]
    assert between_line(found) == between_dict(found)["verdict"]
    assert [row[0] for row in between_table(found).rows] == ["accuracy", "macro-F1"]

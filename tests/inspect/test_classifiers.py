"""A classifier beside its baselines: right numbers, right words, and what is said first."""

import numpy as np
import pytest

from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.inspect.baselines import FROZEN, MAJORITY, NGRAMS, PRIOR, Baseline, baselines
from windtunnel.inspect.classification import (
    Scores,
    against,
    classification_of,
    confusion_of,
    judge_classifier,
    macro_f1_of,
    occlusion,
    predict,
    predict_split,
    scores_of,
)
from windtunnel.report.classification import first_line, judged_dict, save_judged
from windtunnel.stats.paired import mcnemar
from windtunnel.text.features import linear_head
from windtunnel.training.data import train_texts
from windtunnel.training.frozen import features
from windtunnel.training.imports import continue_from
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load


def made(folder, texts, *, steps=60):
    """A run on these texts and labels."""
    path = folder / "texts.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in texts))
    config = recipe("auto", str(path))
    trunk = config.model.trunk.replace(n_layers=1, d_model=16, n_heads=2, dropout=0.0)
    train = config.train.replace(steps=steps, batch_size=16, eval_every=10, threads=1, precision="fp32")
    config = config.replace(
        model=config.model.replace(trunk=trunk, context_length=24),
        text=config.text.replace(tokenizer="characters"),
        optimizer=config.optimizer.replace(lr=0.01),
        train=train,
    )
    for _ in fit(config, folder / "seed-0"):
        pass
    return load(folder / "seed-0")


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """The label is the first letter; a third of the texts begins with b."""
    texts = [(f"{'aab'[i % 3]}{i}x", "aab"[i % 3]) for i in range(300)]
    return made(tmp_path_factory.mktemp("easy"), texts)


def test_scores_are_those_of_scikit_learn():
    from sklearn.metrics import f1_score, log_loss

    draw = np.random.default_rng(0)
    p, true = draw.dirichlet(np.ones(3), 80), draw.integers(0, 3, 80)
    found = scores_of(p, true)
    assert found.macro_f1.estimate == pytest.approx(f1_score(true, p.argmax(1), average="macro"))
    assert found.loss.estimate == pytest.approx(log_loss(true, p, labels=[0, 1, 2]))
    assert found.accuracy.estimate == pytest.approx((p.argmax(1) == true).mean())
    assert found.macro_f1.low < found.macro_f1.estimate < found.macro_f1.high


def test_a_label_that_no_text_has_or_is_given_is_left_out_as_by_scikit_learn():
    from sklearn.metrics import f1_score

    assert macro_f1_of(np.array([[3, 0], [0, 0]])) == 1
    true, said = [0, 0, 1, 1], [0, 1, 1, 1]
    assert macro_f1_of(confusion_of(np.array(said), np.array(true), 3)) == pytest.approx(
        f1_score(true, said, average="macro")
    )


@pytest.mark.parametrize(
    ("wrong", "theirs", "word"), [(0, 30, "better"), (30, 0, "worse"), (20, 22, "not shown to differ")]
)
def test_the_word_is_mcnemars(wrong, theirs, word):
    true = np.zeros(200, np.int64)
    ours, other = (np.eye(2)[np.r_[np.ones(n, int), np.zeros(200 - n, int)]] for n in (wrong, theirs))
    found = against(ours, Baseline("n-grams", other[::-1], ""), true)
    assert (found.word, found.p) == (word, mcnemar(theirs, wrong).p)
    assert found.difference.estimate == pytest.approx((theirs - wrong) / 200)


def test_baselines_know_train_alone(easy):
    task = classification_of(easy)
    found = {one.name: one for one in baselines(easy.run.config, task, "test")}
    assert list(found) == [MAJORITY, PRIOR, NGRAMS]
    train = task.store.splits["train"].labels
    assert found[PRIOR].probabilities[0, 0] == pytest.approx((train == 0).mean())
    assert found[MAJORITY].probabilities[0].tolist() == [1, 0]
    assert found[NGRAMS].how.startswith("1 to 5 characters, C ")
    true = task.store.splits["test"].labels
    assert (found[NGRAMS].probabilities.argmax(1) == true).mean() > 0.95


def test_the_features_that_a_classifier_began_with_are_what_a_frozen_one_is_made_of(easy, tmp_path):
    corpus = easy.run.config.corpus
    config = override(continue_from(easy.run.folder, corpus, "classify"), ["train.steps=0", "train.threads=1"])
    for name, one in (("stepped", config), ("frozen", override(config, ["train.freeze=all"]))):
        for _ in fit(one, tmp_path / name):
            pass
    stepped, frozen = load(tmp_path / "stepped"), load(tmp_path / "frozen")
    task = classification_of(stepped)
    for split in ("dev", "test"):
        *_, found = baselines(stepped.run.config, task, split)
        assert found.name == FROZEN
        np.testing.assert_allclose(found.probabilities, predict_split(frozen, task, split), atol=1e-4)


def test_of_a_sample_of_the_texts_a_frozen_one_and_its_baselines_learn_the_same(easy, tmp_path):
    corpus = easy.run.config.corpus
    config = override(continue_from(easy.run.folder, corpus, "classify"), ["train.threads=1", "train.n_examples=41"])
    told = [*fit(override(config, ["train.freeze=all"]), tmp_path / "frozen")]
    assert any("its features of 41 texts were computed once" in str(event) for event in told)
    frozen = load(tmp_path / "frozen")
    task = classification_of(frozen)
    chosen = train_texts(config, task)
    assert len({*chosen}) == 41
    labels = task.store.splits["train"].labels[chosen]
    *_, found = baselines(override(frozen.run.config, ["train.freeze=none"]), task, "test")
    np.testing.assert_allclose(found.probabilities, predict_split(frozen, task, "test"), atol=1e-4)
    _, prior, *_ = baselines(frozen.run.config, task, "test")
    assert prior.probabilities[0, 0] == pytest.approx((labels == 0).mean())
    weights, *_ = linear_head(
        features(frozen.model, task, "train")[chosen], labels, features(frozen.model, task, "dev"),
        task.store.splits["dev"].labels, 2,
    )  # fmt: skip
    np.testing.assert_allclose(frozen.model.head.weight.detach(), weights, rtol=1e-4, atol=1e-5)


def test_a_classifier_that_only_equals_its_baseline_says_so_first(easy, tmp_path):
    found = judge_classifier([easy.run.folder])
    said = predict_split(easy, classification_of(easy), "test")
    assert found.n == len(said) == found.confusion.sum() == 60
    assert found.scores.accuracy.estimate == found.confusion.trace() / 60 > 0.95
    assert not found.beats
    assert first_line(found).startswith("does not beat its baselines: test accuracy")
    assert "not shown to differ from TF-IDF" in first_line(found)
    assert len(found.mistakes) == 60 - found.confusion.trace()
    files = save_judged(found, tmp_path / "judged")
    assert "does not beat its baselines" in files[-1].read_text()
    assert judged_dict(found)["beats_baselines"] is False


def test_one_that_learned_what_n_grams_cannot_say_beats_them(easy, tmp_path):
    found = judge_classifier([easy.run.folder])
    worse = [against(np.eye(2)[np.zeros(60, int)], Baseline("x", np.eye(2)[np.ones(60, int)], ""), np.zeros(60, int))]
    line = first_line(type(found)(**{**vars(found), "against": tuple(worse)}))
    assert line.startswith("beats its baselines: test accuracy")


def test_the_page_holds_texts_as_texts(tmp_path):
    texts = [(f"<b>{'ab'[i * i % 7 % 2]}{i}", "<script>" if i % 3 else "fine") for i in range(90)]
    trained = made(tmp_path, texts, steps=1)
    found = judge_classifier([trained.run.folder])
    page = save_judged(found, tmp_path / "judged")[-1].read_text()
    assert "<h1>A classifier beside its baselines</h1>" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script>a" not in page


def test_texts_are_classified_as_the_split_was(easy):
    task = classification_of(easy)
    texts = list(task.store.documents("test"))
    np.testing.assert_allclose(predict(easy, texts, at_once=7), predict_split(easy, task, "test"), atol=1e-5)


def test_what_matters_is_the_first_letter(easy):
    drops = occlusion(easy, "b4567")
    assert [part for part, _ in drops] == list("b4567")
    assert max(drops, key=lambda one: one[1])[0] == "b"
    without, whole = predict(easy, ["4567", "b4567"])
    assert drops[0][1] == pytest.approx(np.log(whole[1] / without[1]), rel=1e-4)
    assert occlusion(easy, "b") == []


def test_another_kind_of_run_is_refused(tmp_path):
    from windtunnel.models import TransformerConfig
    from windtunnel.text.store import TextConfig
    from windtunnel.training.run_config import RunConfig, TrainConfig

    (tmp_path / "a.txt").write_text("abc\n" * 200)
    model = TransformerConfig(context_length=4, n_layers=1, n_heads=1, d_model=4)
    train = TrainConfig(steps=0, threads=1, sample_tokens=0)
    for _ in fit(
        RunConfig(corpus=str(tmp_path / "a.txt"), text=TextConfig(), model=model, train=train), tmp_path / "run"
    ):
        pass
    with pytest.raises(ConfigError, match="trained for language, and has no labels"):
        judge_classifier([tmp_path / "run"])
    assert isinstance(scores_of(np.eye(2), np.array([0, 1])), Scores)

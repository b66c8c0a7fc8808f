"""Training classifiers: scores, the best checkpoint, frozen parts, a solved head, the trunk of another run."""

import csv
import random

import numpy as np
import pytest
import torch

from windtunnel.config import override
from windtunnel.errors import ConfigError, DataError
from windtunnel.models import MLPConfig, TransformerConfig
from windtunnel.tasks.classification import text_rows
from windtunnel.tasks.task import macro_f1
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.text.features import linear_head
from windtunnel.text.store import TextConfig
from windtunnel.training import frozen
from windtunnel.training.checkpoint import checkpoints
from windtunnel.training.data import open_store, open_task
from windtunnel.training.evaluate import evaluate, unit_sums
from windtunnel.training.events import Evaluation, Started, Step
from windtunnel.training.imports import continue_from
from windtunnel.training.loop import fit as train
from windtunnel.training.loop import resume
from windtunnel.training.recipes import recipe
from windtunnel.training.run import best_step, create_run, load, open_run, resolve
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.vectors import text_vectors


def table(folder, n=240, heads=("text", "label")):
    """Made-up texts of 2 to 5 words; the label is a word that only one of two kinds of texts has."""
    draw, path = random.Random(0), folder / "texts.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        for i in range(n):
            words = [*draw.choices(["red", "green", "blue"], k=draw.randint(1, 4)), ("up", "down", "down")[i % 3]]
            draw.shuffle(words)
            writer.writerow([" ".join(words) + f" {i}", ("rise", "fall", "fall")[i % 3]])
    return str(path)


def config_of(folder, *changes):
    config = recipe("auto", table(folder))
    small = ["model.trunk.n_layers=1", "model.trunk.d_model=16", "model.trunk.n_heads=2", "model.context_length=40"]
    quick = ["train.steps=40", "train.batch_size=16", "train.eval_every=5", "train.threads=1", "optimizer.lr=0.01"]
    return override(config, [*small, *quick, "text.tokenizer=characters", "train.precision=fp32", *changes])


def events_of(config, folder):
    return list(train(config, folder))


def test_a_table_of_texts_and_labels_trains_a_classifier(tmp_path):
    config = config_of(tmp_path)
    assert config.task.kind == "classification"
    scores = [e.scores for e in events_of(config, tmp_path / "run") if isinstance(e, Evaluation)]
    assert list(scores[0]) == ["accuracy", "loss", "macro_f1"]
    assert scores[-1]["accuracy"] > 0.9
    trained = load(tmp_path / "run")
    task = open_task(trained.run.config, trained.run.store())
    found = evaluate(trained.model, task, "test", 0)
    logits, labels = [], []
    for batch in task.examples("test").sweep(7):
        logits.append(trained.model(**batch.inputs)[:, 0])
        labels.append(batch.targets[:, 0])
    from sklearn.metrics import accuracy_score, f1_score

    said, true = torch.cat(logits).argmax(1), torch.cat(labels)
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert found.scores["macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    sums = unit_sums(trained.model, task, "test")
    assert sums["right"].sum() == (said == true).sum()


def test_macro_f1_of_columns_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    true, said = draw.integers(0, 4, 50), draw.integers(0, 3, 50)
    counts = [[((true == k) & (said == k)).sum() for k in range(4)], [(said == k).sum() for k in range(4)],
              [(true == k).sum() for k in range(4)]]  # fmt: skip
    sums = dict(zip(macro_f1(4).columns, map(float, np.concatenate(counts)), strict=True))
    assert macro_f1(4).score(sums) == pytest.approx(f1_score(true, said, average="macro"))
    one_more = {name: sums.get(name, 0.0) for name in macro_f1(5).columns}
    assert macro_f1(5).score(one_more) == macro_f1(4).score(sums)


def test_the_model_is_the_checkpoint_that_was_best_on_dev(tmp_path):
    config = config_of(tmp_path, "optimizer.lr=0.3", "train.explode=1000", "train.clip=none")  # it gets worse again
    found = [e for e in events_of(config, tmp_path / "run") if isinstance(e, Evaluation)]
    best = max(found, key=lambda e: (e.scores["accuracy"], -e.loss, -e.step))
    run = open_run(tmp_path / "run")
    assert best_step(run) == best.step < 40
    trained = load(tmp_path / "run")
    assert trained.step == best.step
    task = open_task(run.config, run.store())
    assert evaluate(trained.model, task, "dev", 0).scores["accuracy"] == best.scores["accuracy"]
    assert {step for step, _ in checkpoints(run.folder)} == {best.step, 40}


def trunk_run(folder):
    """A language model, not trained, with the characters of the table."""
    model = TransformerConfig(context_length=40, n_layers=2, n_heads=2, d_model=16, dropout=0.0, tie_embeddings=False)
    config = RunConfig(
        corpus=table(folder), text=TextConfig(tokenizer="characters"), model=model,
        train=TrainConfig(steps=0, threads=1, sample_tokens=0),
    )  # fmt: skip
    events_of(config, folder / "trunk")
    return folder / "trunk"


def test_a_classifier_begins_with_the_trunk_of_a_run_and_a_head_of_its_own(tmp_path):
    trunk = trunk_run(tmp_path)
    config = override(continue_from(trunk, table(tmp_path)), ["train.steps=0", "train.threads=1"])
    assert config.start.part == "trunk"
    assert config.task.kind == "classification"
    events_of(config, tmp_path / "run")
    theirs, ours = load(trunk).model.state_dict(), load(tmp_path / "run").model.state_dict()
    assert ours.keys() == {f"trunk.{n}" for n in theirs if not n.startswith("head.")} | {"head.weight", "head.bias"}
    assert all(torch.equal(ours[f"trunk.{n}"], t) for n, t in theirs.items() if not n.startswith("head."))


def test_a_whole_classifier_goes_on_where_it_was(tmp_path):
    events_of(config_of(tmp_path, "train.steps=5"), tmp_path / "run")
    config = override(continue_from(tmp_path / "run", table(tmp_path)), ["train.steps=0", "train.threads=1"])
    assert config.start.part == "all"
    events_of(config, tmp_path / "more")
    one, other = (load(tmp_path / name).model.state_dict() for name in ("run", "more"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("what", "moved"), [("embeddings", ["trunk.blocks.0", "trunk.blocks.1", "head"]),
                                             ("1", ["trunk.blocks.1", "head"]), ("2", ["head"])])  # fmt: skip
def test_frozen_parameters_stay_and_the_others_move(tmp_path, what, moved):
    config = config_of(tmp_path, "train.steps=3", f"train.freeze={what}", "model.trunk.n_layers=2", "train.choose=last")
    before = resolve(config, open_store(config)).model.build(0).state_dict()
    events_of(config, tmp_path / "run")
    after = load(tmp_path / "run").model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(tuple(moved)) or name == "trunk.norm.weight" for name in changed)
    assert all(any(name.startswith(start) for name in changed) for start in moved)


@pytest.mark.parametrize(("changes", "factor_of"), [
    (["optimizer.trunk_factor=0.1"], {"trunk.": 0.1, "head.": 1}),
    (["optimizer.layer_decay=0.5"], {"trunk.embedding.": 0.125, "trunk.position.": 0.125, "trunk.blocks.0.": 0.25,
                                     "trunk.blocks.1.": 0.5, "trunk.norm.": 1, "head.": 1}),
    (["optimizer.trunk_factor=0.5", "optimizer.layer_decay=0.1"], {"trunk.embedding.": 5e-4, "trunk.position.": 5e-4,
                                     "trunk.blocks.0.": 5e-3, "trunk.blocks.1.": 0.05, "trunk.norm.": 0.5, "head.": 1}),
])  # fmt: skip
def test_in_one_step_every_parameter_moves_at_the_rate_of_its_part(tmp_path, changes, factor_of):
    """Adam's first step moves a weight by its rate, so a group that the optimizer was not given would be seen."""
    plain = ["train.steps=1", "schedule.warmup=0", "optimizer.weight_decay=0", "optimizer.epsilon=1e-20",
             "model.trunk.n_layers=2", "train.choose=last"]  # fmt: skip
    config = config_of(tmp_path, *plain, *changes)
    before = resolve(config, open_store(config)).model.build(0).state_dict()
    events = events_of(config, tmp_path / "run")
    after = load(tmp_path / "run").model.state_dict()
    found = {name: (after[name] - before[name]).abs().max().item() for name in before}
    wanted = {name: 0.01 * f for name in before for start, f in factor_of.items() if name.startswith(start)}
    assert found == pytest.approx(wanted, rel=1e-2, abs=1e-7)
    note = next(event.note for event in events if isinstance(event, Started))
    sizes = {start: sum(t.numel() for name, t in before.items() if name.startswith(start)) for start in factor_of}
    rates = {f: [s for s in factor_of if factor_of[s] == f] for f in factor_of.values()}
    said = [f"{0.01 * f:.3g} ({sum(sizes[s] for s in own):,} parameters)" for f, own in rates.items()]
    assert note.startswith("peak learning rates: ")
    assert all(one in note for one in said), note
    assert "head" in note.partition(";")[0]


def test_parts_with_rates_of_their_own_go_on_as_if_never_stopped(tmp_path):
    config = config_of(tmp_path, "train.steps=10", "optimizer.trunk_factor=0.3", "train.choose=last")
    compare_with_stopped(config, tmp_path)


def test_a_run_with_frozen_parts_goes_on_as_if_it_was_never_stopped(tmp_path):
    config = config_of(tmp_path, "train.steps=10", "train.freeze=1", "model.trunk.n_layers=2", "train.choose=last")
    compare_with_stopped(config, tmp_path)


def compare_with_stopped(config, tmp_path):
    """A run equals, bit for bit, one that was stopped after six steps and resumed."""
    events_of(config, tmp_path / "whole")
    done, store = [], open_store(config)
    create_run(tmp_path / "cut", resolve(config, store), store)
    for event in resume(tmp_path / "cut", should_stop=lambda: len(done) >= 6):  # noqa: B023
        done += [event] if isinstance(event, Step) else []
    for _ in resume(tmp_path / "cut"):
        pass
    one, other = (load(tmp_path / name).model.state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_on_a_frozen_trunk_the_head_is_solved_and_the_features_are_kept(tmp_path, monkeypatch):
    config = config_of(tmp_path, "train.freeze=all")
    events = events_of(config, tmp_path / "run")
    note = next(e.note for e in events if isinstance(e, Started))
    assert "the head was solved to convergence" in note
    trained = load(tmp_path / "run")
    before = trained.run.config.model.build(0).state_dict()
    after = trained.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("trunk."))
    task = open_task(trained.run.config, trained.run.store())
    vectors = frozen.features(trained.model, task, "train")
    logits = torch.from_numpy(vectors).float() @ after["head.weight"].T + after["head.bias"]
    for batch in task.examples("train").sweep(9):
        rows = batch.units[:, 0]
        torch.testing.assert_close(trained.model(**batch.inputs)[:, 0], logits[rows], rtol=1e-3, atol=1e-3)
    with monkeypatch.context() as without:
        without.setattr(type(trained.model), "pooled", None)
        assert np.array_equal(frozen.features(trained.model, task, "train"), vectors)  # from the cache
    for file in (cache_folder() / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-8])
    assert np.array_equal(frozen.features(trained.model, task, "train"), vectors)  # computed again


def test_a_solved_head_is_where_no_step_helps():
    """For two labels and for three, on features of any scale."""
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    x = draw.normal(5, [0.1, 1, 30], (200, 3))
    for n in (2, 3):
        y = (10 * x[:, 0] + draw.normal(size=200) > 50).astype(np.int64) + (n == 3) * (x[:, 1] > 6)
        weights, biases, _ = linear_head(x, y, x[:0], y[:0], n)
        logits = x @ weights.T + biases
        ours = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        scaled = (x - x.mean(0)) / x.std(0)
        theirs = LogisticRegression(C=1.0, max_iter=5000, tol=1e-9).fit(scaled, y).predict_proba(scaled)
        assert np.abs(ours - theirs).max() < 1e-3


def test_a_label_that_train_lacks_is_improbable():
    x = np.array([[0.0], [1.0], [0.1], [0.9]])
    weights, biases, _ = linear_head(x, np.array([0, 2, 0, 2]), x[:0], np.zeros(0, np.int64), 3)
    assert ((x @ weights.T + biases).argmax(1) == [0, 2, 0, 2]).all()
    with pytest.raises(DataError, match="one label"):
        linear_head(x, np.zeros(4, np.int64), x[:0], np.zeros(0, np.int64), 3)


@pytest.mark.parametrize(("changes", "message"), [
    (["model.n_labels=5"], r"model\.n_labels is 5, and the corpus has 2 labels"),
    (["task.kind=language"], r"predicts labels"),
    (["task.kind=translation"], r"predicts labels"),
    (["train.freeze=7"], r"this model has 1; give at most"),
    (["optimizer.trunk_factor=0.1", "optimizer.name=muon"], r"trunk_factor=0\.1 is for adamw and sgd: muon has rates"),
    (["optimizer.layer_decay=0.9", "train.freeze=all"], r"layer_decay=0\.9 has no effect with train\.freeze=all"),
    (["optimizer.trunk_factor=0"], r"optimizer\.trunk_factor: input should be greater than 0, given 0"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        events_of(config_of(tmp_path, *changes), tmp_path / "run")


@pytest.mark.parametrize(("family", "changes", "message"), [
    (TransformerConfig(), ["optimizer.trunk_factor=0.1"], r"with a trunk and a head, .*and this is a transformer"),
    (MLPConfig(), ["optimizer.layer_decay=0.9"], r"one stack of layers, and this mlp has no layers"),
])  # fmt: skip
def test_rates_of_parts_that_a_model_lacks_are_refused(family, changes, message):
    config = override(recipe("tiny", "names").replace(model=family), changes)
    with pytest.raises(ConfigError, match=message):
        resolve(config, open_store(config))


def test_a_corpus_without_labels_is_refused(tmp_path):
    config = recipe("classify", "names")
    with pytest.raises(ConfigError, match="fields text and label, and names has text"):
        resolve(config, open_store(config))
    config = config_of(tmp_path).replace(model=TransformerConfig())
    with pytest.raises(ConfigError, match="needs a model of the family classifier"):
        resolve(config, open_store(config))
    path = tmp_path / "same.tsv"
    path.write_text("text\tlabel\n" + "".join(f"text {i}\tgood\n" for i in range(60)))
    assert open_corpus(str(path)).fields == ("text", "label")
    config = recipe("auto", str(path))
    with pytest.raises(DataError, match=r"every text of same\.tsv has the label 'good'"):
        resolve(config, open_store(config))


@pytest.mark.parametrize(("labels", "message"), [
    (["a", "b", "a;b"], r"'a;b' looks like several labels, since what stands beside ';' is in other labels, too, and a "
     r"text has one label here; give each label a column of its own that says yes or no"),
    (["red | blue", "blue | green", "none"], r"'blue \| green' looks like several labels"),
])  # fmt: skip
def test_several_labels_a_text_are_refused_with_the_cure(tmp_path, labels, message):
    path = tmp_path / "films.tsv"
    path.write_text("text\tlabel\n" + "".join(f"text {i}\t{labels[i % 3]}\n" for i in range(60)))
    config = recipe("auto", str(path))
    with pytest.raises(DataError, match=message):
        resolve(config, open_store(config))


def test_a_label_with_a_semicolon_of_its_own_is_one(tmp_path):
    path = tmp_path / "films.tsv"
    path.write_text("text\tlabel\n" + "".join(f"text {i}\t{('yes; sure', 'no; never')[i % 2]}\n" for i in range(60)))
    config = recipe("auto", str(path))
    assert resolve(config, open_store(config)).model.n_labels == 2


def test_a_list_of_labels_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "films.jsonl"
    path.write_text("".join(f'{{"text": "text {i}", "label": ["a", "b"]}}\n' for i in range(60)))
    with pytest.raises(DataError, match=r'jsonl, line 1: label lists labels, \["a", "b"\], and a text has one label'):
        open_store(recipe("auto", str(path)))


def test_weights_make_labels_count_the_same_and_smoothing_spreads_targets(tmp_path):
    config = config_of(tmp_path)
    store = open_store(config)
    model = resolve(config, store).model
    plain, weighed, smooth = (
        kind.make(model, store)
        for kind in (
            config.task,
            config.task.replace(class_weights="balanced"),
            config.task.replace(label_smoothing=0.3),
        )
    )
    targets = torch.from_numpy(np.array(store.splits["train"].labels, np.int64))[:, None]
    zeros = torch.zeros(len(targets), 1, 2)
    assert weighed.training_loss_sum(zeros, targets).item() == pytest.approx(plain.loss_sum(zeros, targets).item())
    logits = torch.randn(len(targets), 1, 2, generator=torch.Generator().manual_seed(0))
    each = plain.losses(logits, targets)
    means = [each[targets == label].mean() for label in (0, 1)]
    assert weighed.training_loss_sum(logits, targets).item() / len(targets) == pytest.approx(float(sum(means) / 2))
    both = torch.stack([plain.losses(logits, torch.full_like(targets, label)) for label in (0, 1)]).mean(0)
    assert smooth.training_loss_sum(logits, targets).item() == pytest.approx(float((0.7 * each + 0.3 * both).sum()))
    for task in (weighed, smooth):
        assert torch.equal(task.losses(logits, targets), each)
        ignored = torch.full_like(targets, -1)
        assert task.training_loss_sum(logits, ignored).item() == 0


def test_vectors_of_texts_are_those_of_each_alone_and_are_kept(tmp_path, monkeypatch):
    """Texts of several lengths are read side by side, in any order; the second call reads nothing."""
    config = config_of(tmp_path)
    model, tokenizer = config.model.build(0).eval(), open_store(config).tokenizer
    texts = ["up", "red  green down blue up 12", "down 7", "up up"]
    found = text_vectors(model, tokenizer, texts)
    for text, vector in zip(texts, found, strict=True):
        read = text_rows(tokenizer.encode_batch([" ".join(text.split())]), tokenizer, 99)
        alone = model.trunk.hidden(read["ids"])[0].mean(dim=0)
        torch.testing.assert_close(torch.from_numpy(vector).float(), alone, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(type(model.trunk), "hidden", None)
    assert np.array_equal(text_vectors(model, tokenizer, texts), found)


def test_a_model_without_vectors_is_refused():
    tokenizer = open_store(recipe("tiny", "pets")).tokenizer
    with pytest.raises(ConfigError, match="family mlp gives no vectors"):
        text_vectors(MLPConfig().build(0), tokenizer, ["a"])

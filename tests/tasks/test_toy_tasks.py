"""The seam holds what is to come: pairs for a decoder, labelled texts, and captioned pictures."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy_tasks import ToyExamples, ToyTask, both_ways, check_scores, right_padded, train

from windtunnel.comparison.verdict import Rule, judge
from windtunnel.errors import ConfigError
from windtunnel.models import MLPConfig
from windtunnel.runs.execute import group_seeds
from windtunnel.tasks import ACCURACY, LOSS, LanguageConfig
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.training import machine
from windtunnel.training.compiling import is_tiny
from windtunnel.training.data import open_store
from windtunnel.training.distributed import Ranks
from windtunnel.training.evaluate import evaluate, unit_sums
from windtunnel.training.run import create_run, resolve
from windtunnel.training.run_config import RunConfig, TrainConfig

BEGIN, END, TURN = 27, 28, 29


class Decoder(nn.Module):
    """The smallest causal model: each position reads its own id and the mean of those before it."""

    def __init__(self, vocab_size, d=32):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocab_size, d), nn.Linear(2 * d, vocab_size)

    def forward(self, ids):
        x_BTD = self.embedding(ids)
        means_BTD = x_BTD.cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None]
        return self.head(torch.cat([x_BTD, means_BTD], -1))


def joined(source, target):
    """(inputs, targets) of one pair: begin source turn target end, and only what follows the turn is predicted."""
    whole = [BEGIN, *source, TURN, *target, END]
    return whole[:-1], [IGNORED] * (len(source) + 1) + [*target, END]


def pairs_task():
    """Letters 0 ... 25, written again from behind."""
    draw = np.random.default_rng(0)
    sources = [draw.integers(0, 26, draw.integers(1, 4)).tolist() for _ in range(23)]
    pairs = [joined(source, source[::-1]) for source in sources]

    def rows(indices):
        inputs, targets = zip(*(pairs[i] for i in indices), strict=True)
        return Batch({"ids": right_padded(inputs, 0)}, right_padded(targets, IGNORED))

    return ToyTask(ToyExamples(len(pairs), rows), blind=math.log(30))


def test_a_pair_leaves_its_source_out_of_the_loss():
    inputs, targets = joined([5, 6], [6, 5, 0, 24])
    assert inputs == [27, 5, 6, 29, 6, 5, 0, 24]
    assert targets == [IGNORED, IGNORED, IGNORED, 6, 5, 0, 24, 28]


def test_pairs_train_a_decoder():
    torch.manual_seed(0)
    task, model = pairs_task(), Decoder(30)
    before = check_scores(model, task)["loss"]
    losses = train(model, task, steps=60)
    after = check_scores(model, task)["loss"]
    assert abs(losses[0] - task.blind) < 0.5
    assert after < before - 1
    assert unit_sums(model, task, "dev")["targets"].tolist() == [
        task.own.take(np.array([i])).n_targets for i in range(task.own.n)
    ]


def test_pairs_are_cut_into_micro_batches_without_a_difference():
    whole, cut = (Decoder(30) for _ in range(2))
    cut.load_state_dict(whole.state_dict())
    assert train(whole, pairs_task(), steps=5) == pytest.approx(train(cut, pairs_task(), steps=5, parts=3), rel=1e-5)


def test_a_source_as_wide_as_the_targets_keeps_its_columns_when_the_batch_is_cut():
    ids, targets = torch.tensor([[1, 2, 0], [1, 2, 3]]), torch.tensor([[2, 9, IGNORED], [2, 3, 9]])
    source = torch.tensor([[7, 8, 9], [7, 8, 0]])
    first, second = Batch({"ids": ids, "source": source}, targets).split(2)
    assert first.inputs["ids"].tolist() == [[1, 2]]
    assert first.inputs["source"].tolist() == [[7, 8, 9]]
    assert second.inputs["ids"].tolist() == [[1, 2, 3]]


class Classifier(nn.Module):
    """The mean of the vectors of a text's tokens, and a linear layer: (B, labels)."""

    def __init__(self, vocab_size, n_labels, d=16):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocab_size, d), nn.Linear(d, n_labels)

    def forward(self, ids, kept):
        x_BTD = self.embedding(ids) * kept[..., None]
        return self.head(x_BTD.sum(1) / kept.sum(1, keepdim=True))


class Labels(ToyTask):
    def losses(self, logits, targets):
        return super().losses(logits[:, None], targets)


def labels_task():
    """Texts of 1 to 6 of 12 tokens; the label is the remainder by 3 of most of them."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 3, 31)
    texts = [(3 * draw.integers(0, 4, draw.integers(1, 7)) + label).tolist() for label in labels]

    def rows(indices):
        ids = right_padded([texts[i] for i in indices], -1)
        return Batch({"ids": ids.clamp(min=0), "kept": ids >= 0}, torch.from_numpy(labels[indices])[:, None])

    return Labels(ToyExamples(len(texts), rows), blind=math.log(3), metrics=(ACCURACY, LOSS))


def test_labelled_texts_train_a_classifier():
    torch.manual_seed(0)
    task, model = labels_task(), Classifier(12, 3)
    batch = task.own.take(np.arange(4))
    assert batch.targets.shape == (4, 1)
    before = check_scores(model, task)
    train(model, task, steps=80)
    after = check_scores(model, task)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["accuracy"] > 0.9
    logits = model(**task.own.take(np.arange(task.own.n)).inputs)
    labels = task.own.take(np.arange(task.own.n)).targets[:, 0]
    assert after["accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_a_comparison_reads_that_more_accuracy_is_better():
    gained = []
    for seed in range(5):
        scores = []
        for steps in (0, 60):
            torch.manual_seed(seed)
            task, model = labels_task(), Classifier(12, 3)
            train(model, task, steps, seed=seed)
            scores.append(evaluate(model, task, "dev", steps).scores[task.metrics[0].name])
        gained.append(scores[1] - scores[0])
    (verdict,) = judge({"longer": gained}, Rule(margin=0.01, better=task.metrics[0].better))
    assert verdict.word == "better"
    assert verdict.difference.estimate == pytest.approx(np.mean(gained))
    assert verdict.difference.low > 0


class Captioned(nn.Module):
    """A tower for pictures, one for captions; the logits are how alike each picture and each caption are, (B, B)."""

    def __init__(self, n_pixels, vocab_size, d=16):
        super().__init__()
        self.picture, self.embedding = nn.Linear(n_pixels, d), nn.Embedding(vocab_size, d)

    def forward(self, pictures, ids, kept):
        pictures_BD = self.picture(pictures.flatten(1).float() / 255)
        captions_BD = (self.embedding(ids) * kept[..., None]).sum(1)
        return 10 * nn.functional.normalize(pictures_BD) @ nn.functional.normalize(captions_BD).T


class Contrast(ToyTask):
    def losses(self, logits, targets):
        return both_ways(logits, targets)


def captioned_task():
    """Pictures of 4 grey pixels, captioned by which are bright."""
    draw = np.random.default_rng(2)
    bright = [[j for j in range(4) if i >> j & 1] for i in range(1, 16)]
    pictures = np.stack([[200 if j in own else 20 for j in range(4)] + draw.normal(0, 5, 4) for own in bright])
    pictures = torch.from_numpy(pictures.astype(np.uint8).reshape(-1, 1, 2, 2))

    def rows(indices):
        ids = right_padded([bright[i] for i in indices], -1)
        inputs = {"pictures": pictures[indices], "ids": ids.clamp(min=0), "kept": ids >= 0}
        return Batch(inputs, torch.arange(len(indices))[:, None])

    return Contrast(ToyExamples(len(bright), rows), blind=math.log(8), metrics=(LOSS, ACCURACY))


def test_captioned_pictures_train_two_towers():
    torch.manual_seed(0)
    task, model = captioned_task(), Captioned(4, 4)
    before = check_scores(model, task)
    losses = train(model, task, steps=120)
    after = check_scores(model, task)
    assert losses[-1] < 0.5 * losses[0]
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > 0.8


class ContrastConfig(LanguageConfig):
    coupled = True


def test_a_loss_that_couples_rows_is_not_cut_into_micro_batches():
    with pytest.raises(ConfigError, match=r"grad_accumulation is 2.*compares all rows.*leave it out"):
        RunConfig(corpus="names").replace(task=ContrastConfig(), train=TrainConfig(grad_accumulation=2))
    assert RunConfig(corpus="names", task=ContrastConfig()).task.coupled


def test_a_loss_that_couples_rows_is_not_shared_by_ranks():
    config, ranks = RunConfig(corpus="names", task=ContrastConfig()), Ranks()
    ranks.check(config)
    ranks.size = 2
    ranks.check(RunConfig(corpus="names"))
    with pytest.raises(ConfigError, match=r"compares all rows.*2 ranks would.*without --parallel"):
        ranks.check(config)


def test_seeds_of_a_loss_that_couples_rows_train_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    model, tiny = MLPConfig(context_length=3, d_embedding=2, d_hidden=8), TrainConfig(steps=2, precision="fp32")
    base = RunConfig(corpus="names", model=model, train=tiny)
    store = open_store(base)
    config = resolve(base, store)
    assert is_tiny(config)
    folders = [create_run(tmp_path / f"seed-{s}", config.replace(seed=s), store).folder for s in range(2)]
    assert group_seeds(folders) == [(0, 1)]
    monkeypatch.setattr(LanguageConfig, "coupled", True)
    assert group_seeds(folders) == [(0,), (1,)]

"""The contrastive task: its examples, its loss and its metrics, on pictures that a few lines of numpy draw."""

import math

import numpy as np
import pytest
import torch

from shapes import NAMES, shapes_corpus
from windtunnel.errors import ConfigError, DataError
from windtunnel.models import CLIPConfig, TransformerConfig, build
from windtunnel.models.clip import CaptionTransformerConfig
from windtunnel.models.vision import ConvolutionalConfig
from windtunnel.tasks import Contrastive, ContrastiveConfig
from windtunnel.tasks.augment import AugmentConfig, augmented, uniform
from windtunnel.text.batches import IGNORED, Batch, in_epochs
from windtunnel.text.store import TextConfig, prepare
from windtunnel.training.evaluate import evaluate, unit_sums

MODEL = CLIPConfig(
    context_length=32,
    picture=ConvolutionalConfig(size=16, widths=(8, 16)),
    caption=CaptionTransformerConfig(
        trunk=TransformerConfig(n_layers=1, n_heads=2, d_model=16, dropout=0.0, causal=False)
    ),
    d_shared=16,
)
STILL = AugmentConfig(shift=0, scale=0, rotate=0, colour=0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))


def store_of(**changes):
    return prepare(shapes_corpus(**changes), TextConfig(dev_fraction=0.2, test_fraction=0.2, tokenizer="characters"))


def task_of(store, augment=STILL):
    model = MODEL.replace(vocab_size=store.tokenizer.vocab_size)
    return ContrastiveConfig(augment=augment).make(model, store)


def texts_of(batch, store):
    """The captions of a batch, without their marks."""
    rows = zip(batch.inputs["ids"].numpy(), batch.inputs["kept"].numpy(), strict=True)
    return [store.tokenizer.decode(ids[kept][1:-1]) for ids, kept in rows]


def test_a_row_is_a_picture_and_its_own_caption(cache):
    store = store_of()
    task, corpus = task_of(store), shapes_corpus()
    for split in store.splits:
        examples = task.examples(split)
        rows = np.arange(len(examples))[::-1]
        batch = examples.take(rows, key=3)
        assert batch.targets[:, 0].tolist() == list(range(len(rows)))
        for text, picture, place in zip(texts_of(batch, store), batch.inputs["pictures"], rows, strict=True):
            assert store.pictures[examples.places[place]] == text
            drawn = torch.from_numpy(corpus.pictures.draw(text, 16)).permute(2, 0, 1) / 255
            torch.testing.assert_close(picture, drawn)
    assert sum(task.n_units(split) for split in store.splits) == len(NAMES)


def test_what_is_alike_in_a_batch_is_no_wrong_answer(cache):
    """Every colour is a caption of twelve pictures: rows of one colour are told apart from other colours alone."""
    store = store_of(captions=lambda name: [name.split()[1]])
    task = task_of(store)
    batch = task.examples("train").take(np.r_[0:30, 0:3], key=0)
    texts, targets = texts_of(batch, store), batch.targets[:, 0].tolist()
    assert targets == [texts.index(text) for text in texts]
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(33, 1, 33, generator=draws, requires_grad=True)
    losses = task.losses(logits, batch.targets)
    scores, wanted = logits[:, 0].detach().double(), []
    for row in range(33):
        others = [i for i in range(33) if i == row or texts[i] != texts[row]]
        at = others.index(row)
        both = scores[row, others].log_softmax(0)[at] + scores[others, row].log_softmax(0)[at]
        wanted.append(-float(both) / 2)
    assert losses[:, 0].tolist() == pytest.approx(wanted, abs=1e-5)
    losses.sum().backward()
    alike = torch.tensor([[a == b and i != j for j, b in enumerate(texts)] for i, a in enumerate(texts)])
    assert (logits.grad[:, 0][alike] == 0).all()
    assert (logits.grad[:, 0][~alike] != 0).all()


def test_a_picture_that_is_twice_in_a_batch_is_alike_whatever_its_captions(cache):
    store = store_of(captions=lambda name: [name, f"a {name}"])
    examples = task_of(store).examples("train")
    rows = np.array([4, 7, 4, 9, 4, 7])
    for key in range(8):
        assert examples.take(rows, key).targets[:, 0].tolist() == [0, 1, 0, 3, 0, 1]


def test_the_pictures_are_opened_once_for_all_splits(cache):
    task = task_of(store_of())
    assert len({id(task.examples(split).all_seen) for split in task.store.splits}) == 1


def test_one_of_several_captions_is_chosen_by_epoch_and_picture_and_the_main_one_asks(cache):
    store = store_of(captions=lambda name: [name, f"a {name}", f"the {name}"])
    examples = task_of(store).examples("train")
    rows = np.arange(len(examples))
    drawn = [texts_of(examples.take(rows, key), store) for key in range(60)]
    names = [store.pictures[place] for place in examples.places]
    for row, name in enumerate(names):
        seen = [texts[row] for texts in drawn]
        assert set(seen) == {name, f"a {name}", f"the {name}"}
    counts = np.bincount([len(text) - len(name) for texts in drawn for text, name in zip(texts, names, strict=True)])
    assert counts[[0, 2, 4]] / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.03)
    alone = [texts_of(examples.take(np.array([row]), 7), store)[0] for row in rows]
    assert alone == drawn[7]  # whatever else is in the batch
    (batch,) = examples.sweep(10)
    assert texts_of(batch, store) == names


def test_an_evaluation_asks_a_sample_among_all_pictures(cache):
    store = store_of()
    examples = task_of(store).examples("train")
    (batch,) = examples.sweep(8, max_tokens=5)
    assert len(batch.targets) == 5
    assert len(batch.inputs["pictures"]) == len(examples)
    assert torch.equal(batch.units, batch.targets)
    names = [store.pictures[examples.places[unit]] for unit in batch.units[:, 0]]
    assert texts_of(batch, store) == names


def test_a_batch_of_two_epochs_has_rows_of_its_own(cache):
    """Of each row the target is its own picture's row, also behind the rows of the epoch before."""
    examples = task_of(store_of()).examples("train")
    n = len(examples)
    batch = in_epochs(examples, 0, n - 5, n + 5)
    assert batch.targets[:, 0].tolist() == list(range(10))
    assert len(batch.inputs["pictures"]) == len(batch.inputs["ids"]) == 10


def test_augmentation_is_a_function_of_the_epoch_and_the_picture(cache):
    examples = task_of(store_of(), AugmentConfig()).examples("train")
    rows = np.array([4, 9, 2])
    one, again, other = (examples.take(rows, key).inputs["pictures"] for key in (5, 5, 6))
    assert torch.equal(one, again)
    assert (one - other).abs().amax((1, 2, 3)).min() > 0.05  # each of them is changed otherwise
    alone = torch.cat([examples.take(rows[i : i + 1], 5).inputs["pictures"] for i in range(3)])
    torch.testing.assert_close(one, alone)
    assert one.min() >= 0
    assert one.max() <= 1
    (batch,) = examples.sweep(10)
    assert torch.equal(batch.inputs["pictures"], examples.seen(np.arange(len(examples))))  # none in an evaluation


def test_each_change_of_a_picture_does_what_it_says():
    """A black square in the middle: how far its middle moves, how large it becomes, how dark it is."""
    n, size = 400, 32
    picture = torch.ones(n, 3, size, size)
    picture[:, :, 12:20, 12:20] = 0
    places = np.arange(n)
    y, x = (torch.arange(size) - 15.5).view(-1, 1), (torch.arange(size) - 15.5).view(1, -1)

    def measured(**how):
        dark = 1 - augmented(picture, STILL.replace(**how), 3, places)[:, 0]
        weight = dark.sum((1, 2))
        return (dark * x).sum((1, 2)) / weight, (dark * y).sum((1, 2)) / weight, weight / 64

    across, down, area = measured(shift=0.1)
    for moved in (across, down):
        assert -3.3 < moved.min() < -2.8
        assert 2.8 < moved.max() < 3.3
    torch.testing.assert_close(area, torch.ones(n), rtol=0.03, atol=0)
    across, _, area = measured(scale=0.2)
    assert across.abs().max() < 0.05
    assert area.min() == pytest.approx(0.8**2, rel=0.05)
    assert area.max() == pytest.approx(1.2**2, rel=0.05)
    assert torch.equal(augmented(picture, STILL, 3, places), picture)
    faded = augmented(picture, STILL.replace(colour=0.3), 3, places)
    assert faded.amax((1, 2, 3)).min() < 0.85
    assert (faded[:, 0] - faded[:, 2]).abs().max() < 1e-5  # grey stays grey


def test_turning_and_mirroring():
    bar = torch.ones(200, 3, 32, 32)
    bar[:, :, 15:17, 16:] = 0  # from the middle to the right
    turned = 1 - augmented(bar, STILL.replace(rotate=90), 1, np.arange(200))[:, 0]
    y, x = (torch.arange(32) - 15.5).view(-1, 1), (torch.arange(32) - 15.5).view(1, -1)
    angle = torch.atan2((turned * y).sum((1, 2)), (turned * x).sum((1, 2))).rad2deg()
    assert angle.abs().max() < 93
    assert angle.min() < -80
    assert angle.max() > 80
    mirrored = 1 - augmented(bar, STILL.replace(flip=True), 1, np.arange(200))[:, 0]
    left = (mirrored[:, :, :16].sum((1, 2)) > mirrored[:, :, 16:].sum((1, 2))).float().mean()
    assert left == pytest.approx(0.5, abs=0.12)
    still = augmented(bar, STILL, 1, np.arange(200))
    assert torch.equal(still, bar)


def test_numbers_of_a_key_and_a_place_are_uniform_and_independent():
    drawn = uniform(12, np.arange(5000), 4)
    assert drawn.mean(0) == pytest.approx([0.5] * 4, abs=0.02)
    assert drawn.std(0) == pytest.approx([12**-0.5] * 4, abs=0.01)
    between = np.corrcoef(np.column_stack([drawn[1:], drawn[:-1], uniform(13, np.arange(4999), 4)]).T)
    assert np.abs(between - np.eye(12)).max() < 0.06


def test_the_loss_is_infonce_both_ways(cache):
    """By the definition, in numpy: the mean of the cross-entropy of a row and of a column."""
    task = task_of(store_of())
    scores = np.random.default_rng(0).normal(size=(6, 6)) * 3
    logits, targets = torch.from_numpy(scores)[:, None], torch.arange(6)[:, None]
    rows = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    columns = scores - np.log(np.exp(scores).sum(0, keepdims=True))
    expected = -(np.diag(rows) + np.diag(columns)) / 2
    assert task.losses(logits, targets)[:, 0].numpy() == pytest.approx(expected, rel=1e-5)
    assert task.loss_sum(logits, targets).item() == pytest.approx(expected.sum(), rel=1e-5)
    assert task.training_loss_sum(logits, targets).item() == pytest.approx(expected.sum(), rel=1e-5)
    alike = task.losses(torch.zeros(6, 1, 6), targets)
    assert alike[:, 0].tolist() == pytest.approx([math.log(6)] * 6)


class Fixed(torch.nn.Module):
    """Gives the same logits whatever it reads."""

    def __init__(self, scores):
        super().__init__()
        self.scores = torch.nn.Parameter(torch.as_tensor(scores, dtype=torch.float32))

    def forward(self, pictures, ids, kept):
        return self.scores[:, None]


def recalls(scores):
    """recall at 1, 5, 10 by sorting: a tie counts against a caption."""
    own = np.diag(scores)[:, None]
    ranks = (scores >= own).sum(1)
    return [float((ranks <= k).mean()) for k in (1, 5, 10)]


def test_recall_is_what_sorting_says(cache):
    store = store_of()
    task = task_of(store)
    n = task.n_units("dev")
    scores = np.random.default_rng(1).normal(size=(n, n)) + 0.5 * np.eye(n)
    found = evaluate(Fixed(scores), task, "dev", 0)
    assert [found.scores[f"recall_at_{k}"] for k in (1, 5, 10)] == pytest.approx(recalls(scores))
    assert 0 < found.scores["recall_at_1"] < found.scores["recall_at_5"] < found.scores["recall_at_10"] < 1
    assert found.whole
    sums = unit_sums(Fixed(scores), task, "dev")
    assert sums["targets"].tolist() == [1] * n
    assert sums["top/5"].mean() == pytest.approx(found.scores["recall_at_5"])
    assert sums["nats"].sum() / n == pytest.approx(found.scores["loss"])


def test_a_model_that_says_the_same_of_all_or_nothing_finds_nothing(cache):
    """Ties count against it, so a collapsed model is not taken for a good one; and what is no number is no find."""
    task = task_of(store_of())
    n = task.n_units("dev")
    for scores in (np.ones((n, n)), np.full((n, n), np.nan)):
        found = evaluate(Fixed(scores), task, "dev", 0)
        assert [found.scores[f"recall_at_{k}"] for k in (1, 5, 10)] == [0, 0, 0]


def test_a_padded_target_counts_nowhere(cache):
    task = task_of(store_of())
    logits, targets = torch.randn(3, 1, 3), torch.tensor([[0], [IGNORED], [2]])
    assert task.losses(logits, targets)[1].item() == 0
    assert Batch({"pictures": logits}, targets).n_targets == 2


def test_a_whole_batch_gives_the_gradient_of_a_whole_batch(cache):
    """The loss of a batch is not that of its halves: which is why it is never cut."""
    store = store_of()
    task = task_of(store)
    model, batch = build(task.model, 0), task.examples("train").take(np.arange(8), 0)
    whole = task.loss_sum(model(**batch.inputs), batch.targets)
    halves = [task.examples("train").take(np.arange(8)[half], 0) for half in (slice(4), slice(4, 8))]
    cut = sum(task.loss_sum(model(**half.inputs), half.targets) for half in halves)
    assert whole.item() > cut.item() + 1


@pytest.mark.parametrize("n", [0, 1])
def test_a_split_of_fewer_than_two_pictures_is_refused(cache, n):
    corpus = shapes_corpus(names=NAMES[:8])
    store = prepare(corpus, TextConfig(dev_fraction=n / 8, test_fraction=0, tokenizer="characters"))
    with pytest.raises(DataError, match=rf"the dev split holds {n} pictures.*give more pictures"):
        task_of(store).examples("dev")
    assert task_of(store).totals("dev")["targets"] == n


def test_what_does_not_fit_together_is_refused(cache):
    with pytest.raises(ConfigError, match=r"needs a model of the family clip, and this is a transformer.*recipe clip"):
        ContrastiveConfig().model(TransformerConfig())
    from windtunnel.tasks import ClassificationConfig, LanguageConfig, TranslationConfig
    from windtunnel.text.corpora import open_corpus

    for task, message in (
        (LanguageConfig(), "finds the picture of a caption.*--recipe clip"),
        (TranslationConfig(), "the family clip finds the picture of a caption"),
        (ClassificationConfig(), "needs a model of the family classifier, and this is a clip"),
    ):
        with pytest.raises(ConfigError, match=message):
            task.model(MODEL)
    names = prepare(open_corpus("names"), TextConfig())
    with pytest.raises(ConfigError, match=r"needs a corpus with the fields picture and caption, and names has text"):
        ContrastiveConfig().sized(MODEL, names)


def test_the_task_says_what_it_is(cache):
    task = task_of(store_of())
    assert isinstance(task, Contrastive)
    assert [metric.name for metric in task.metrics] == ["recall_at_1", "recall_at_5", "recall_at_10", "loss"]
    assert task.metrics[0].better == "higher"
    assert task.blind == pytest.approx(math.log(task.n_units("train")))

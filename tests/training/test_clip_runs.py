"""Training on pictures and captions: from scratch, as recipes and folders say it, resumed, compared, and refused."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import windtunnel as wt
from shapes import COLOURS, FORMS, NAMES, Shapes
from windtunnel.config import override
from windtunnel.errors import ConfigError, DataError
from windtunnel.inspect.captions import main_captions
from windtunnel.inspect.clip_vectors import pictures_of, vectors_of
from windtunnel.inspect.retrieval import RIDGE, judge_retrieval, retrieval_of
from windtunnel.models.pretrained.catalogue import LITE0, MINILM
from windtunnel.models.pretrained.efficientnet import lite0_file
from windtunnel.tasks import vectors
from windtunnel.training.checkpoint import newest_checkpoint
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.loop import fit as train
from windtunnel.training.loop import resume
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load, open_run

QUICK = [
    "train.threads=1", "train.precision=fp32", "text.tokenizer=bpe", "model.picture.size=16",
    "model.picture.widths=[16, 32]", "model.caption.d_model=32",
    "model.d_shared=32", "train.batch_size=32", "train.eval_every=50", "optimizer.lr=0.005",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures with captions.csv; the split holds out combinations of a colour, a form and a size."""
    folder, shapes = tmp_path_factory.mktemp("photos"), Shapes()
    order = np.random.default_rng(0).permutation(len(NAMES))
    parts = {**dict.fromkeys(order[:16].tolist(), "test"), **dict.fromkeys(order[16:32].tolist(), "dev")}
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "caption", "split"])
        for i, name in enumerate(NAMES):
            Image.fromarray(shapes.draw(name, 32)).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", name, parts.get(i, "train")])
    return str(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))


def config_of(photos, *changes):
    return override(recipe("auto", photos), [*QUICK, *changes])


def weights(folder):
    checkpoint = newest_checkpoint(folder)
    return checkpoint.step, checkpoint.weights


def test_combinations_that_were_never_seen_are_found(photos, tmp_path):
    """A model from scratch must know colours, forms and sizes apart; recall@1 is above chance by its interval."""
    events = list(train(config_of(photos, "train.steps=250"), tmp_path / "run"))
    scores = [e.scores for e in events if isinstance(e, Evaluation)]
    assert list(scores[0]) == ["recall_at_1", "recall_at_5", "recall_at_10", "loss"]
    assert scores[-1]["loss"] < scores[0]["loss"]
    found = judge_retrieval([tmp_path / "run"], "test")
    assert found.n == 16
    chance = 1 / 16
    for ranks in (found.by_caption, found.by_picture):
        assert ranks.recall[1].low > 2 * chance
        assert ranks.mean.high < (16 + 1) / 2
    trained = load(tmp_path / "run")
    again = evaluate(trained.model, open_task(trained.run.config, trained.run.store()), "test", 0)
    assert again.scores["recall_at_5"] == found.by_caption.recall[5].estimate
    task, own = retrieval_of(trained), found.zero_shot
    place = [
        own.names.index(word) for text in main_captions(task, "test") for word in text.split() if word in own.names
    ]
    assert (own.n, len(place)) == (16, 16)
    seen, classes = pictures_of(trained, task, "test"), vectors_of(trained, own.names)
    assert own.right.estimate == np.mean((seen @ classes.T).argmax(axis=1) == place)
    before = main_captions(task, "train")
    near = [before[i].split() for i in (seen @ pictures_of(trained, task, "train").T).argmax(axis=1)]
    assert own.nearest.estimate == np.mean([own.names[i] in text for i, text in zip(place, near, strict=True)])
    assert 1 <= trained.model.scale.item() <= 100
    assert trained.model.scale.item() != pytest.approx(1 / 0.07, rel=1e-3)  # it was learned


def test_the_best_of_dev_is_the_model_and_the_first_metric_decides(photos, tmp_path):
    events = list(
        train(config_of(photos, "train.steps=60", "train.eval_every=20", "train.choose=best"), tmp_path / "run")
    )
    scores = {e.step: e.scores for e in events if isinstance(e, Evaluation)}
    best = max(scores, key=lambda step: (scores[step]["recall_at_1"], -scores[step]["loss"]))
    assert load(tmp_path / "run").step == best


MORE = {
    "convolutional": [],
    "vit": ["model.picture.size=16", "model.picture.trunk.n_layers=1"],
    "efficientnet": ["model.picture.size=16", "model.picture.pretrained=false", "model.picture.solved=true"],
}


@pytest.mark.parametrize("picture", MORE)
def test_a_resumed_run_is_the_uninterrupted_one(photos, tmp_path, picture):
    """To the bit, over the end of an epoch; augmentation and choice of captions are drawn again the same."""
    picked = [
        f"model.picture.kind={picture}",
        *MORE[picture],
        "train.steps=9",
        "train.save_every=4",
        "train.eval_every=9",
    ]
    base = [one for one in QUICK if "picture.widths" not in one]
    config = override(recipe("clip", photos), [*base, *picked])
    whole = [e.loss for e in train(config, tmp_path / "whole") if isinstance(e, Step)]
    stopped = [e.loss for e in _until(train(config, tmp_path / "parts"), 4)]
    rest = [e.loss for e in resume(tmp_path / "parts") if isinstance(e, Step)]
    assert len(rest) < 9
    assert whole == stopped[: 9 - len(rest)] + rest
    (step, own), (_, other) = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert step == 9
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)


def _until(events, step):
    """The steps of a run that is left in the middle, after it has saved."""
    for event in events:
        if isinstance(event, Step):
            yield event
            if event.step > step:
                events.close()
                return


def test_frozen_nets_are_read_once_and_ridge_stands_beside(photos, tmp_path, monkeypatch):
    """EfficientNet and MiniLM where they were fetched: their vectors go into the cache, and come from there again."""
    base = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "windtunnel" / "models"
    if not all((base / listed.name).exists() for listed in (LITE0, MINILM)):
        pytest.skip("the frozen nets are not on this machine; get them: windtunnel models get efficientnet-lite0")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(base)
    changes = [
        "train.threads=1",
        "train.steps=60",
        "train.batch_size=64",
        "train.eval_every=60",
        "train.precision=fp32",
    ]
    config = override(recipe("clip-frozen", photos), changes)
    events = list(train(config, tmp_path / "run"))
    losses = [e.loss for e in events if isinstance(e, Step)]
    first = next(e for e in events if isinstance(e, Evaluation))
    assert (first.step, first.scores["recall_at_1"] > 1 / 10) == (0, True)  # it begins solved
    monkeypatch.setattr(vectors, "_lite0", lambda: pytest.fail("read again"))
    again = [e.loss for e in train(config, tmp_path / "again") if isinstance(e, Step)]
    assert again == losses
    found = judge_retrieval([tmp_path / "run"], "test")
    assert found.by_caption.recall[1].low > 1 / 16
    ridge = next(one for one in found.against if one.name == RIDGE)
    assert ridge.ranks.recall[5].low > 5 / 16
    assert ridge.p is not None


def test_frozen_nets_that_are_missing_are_said_with_the_command(photos, tmp_path):
    for kept in (vectors._lite0, vectors._minilm, lite0_file):
        kept.cache_clear()
    with pytest.raises(DataError, match="the model efficientnet-lite0 is not on this machine; get it: windtunnel mod"):
        list(train(override(recipe("clip-frozen", photos), ["train.steps=2"]), tmp_path / "run"))


def test_auto_is_clip_for_captions_and_every_part_of_it_fits(photos):
    config = recipe("auto", photos)
    assert (config.task.kind, config.model.family) == ("contrastive", "clip")
    assert config == recipe("clip", photos)


def test_a_batch_is_never_cut(photos):
    with pytest.raises(ConfigError, match=r"grad_accumulation is 2.*contrastive loss compares all.*cannot be cut"):
        config_of(photos, "train.grad_accumulation=2")


def test_a_run_is_not_shared_by_ranks(photos, tmp_path):
    from windtunnel.training.distributed import Ranks

    list(train(config_of(photos, "train.steps=1"), tmp_path / "run"))
    ranks = Ranks()
    ranks.size = 2
    with pytest.raises(ConfigError, match=r"a contrastive loss compares all rows.*without --parallel"):
        ranks.check(open_run(tmp_path / "run").config)


def test_other_models_and_tasks_are_refused_with_a_cure(photos, tmp_path):
    for changes, message in (
        (["model.family=transformer"], "task.kind=contrastive needs a model of the family clip"),
        (["task.kind=language"], "finds the picture of a caption, and task.kind=language predicts tokens"),
    ):
        with pytest.raises(ConfigError, match=message):
            list(train(override(recipe("clip", photos), changes), tmp_path / "run"))


def test_captions_alone_train_a_language_model(photos, tmp_path):
    """The same corpus with another recipe: its captions are texts."""
    config = override(recipe("tiny", photos), ["train.steps=2", "train.sample_tokens=0", "train.threads=1"])
    events = list(train(config, tmp_path / "run"))
    assert [e.step for e in events if isinstance(e, Step)] == [1, 2]


def test_the_shapes_are_apart():
    """The pictures of the tests differ where their names do."""
    assert len({Shapes().draw(name, 16).tobytes() for name in NAMES}) == len(NAMES) == 2 * len(COLOURS) * len(FORMS)


@pytest.mark.slow
def test_a_verdict_is_on_recall_at_1_and_more_is_better(photos, tmp_path):
    """One shared dimension tells two kinds of pictures apart at most; twenty-four tell them all."""
    settings = dict(change.split("=", 1) for change in [*QUICK, "train.eval_every=60"])
    settings = {path.replace(".", "__"): parsed(text) for path, text in settings.items()}
    found = wt.compare(
        photos, vary={"model.d_shared": [1, 24]}, steps=150, seeds=4, out=tmp_path / "arms", progress=False, **settings
    )
    (judgement,) = found.judgements
    assert "recall_at_1" in judgement.sentence
    assert judgement.verdict.word == "better", judgement.sentence
    assert judgement.verdict.difference.estimate > 0.2
    assert found.title("loss") == "nats per picture"


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return text

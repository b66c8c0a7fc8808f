"""Towers on frozen nets whose map is solved before the first step: the kernel, its whitening, the solution, a run."""

import zlib

import numpy as np
import pytest
import torch

from shapes import NAMES, shapes_corpus
from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.inspect.retrieval import ranks_of, retrieval_of, similarities
from windtunnel.models import CLIPConfig, build
from windtunnel.models.cost import training_flops
from windtunnel.models.efficientnet import EfficientNetConfig
from windtunnel.models.vectors import WIDTHS, CaptionVectorsConfig, Kernel, PictureVectorsConfig
from windtunnel.nn.attention import attend
from windtunnel.tasks import ContrastiveConfig, contrastive
from windtunnel.text.corpora import CORPORA
from windtunnel.text.store import TextConfig, prepare
from windtunnel.training.checkpoint import newest_checkpoint
from windtunnel.training.data import open_store
from windtunnel.training.events import Evaluation, Saved
from windtunnel.training.frozen import solve_towers
from windtunnel.training.loop import fit, resume
from windtunnel.training.optimizer import OptimizerConfig, rate_factors
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load, resolve

NET = "efficientnet-lite0-stages"
SPLIT = TextConfig(dev_fraction=0.2, test_fraction=0.25, tokenizer="characters")


def vector(word, width):
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=width).astype(np.float32)


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    """What stands for the frozen nets: each word is a vector, and the vectors of a caption's words are added."""
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))

    def added(texts, width):
        return np.stack([sum(vector(word, width) for word in text.split()) for text in texts])

    monkeypatch.setattr(contrastive, "picture_vectors", lambda store, model: added(store.pictures, WIDTHS[NET]))
    monkeypatch.setattr(contrastive, "caption_vectors", lambda texts, model: added(texts, 384))
    monkeypatch.setitem(CORPORA, "shapes", shapes_corpus)


def config_of(centres=4096):
    picture = PictureVectorsConfig(net=NET, centres=centres)
    return CLIPConfig(picture=picture, caption=CaptionVectorsConfig(dropout=0.0), d_shared=384)


def task_of(centres=4096):
    store, kind = prepare(shapes_corpus(), SPLIT), ContrastiveConfig()
    return kind.make(kind.sized(config_of(centres), store), store)


def test_features_of_all_centres_are_those_whose_products_are_the_kernel():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(30, 7, generator=draw)
    kernel = Kernel(30, 7)
    kernel.settle(x)
    with torch.no_grad():
        found = kernel(x) + kernel.middle
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    unit = standard / standard.norm(dim=1, keepdim=True)
    wanted = torch.exp(-(torch.cdist(unit, unit) ** 2))
    torch.testing.assert_close(found @ found.T / 30, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(kernel(x).mean(0), torch.zeros(30), atol=1e-4, rtol=0)


def test_fewer_centres_than_pictures_and_equal_ones_give_numbers():
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(1))
    for seen, n in ((x, 12), (x[:1].repeat(40, 1), 12), (torch.cat([x, x]), 80)):
        kernel = Kernel(n, 7)
        kernel.settle(seen)
        assert kernel(seen).shape == (len(seen), n)
        assert kernel(seen).isfinite().all()


def test_the_start_is_kernel_ridge_regression():
    """What pictures become is K (K + penalty)^-1 Y up to a factor, with the kernel K of centred features."""
    task = task_of()
    model, n = build(task.model, 0), task.n_units("train")
    assert task.model.picture.centres == n
    said = solve_towers(model, task, np.arange(n))
    penalty = float(said.partition("penalty ")[2].split(" ")[0])
    (batch,) = task.examples("train").sweep(n)
    model.eval()
    with torch.no_grad():
        features = model.picture.kernel(batch.inputs["pictures"]).double()
        wanted = model.encode_texts(batch.inputs["ids"]).double()
        found = model.picture_projection(model.picture.kernel(batch.inputs["pictures"])).double()
    k = features @ features.T
    solved = k @ torch.linalg.solve(k + penalty * k.trace() / n * torch.eye(n), wanted)
    torch.testing.assert_close(found, solved / solved.norm(dim=1).mean(), atol=1e-4, rtol=0)
    standard = batch.inputs["ids"] - batch.inputs["ids"].mean(0)
    standard = standard / batch.inputs["ids"].std(0)
    torch.testing.assert_close(
        wanted.float(), torch.nn.functional.normalize(standard, dim=1), atol=1e-3, rtol=0
    )  # as they are


def test_the_map_can_be_solved_for_all_captions_of_a_picture():
    """Then pictures are mapped to the mean of what the other tower makes of their captions."""
    corpus = shapes_corpus(captions=lambda name: [name, *name.split()[1:]])
    store, maps = prepare(corpus, SPLIT), {}
    for what in ("main", "all"):
        kind = ContrastiveConfig(solve_for=what)
        task = kind.make(kind.sized(config_of(), store), store)
        model, n = build(task.model, 0), task.n_units("train")
        penalty = float(solve_towers(model, task, np.arange(n)).partition("penalty ")[2].split(" ")[0])
        examples = task.examples("train")
        (batch,) = examples.sweep(n)
        model.eval()
        with torch.no_grad():
            features = model.picture.kernel(batch.inputs["pictures"]).double()
            own = [
                model.encode_texts(**examples.read(examples.captions[[3 * i, 3 * i + 1, 3 * i + 2]])) for i in range(n)
            ]
            wanted = torch.stack([rows.mean(0) if what == "all" else rows[0] for rows in own]).double()
            maps[what] = model.picture_projection(model.picture.kernel(batch.inputs["pictures"])).double()
        k = features @ features.T
        solved = k @ torch.linalg.solve(k + penalty * k.trace() / n * torch.eye(n), wanted)
        torch.testing.assert_close(maps[what], solved / solved.norm(dim=1).mean(), atol=1e-4, rtol=0)
    assert (maps["main"] - maps["all"]).abs().max() > 0.01


def settings(tmp_path):
    changes = ["train.threads=1", "train.precision=fp32", "train.steps=4", "train.batch_size=16", "train.eval_every=2",
               "train.save_every=2", "train.keep=9", "schedule.warmup=1", "text.tokenizer=characters",
               "text.test_fraction=0.25"]  # fmt: skip
    return override(recipe("clip-frozen", "shapes"), changes)


def test_a_run_begins_solved_says_so_and_resumes_to_the_bit(tmp_path):
    """Words that were seen in other combinations are found from the start, before a step."""
    events = list(fit(settings(tmp_path), tmp_path / "run"))
    first = next(event for event in events if isinstance(event, Evaluation))
    assert first.step == 0
    assert first.scores["recall_at_1"] > 0.5
    assert any("(kernel ridge regression, " in str(event) for event in events)
    trained = load(tmp_path / "run")
    scores = similarities(trained, retrieval_of(trained), "test")
    assert ranks_of(scores).recall[1].low > 0.3
    stopped = fit(settings(tmp_path), tmp_path / "again")
    next(event for event in stopped if isinstance(event, Saved) and event.step == 2)
    stopped.close()
    list(resume(tmp_path / "again"))
    one, two = (newest_checkpoint(tmp_path / name) for name in ("run", "again"))
    assert one.step == two.step == 4
    assert all(torch.equal(tensor, two.weights[name]) for name, tensor in one.weights.items())


def test_two_layers_on_the_same_vectors_are_refused():
    with pytest.raises((ConfigError, ValueError), match="centres and hidden are two layers"):
        PictureVectorsConfig(centres=5, hidden=5)


def test_the_parameters_of_a_kernel_are_counted():
    config = config_of(centres=20)
    model = config.create()
    assert config.n_parameters() == sum(p.numel() for p in model.parameters())
    assert len(NAMES) == 96


def test_fixed_centres_have_no_backward_pass_to_count():
    config = config_of(100)
    parts = config.flops_by_part(8)
    assert training_flops(config, 8) == 3 * sum(parts.values()) - 2 * parts["picture kernel"]


def test_a_net_that_is_trained_further_begins_with_ridge_regression():
    """The map of its standardised vectors is that of ridge regression; the net itself is as it was."""
    picture = EfficientNetConfig(size=32, pretrained=False, stages=True, solved=True, dropout=0.5)
    model = CLIPConfig(picture=picture, caption=CaptionVectorsConfig(dropout=0.0), d_shared=384)
    store, kind = prepare(shapes_corpus(), SPLIT), ContrastiveConfig()
    task = kind.make(kind.sized(model, store), store)
    clip, n = build(task.model, 0), task.n_units("train")
    before = clip.picture.head.weight.clone()
    said = solve_towers(clip, task, np.arange(n))
    penalty = float(said.partition("penalty ")[2].split(" ")[0])
    assert f"solved on {n} pictures (ridge regression, " in said
    (batch,) = task.examples("train").sweep(n)
    clip.eval()
    with torch.no_grad():
        vectors = clip.picture.stages(batch.inputs["pictures"]).double()
        wanted = clip.encode_texts(batch.inputs["ids"]).double()
        found = clip.picture_projection(clip.picture(batch.inputs["pictures"], attend)).double()
    features = (vectors - vectors.mean(0)) / (vectors.std(0, correction=0) + 1e-6)
    k = features @ features.T
    solved = k @ torch.linalg.solve(k + penalty * k.trace() / n * torch.eye(n), wanted)
    torch.testing.assert_close(found, solved / solved.norm(dim=1).mean(), atol=2e-3, rtol=0)
    assert (clip.picture.head.weight == before).all()


def test_a_net_that_was_trained_before_learns_at_its_own_rate():
    config = config_of().replace(picture=EfficientNetConfig(size=32, solved=True))
    own = OptimizerConfig(lr=1e-3, trunk_factor=0.1)
    model = config.create()
    factors = rate_factors(model, own)
    assert {factors[p] for p in model.picture.parameters()} == {0.1}
    assert {f for p, f in factors.items() if p not in {*model.picture.parameters()}} == {1.0}
    refused = override(recipe("clip", "shapes"), ["optimizer.trunk_factor=0.1"])
    with pytest.raises(ConfigError, match=r"a net reads which was trained before, and this is a clip"):
        resolve(refused, open_store(refused))

"""What every task keeps: each test runs over every entry of TASKS, for each way to read each unit of a corpus.

All but coupled ones, whose losses are of a whole batch: test_contrastive.py holds that task to what it keeps.
"""

import numpy as np
import pytest
import torch

from windtunnel.models import ClassifierConfig, MLPConfig, TransformerConfig
from windtunnel.tasks import TASKS, ClassificationConfig, LanguageConfig, TranslationConfig
from windtunnel.text.batches import IGNORED
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, prepare

V = 40
CONFIGS = {"language": LanguageConfig(), "translation": TranslationConfig(), "classification": ClassificationConfig()}
MODELS = {
    "stream": TransformerConfig(vocab_size=V, context_length=7, n_layers=1, n_heads=2, d_model=8),
    "context": MLPConfig(vocab_size=V, context_length=3),
    "text": ClassifierConfig(vocab_size=V, context_length=20, n_labels=V),
    "whole": TransformerConfig(vocab_size=V, context_length=90, n_layers=1, n_heads=2, d_model=8),
}
CASES = [("language", reads, unit) for reads in ("stream", "context") for unit in ("line", "text", "file")]
CASES += [("translation", "whole", "pairs"), ("classification", "text", "labels")]
SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One corpus in each unit: documents of very different lengths, many of them longer than a context."""
    folder, draw = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    documents = ["".join(draw.choice(list("abcde "), draw.integers(1, 40))).strip() or "a" for _ in range(120)]
    for i, document in enumerate(documents):
        (folder / f"{i:03}.txt").write_text(document)
    (folder / "all.text").write_text("\n".join(documents))
    pairs = [f"{source}\t{target}" for source, target in zip(documents, reversed(documents), strict=True)]
    (folder / "pairs.tsv").write_text("\n".join(["source\ttarget", *pairs]))
    labels = [f"{text}\t{'many' if len(text) > 20 else 'few'}" for text in documents]
    (folder / "labels.tsv").write_text("\n".join(["text\tlabel", *labels]))
    where = {"line": "all.text", "text": "all.text", "file": "*.txt", "pairs": "pairs.tsv", "labels": "labels.tsv"}
    held_out = {"dev_fraction": 0.1, "test_fraction": 0.1, "tokenizer": "characters"}
    return {
        unit: prepare(open_corpus(str(folder / path), read), TextConfig(unit=read, **held_out))
        for unit, path in where.items()
        for read in [unit if unit not in ("pairs", "labels") else "line"]
    }


@pytest.fixture(params=CASES, ids=" ".join)
def task(request, stores):
    kind, reads, unit = request.param
    return CONFIGS[kind].make(MODELS[reads], stores[unit])


def logits_of(targets, seed=0):
    """Some logits for these targets, which depend on nothing."""
    return torch.randn(*targets.shape, V, generator=torch.Generator().manual_seed(seed))


def test_the_table_has_every_task_by_its_name():
    apart = {kind for kind, config in TASKS.items() if config.coupled}
    assert apart == {"contrastive"}
    assert CONFIGS.keys() == TASKS.keys() - apart == {kind for kind, _, _ in CASES}
    assert all(config.kind == kind for kind, config in CONFIGS.items())


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("size", [1, 4])
def test_a_sweep_has_every_target_of_a_split_once(task, split, size):
    batches = list(task.examples(split).sweep(size))
    assert sum(batch.n_targets for batch in batches) == task.totals(split)["targets"] > 0
    assert all(len(batch.targets) <= size for batch in batches)


def test_units_are_counted_from_0_and_each_has_the_same_targets_in_any_sweep(task):
    sums = []
    for size in (1, 5):
        counts = np.zeros(task.n_units("dev"))
        for batch in task.examples("dev").sweep(size):
            units = batch.units.expand_as(batch.targets)[batch.targets != IGNORED]
            assert units.min() >= 0
            counts += np.bincount(units.numpy(), minlength=len(counts))
        sums.append(counts)
    assert np.array_equal(*sums)
    assert sums[0].sum() == task.totals("dev")["targets"]


def test_a_sampled_sweep_is_the_same_each_time_and_a_part_of_the_whole(task):
    few = min(30, int(task.totals("dev")["targets"]) - 4)
    first, again = (list(task.examples("dev").sweep(4, few)) for _ in range(2))
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(first, again, strict=True))
    assert few <= sum(batch.n_targets for batch in first) < task.totals("dev")["targets"]


def test_every_example_of_an_epoch_can_be_taken_and_is_the_same_each_time(task):
    examples = task.examples("train")
    indices = np.arange(len(examples))
    one, other = examples.take(indices, key=5), examples.take(indices, key=5)
    assert torch.equal(one.targets, other.targets)
    assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
    assert all(len(tensor) == len(indices) for tensor in (one.targets, *one.inputs.values()))
    assert (one.targets != IGNORED).any(dim=1).all()


def test_losses_sum_to_the_loss_and_are_0_where_ignored(task):
    targets = next(iter(task.examples("dev").sweep(6))).targets.clone()
    targets[0] = IGNORED
    logits = logits_of(targets)
    losses = task.losses(logits, targets)
    assert losses.shape == targets.shape
    assert (losses[targets == IGNORED] == 0).all()
    assert (losses[targets != IGNORED] > 0).all()
    training = [task.training_loss_sum(logits, targets, once=once) for once in (False, True)]
    for loss in (task.loss_sum(logits, targets), *training):
        assert loss.item() == pytest.approx(losses.sum().item(), rel=1e-6)


def test_ignored_rows_do_not_change_the_losses_of_others(task):
    targets = next(iter(task.examples("dev").sweep(6))).targets
    logits, masked = logits_of(targets), targets.clone()
    masked[1::2] = IGNORED
    assert torch.equal(task.losses(logits, masked)[::2], task.losses(logits, targets)[::2])
    other = logits.clone()
    other[1::2] = 1e4
    assert torch.equal(task.losses(other, masked)[::2], task.losses(logits, masked)[::2])
    assert torch.autograd.grad(task.loss_sum(logits.requires_grad_(), masked), logits)[0][1::2].abs().max() == 0


def test_a_blind_guess_costs_what_the_task_says(task):
    targets = next(iter(task.examples("dev").sweep(6))).targets
    losses = task.losses(torch.zeros(*targets.shape, V), targets)
    assert losses[targets != IGNORED].mean().item() == pytest.approx(task.blind, rel=1e-6)


def test_metrics_are_made_of_what_is_counted(task):
    by_class = {f"{count}/{label}": 2.0 for count in ("right", "said", "is") for label in range(V)}
    columns = by_class | {"nats": 30.0, "right": 3, "exact": 2, **task.totals("dev"), "targets": 10}
    for metric in task.metrics:
        assert metric.better in ("lower", "higher")
        assert np.isfinite(metric.score(columns))
    assert len({metric.name for metric in task.metrics}) == len(task.metrics)

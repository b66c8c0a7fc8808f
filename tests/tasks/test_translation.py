"""Translation by a decoder alone: what is a target, what is refused, and scores that are those of what it writes."""

import math

import numpy as np
import pytest
import torch

from windtunnel.config import override
from windtunnel.errors import ConfigError, DataError
from windtunnel.generation.translate import translate
from windtunnel.models import MLPConfig, TransformerConfig, TranslatorConfig
from windtunnel.tasks import LanguageConfig, TranslationConfig
from windtunnel.tasks.translation import Pairs, PairsApart
from windtunnel.text.batches import IGNORED, in_epochs
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, prepare
from windtunnel.training.compiling import compiling_pays
from windtunnel.training.data import open_store, open_task
from windtunnel.training.evaluate import evaluate, unit_sums
from windtunnel.training.events import Evaluation
from windtunnel.training.imports import continue_from
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import initial_model, load, resolve
from windtunnel.training.step import gradients

I = IGNORED  # noqa: E741
CHANGES = ["train.steps=80", "train.eval_every=80", "train.save_every=80", "schedule.warmup=20",
           "train.sample_tokens=0",
           "train.batch_size=32", "model.n_layers=2", "model.d_model=32", "model.context_length=16",
           "text.dev_fraction=.2", "train.compile=false", "train.threads=1"]  # fmt: skip


def write_pairs(path, pairs):
    path.write_text("\n".join(["source\ttarget", *(f"{source}\t{target}" for source, target in pairs)]))
    return str(path)


@pytest.fixture(scope="module", params=["transformer", "translator", "rnn"])
def trained(request, tmp_path_factory):
    """A run that copies words of two letters, long enough to be right for many and wrong for some."""
    folder = tmp_path_factory.mktemp("copy")
    pairs = [(a + b, a + b) for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]
    config = override(
        recipe("translate", write_pairs(folder / "pairs.tsv", pairs)), [f"model.family={request.param}", *CHANGES]
    )
    events = list(fit(config, folder / "run"))
    return load(folder / "run"), [e for e in events if isinstance(e, Evaluation)]


def test_only_what_follows_the_turn_is_predicted():
    """Row 004-2.2.1 with one mark for begin and end: 28 source 29 target 28."""
    pairs = Pairs(np.array([5, 6, 29, 6, 5, 0, 24, 7, 29, 8]), np.array([0, 7, 10]), 28, 29, context_length=8)
    batch = pairs.take(np.array([0, 1]))
    assert batch.ids.tolist() == [[28, 7, 29, 8, 0, 0, 0, 0], [28, 5, 6, 29, 6, 5, 0, 24]]  # the shortest first
    assert batch.targets.tolist() == [[I, I, 8, 28, I, I, I, I], [I, I, I, 6, 5, 0, 24, 28]]
    assert pairs.lengths.tolist() == [5, 2]
    assert [b.units.flatten().tolist() for b in pairs.sweep(1)] == [[1], [0]]  # the shortest first


def test_a_model_that_reads_pairs_is_given_the_source_apart():
    ids, offsets = np.array([5, 6, 29, 6, 5, 0, 24, 7, 29, 8, 29, 9]), np.array([0, 7, 10, 12])
    pairs = PairsApart(ids, offsets, 28, 29, context_length=5)  # of the longest target, with its end mark
    batch = pairs.take(np.array([0, 1, 2]))
    assert batch.ids.tolist() == [[28, 9, 0, 0, 0], [28, 8, 0, 0, 0], [28, 6, 5, 0, 24]]
    assert batch.targets.tolist() == [[9, 28, I, I, I], [8, 28, I, I, I], [6, 5, 0, 24, 28]]
    assert batch.inputs["source"].tolist() == [[28, 0, 0], [7, 28, 0], [5, 6, 28]]  # the first has an empty source
    assert batch.inputs["source_kept"].tolist() == [[True, False, False], [True, True, False], [True] * 3]
    assert pairs.lengths.tolist() == [5, 2, 2]
    assert [b.units.flatten().tolist() for b in pairs.sweep(2)] == [[2, 1], [0]]
    with pytest.raises(DataError, match="needs 5 tokens and the context has 4"):
        PairsApart(ids, offsets, 28, 29, context_length=4)


def test_batches_of_two_epochs_and_of_parts_keep_each_source_beside_its_target():
    n = 7
    ids = np.concatenate([np.r_[np.full(i + 1, i), 29, np.full(n - i, i)] for i in range(n)])
    pairs = PairsApart(ids, np.arange(n + 1) * (n + 2), 28, 29, context_length=n + 1)
    across = in_epochs(pairs, 0, 4, 10)  # seven pairs an epoch
    for part in (across, *across.split(4)):
        for row, source, kept in zip(part.targets, part.inputs["source"], part.inputs["source_kept"], strict=True):
            i = int(row[0])
            assert row[row != I].tolist() == [i] * (n - i) + [28]
            assert source[kept].tolist() == [i] * (i + 1) + [28]
        assert part.inputs["source_kept"].any(dim=0).all()  # each part is as wide as its own longest
        assert (part.targets != I).any(dim=0).all()


@pytest.mark.parametrize(("ids", "offsets", "context", "message"), [
    ([5, 29, 6], [0, 3], 3, r"needs 4 tokens and the context has 3.*--set model.context_length=4"),
    ([5, 6, 7], [0, 3], 9, "no pair; expected one TAB"),
    ([29, 29, 6], [0, 2, 3], 9, "no pair; expected one TAB"),
    ([], [0], 9, "holds no pair"),
])  # fmt: skip
def test_what_is_no_pair_or_does_not_fit_is_refused(ids, offsets, context, message):
    with pytest.raises(DataError, match=message):
        Pairs(np.array(ids, np.int64), np.array(offsets), 28, 29, context)


def test_a_text_or_a_model_that_reads_one_context_is_refused():
    store = prepare(open_corpus("names", "line"), TextConfig(unit="line"))
    with pytest.raises(ConfigError, match="needs a corpus with the fields source and target, and names has text"):
        TranslationConfig().make(TransformerConfig(), store)
    with pytest.raises(ConfigError, match="reads the whole source, and the family mlp reads 3 tokens"):
        TranslationConfig().model(MLPConfig())
    with pytest.raises(ConfigError, match=r"the family translator reads a source .* give a corpus of pairs"):
        LanguageConfig().model(TranslatorConfig())


def test_teacher_forced_exact_match_is_that_of_the_greedy_texts(trained):
    model, evaluations = trained
    task = open_task(model.run.config)
    documents = [d.split("\t") for d in _documents(task.store)]
    written = [translate(model, source)[0] for source, _ in documents]
    right = [one.complete and one.target == target for one, (_, target) in zip(written, documents, strict=True)]
    found = evaluate(model.model, task, "dev", model.step)
    assert 0 < sum(right) < len(right)  # neither all nor none, or the test would say little
    assert found.scores["exact_match"] == sum(right) / len(right) == evaluations[-1].scores["exact_match"]
    sums = unit_sums(model.model, task, "dev")
    assert sums["exact"].tolist() == [float(x) for x in right]
    assert sums["nats"].sum() / sums["targets"].sum() == pytest.approx(found.loss, rel=1e-5)
    for one, nats, ok in zip(written, sums["nats"], right, strict=True):
        assert not ok or one.probability == pytest.approx(math.exp(-nats), rel=1e-4)


def _documents(store):
    part, decode = store.splits["dev"], store.tokenizer.decode
    return [decode(part.ids[a:b].tolist()) for a, b in zip(part.offsets[:-1], part.offsets[1:], strict=True)]


@pytest.mark.parametrize("family", ["transformer", "translator", "rnn"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(family, tmp_path):
    pairs = [("a" * i, "b" * (9 - i)) for i in range(1, 9)] + [("c", "d")]
    changes = [f"model.family={family}", *CHANGES, "text.dev_fraction=0", "text.test_fraction=0"]
    config = override(recipe("translate", write_pairs(tmp_path / "pairs.tsv", pairs)), changes)
    store = open_store(config)
    config = resolve(config, store)
    task, model, found = open_task(config, store), initial_model(config).double(), []
    rows = in_epochs(task.examples("train"), 0, 0, 14)  # of two epochs

    def loss_of(batch):
        logits = model(**batch.inputs)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=I, reduction="sum"
        )

    for parts in (1, 4):
        model.zero_grad()
        loss = gradients(loss_of, rows, parts, 0, 0)
        found.append((loss, torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


def test_pairs_are_translated_without_being_asked():
    assert recipe("auto", "pig-latin-small") == recipe("translate", "pig-latin-small")
    assert recipe("auto", "names").task.kind == "language"


def test_a_run_on_pairs_is_not_compiled_unless_it_is_asked_for():
    """Its widths change from step to step, and eager was found faster."""
    long = override(recipe("translate", "pig-latin-small"), ["train.steps=100000000", "train.threads=1"])
    assert not compiling_pays(long)
    assert compiling_pays(override(long, ["task.kind=language"]))


def test_the_source_costs_nothing(trained):
    """Another source under the same targets: the loss counts no token of it."""
    task = open_task(trained[0].run.config)
    batch = task.examples("dev").take(np.array([0, 1]))
    logits = torch.randn(*batch.targets.shape, task.model.vocab_size)
    other = logits.clone()
    other[batch.targets == I] += 100
    assert torch.equal(task.losses(logits, batch.targets), task.losses(other, batch.targets))


def test_a_run_is_trained_further_at_its_own_task(trained):
    run = trained[0].run
    assert continue_from(run.folder, run.config.corpus).task == run.config.task
    assert continue_from(run.folder, run.config.corpus, "tiny").task.kind == "language"


def test_the_share_of_the_machine_counts_what_is_read_of_a_pair(trained):
    """Every source and target here is of two letters and an end mark; the context, which has 16 tokens, is not full."""
    run = trained[0].run
    (started,) = run.events("started")
    model = run.config.model
    read = model.flops_by_part(3, source=3) if model.reads == "pair" else model.flops_by_part(2 + 1 + 2 + 1)
    assert started.flops_per_token == 3 * sum(read.values()) / 3

"""001-3.3, 4.1, 4.2, E14, E15: a head for sentiment on a small GPT, a pretrained encoder, an untrained fixture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from windtunnel.config import override
from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, Steps, draw, table
from windtunnel.experiments.sentiment_texts import Texts, read_texts
from windtunnel.experiments.training import FIELDS, folders_of, language_model, trained, write_corpus, write_labelled
from windtunnel.inspect.baselines import MAJORITY, NGRAMS, baselines, labels_of
from windtunnel.inspect.classification import Scores, classification_of, predict_split, scores_of
from windtunnel.models import Classifier, ClassifierConfig, TransformerConfig
from windtunnel.report.charts import dots, lines
from windtunnel.runs.arms import Arm
from windtunnel.runs.seeds import find_start
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.stats.proportions import wilson
from windtunnel.tasks import Classification
from windtunnel.text.features import Floats
from windtunnel.training.checkpoint import checkpoints, load_weights, newest_checkpoint
from windtunnel.training.imports import continue_from
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.recipes import recipe, tiny
from windtunnel.training.run import TrainedModel, load, open_run
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import ScheduleConfig

SMALL, TUNED, FIXTURE = Row("001-3.3"), Row("001-4.1"), Row("001-4.2")
E14, E15 = Row("E14"), Row("E15")
GPT, RANDOM = "small GPT, pretrained", "small GPT, random weights"
AS_PRINTED, FASTER = "fixture, as published", "fixture, 100 times the rate"
FROZEN, LAST = "MiniLM, frozen", "MiniLM, last two layers"
NANO = TransformerConfig(context_length=64, n_layers=3, n_heads=3, d_model=48, dropout=0.1, activation="gelu_tanh")
UNTRAINED = TransformerConfig(
    vocab_size=50257, context_length=1024, n_layers=2, n_heads=2, d_model=2, dropout=0.1, activation="gelu_tanh"
)
"""The published "smallest pretrained GPT-2", a test fixture: GPT-2's vocabulary and context at a width of 2."""
N_UNTRAINED, PRINTED_LOSS, PRINTED, SMALL_PRINTED = 102_714, 0.69141, (130, 240), (160, 240)
TRAINER = OptimizerConfig(lr=5e-5, beta_2=0.999, weight_decay=0.0)
"""What transformers' Trainer takes when it is told nothing."""
CLOSE = 0.01
"""Nats a text, and share of texts, that do not matter."""
MORE = 1e-9
"""The least difference that is one."""


@dataclass(frozen=True)
class Seen:
    """Predictions of some texts. loss: nats per text. right: whether the label of each is predicted, (N,)."""

    loss: float
    right: Floats

    @property
    def accuracy(self) -> float:
        """The share of texts whose label is predicted."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Course:
    """A run at each of its checkpoints.

    steps: (K,). seen: by split, train (only where K > 1) and dev, what was predicted at each checkpoint.
    best: which one has the lowest loss on dev. test: what the best and the last of them predict there.
    """

    steps: list[int]
    seen: dict[str, list[Seen]]
    best: int
    test: dict[str, Seen]


Courses = Mapping[str, Sequence[Course]]


def sentiment_head(at: Setting) -> Findings:
    """A head for sentiment.

    Texts are positive or negative: 960 to train on, 240 for dev, and 2,000 for the test, on which everything is judged.
    The language head of a small GPT that read other texts before gives way to a linear layer on the last token, and
    all is trained as published, 900 steps; beside it stand the same GPT with random weights, an encoder that is really
    pretrained (all-MiniLM-L6-v2), and the untrained fixture of 102,714 parameters that was published as the smallest
    pretrained GPT-2, as published for 50 epochs and with 100 times that learning rate. `--corpus FILE` takes a table of
    SST-2's form, sentence and label.
    """
    yield Progress("reading texts")
    texts, minilm = read_texts(at), find_start("minilm-l6", at.out / "runs")
    corpus = at.out / "texts.csv"
    write_labelled(corpus, texts.parts)
    yield Given({"corpus": texts.origin, "texts": {name: len(own) for name, own in texts.parts.items()}})
    yield from _published(texts)
    arms = yield from _arms(at, texts, corpus, minilm)
    found = yield from trained(at, "what is learned", arms, at.seeds(5), name="arms")
    courses: dict[str, list[Course]] = {}
    for i, arm in enumerate(arms):
        yield Progress("judging every checkpoint", i, len(arms))
        courses[arm.name] = courses_of(folders_of(found, arm.name))
    first = load(folders_of(found, RANDOM)[0])
    yield from _curves(courses)
    yield from _last_and_best(courses[GPT])
    right = yield from _baselines_and_arms(first, courses)
    yield from _heads(load(folders_of(found, GPT)[0]), right, courses)
    yield from _fixture(right, courses)


# ---------------------------------------------------------------------------------------------------------- what is run


def untrained_classifier() -> ClassifierConfig:
    """The fixture with a head for labels on its last token."""
    shape = {"vocab_size": UNTRAINED.vocab_size, "context_length": UNTRAINED.context_length}
    return ClassifierConfig(**shape, pool="last", trunk=UNTRAINED)


def _arms(at: Setting, texts: Texts, corpus: Path, minilm: Path) -> Steps[list[Arm]]:
    """The first is the baseline of the comparison."""
    yield Progress("the small GPT reads")
    small = _pretrained(at, texts)
    never, tune = 10**9, at.size(900, quick=6)
    often = at.size((60, 300, 15), quick=(2, 2, 5))
    gpt = _settled(at, continue_from(small, str(corpus), columns=FIELDS), tune, often[0])
    gpt = override(gpt, ["model.pool=last", "optimizer.lr=5e-4", "optimizer.beta_2=0.95", "schedule.curve=constant"])
    base = _settled(at, recipe("classify", str(corpus)), at.size(3000, quick=4), often[1])
    fixture = override(base.replace(model=untrained_classifier(), optimizer=TRAINER), ["text.tokenizer=gpt2"])
    encoder = _settled(at, continue_from(minilm, str(corpus), columns=FIELDS), at.size(60, quick=2), never)
    tuned = ["train.freeze=4", "optimizer.lr=2e-3", "optimizer.trunk_factor=0.1", "schedule.warmup=6"]
    return [
        Arm(GPT, gpt),
        Arm(RANDOM, gpt.replace(start=None)),
        Arm(AS_PRINTED, fixture),
        Arm(FASTER, override(fixture, [f"optimizer.lr={100 * TRAINER.lr}"])),
        Arm(FROZEN, override(encoder, ["train.freeze=all"])),
        Arm(LAST, override(encoder, tuned)),
    ]


def _settled(at: Setting, config: RunConfig, steps: int, every: int) -> RunConfig:
    """Batches of 16, the last checkpoint, and one in `every` steps to look at."""
    train = {"steps": steps, "batch_size": 16, "eval_every": every, "save_every": every, "keep": 100, "choose": "last"}
    return config.replace(
        text=config.text.replace(columns=FIELDS),
        schedule=ScheduleConfig(curve="linear", warmup=0, final_fraction=0.0),
        train=config.train.replace(**train, threads=1, precision="fp32"),
        seed=at.seed,
    )


def _pretrained(at: Setting, texts: Texts) -> Path:
    """A small GPT that read the other texts, a text an example."""
    corpus, folder = at.out / "others.txt", at.out / "runs" / "small-gpt"
    write_corpus(corpus, "\n".join(texts.others))
    steps = at.size(1000, quick=4)
    changes = [f"train.steps={steps}", "train.batch_size=32", "optimizer.lr=3e-3", "text.tokenizer=bpe"]
    return language_model(at, folder, tiny(str(corpus)).replace(model=NANO), changes)


def courses_of(folders: Sequence[Path]) -> list[Course]:
    """The courses of an arm's runs; those of a frozen trunk with a solved head are the same for every seed."""
    if open_run(folders[0]).config.train.freeze == "all":
        return [course_of(folders[0])] * len(folders)
    return [course_of(folder) for folder in folders]


def course_of(folder: Path) -> Course:
    """What a run predicts at each checkpoint that it kept after an evaluation; one of a stop between is passed over."""
    trained = load(folder)
    task, train = classification_of(trained), trained.run.config.train
    steps = sorted(step for step, _ in checkpoints(folder) if step % train.eval_every == 0 or step == train.steps)
    seen: dict[str, list[Seen]] = {split: [] for split in (("train", "dev") if len(steps) > 1 else ("dev",))}
    for step in steps:
        _go_to(trained, step)
        for split, own in seen.items():
            own.append(_seen(trained, task, split))
    last = _seen(trained, task, "test")
    best = min(range(len(steps)), key=lambda i: seen["dev"][i].loss)
    if best == len(steps) - 1:
        return Course(steps, seen, best, {"best": last, "last": last})
    _go_to(trained, steps[best])
    return Course(steps, seen, best, {"best": _seen(trained, task, "test"), "last": last})


def _go_to(trained: TrainedModel, step: int) -> None:
    saved = newest_checkpoint(trained.run.folder, step)
    assert saved is not None
    load_weights(trained.model, saved.weights)


def _seen(trained: TrainedModel, task: Classification, split: str) -> Seen:
    true, found = labels_of(task, split), predict_split(trained, task, split)
    nats = -np.log(found[np.arange(len(true)), true])
    return Seen(float(nats.mean()), (found.argmax(axis=1) == true).astype(float))


# ------------------------------------------------------------------------------------------------------------ judgement


def _published(texts: Texts) -> Findings:
    """What the printed numbers are by themselves."""
    names = sorted({label for own in texts.counts.values() for label in own})
    yield table("Texts by label", ("", *names), [(part, *(n[x] for x in names)) for part, n in texts.counts.items()])
    yield E15.same("the parameters of the fixture are counted", UNTRAINED.n_parameters(), N_UNTRAINED)
    gap, half = abs(PRINTED_LOSS - math.log(2)), f"ln 2 is {math.log(2):.5f}"
    yield E15.equal("its printed loss is that of a blind guess", gap, 0.005, f"{PRINTED_LOSS}", half)
    above = wilson(*SMALL_PRINTED)
    statement = "66.67 % of 240 texts is more than the 54.17 % that was printed for the fixture"
    yield E14.within(statement, above, PRINTED[0] / PRINTED[1], printed="160 and 130 of 240")


def _curves(courses: Courses) -> Findings:
    """Loss and accuracy of the small GPT and of the fixture at each checkpoint, over seeds."""
    panels = []
    for name in (GPT, AS_PRINTED, FASTER):
        own, blind = courses[name], {"ln 2": math.log(2)}
        for what, across in (("loss", blind), ("accuracy", None)):
            found = {split: np.array([[getattr(one, what) for one in c.seen[split]] for c in own])
                     for split in ("train", "dev")}  # fmt: skip
            curves = {split: (own[0].steps, values) for split, values in found.items()}
            unit = "nats per text" if what == "loss" else what
            panels.append(lines(curves, across, title=f"{name}: {what}", xlabel="step", ylabel=unit))
    yield draw("curves", *panels, size=(10.0, 11.0), columns=2)


def _last_and_best(own: Sequence[Course]) -> Findings:
    """E14: what the last checkpoint of the small GPT is worth beside the one that was best on dev."""
    rows = []
    for what in ("best", "last"):
        at = [one.best if what == "best" else -1 for one in own]
        parts = {split: [one.seen[split][i] for one, i in zip(own, at, strict=True)] for split in ("train", "dev")}
        for split, found in (parts | {"test": [one.test[what] for one in own]}).items():
            means = (mean_interval([getattr(one, value) for one in found]) for value in ("loss", "accuracy"))
            rows.append((f"{what} on dev" if what == "best" else what, split, *means))
    yield table(f"{GPT}: two checkpoints, over seeds", ("checkpoint", "", "nats per text", "accuracy"), rows)
    worse = mean_interval([one.test["last"].loss - one.test["best"].loss for one in own])
    steps = ", ".join(str(one.steps[one.best]) for one in own)
    yield E14.within(
        "the last checkpoint has a higher loss on the test than the one that was best on dev",
        worse,
        MORE,
        printed="1.442 after 900 steps, .673 after 300",
        shown=f"{{}} nats more; the best are those of the steps {steps} of {own[0].steps[-1]}",
    )
    gain = mean_interval([one.test["best"].accuracy - one.test["last"].accuracy for one in own])
    yield E14.within("that one finds more labels of the test, too", gain, MORE, printed="66.67 % is the last's")


def _baselines_and_arms(trained: TrainedModel, courses: Courses) -> Steps[dict[str, Floats]]:
    """Everything on the test; gives for each text the share of seeds that find its label, (N,): of the baselines, and
    of the arms by the checkpoint that was best on dev."""
    task = classification_of(trained)
    true = labels_of(task, "test")
    told = {one.name: one.probabilities for one in baselines(trained.run.config, task, "test")
            if one.name in (MAJORITY, NGRAMS)}  # fmt: skip
    known: dict[str, Scores] = {name: scores_of(found, true) for name, found in told.items()}
    right = {name: (found.argmax(axis=1) == true).astype(float) for name, found in told.items()}
    right |= {name: _shares(own, "best") for name, own in courses.items()}
    shown: dict[str, dict[str, Estimate]] = {"best on dev": {n: own.accuracy for n, own in known.items()}, "last": {}}
    rows: list[Sequence[object]] = [(name, own.accuracy, own.loss or "", "", "", "") for name, own in known.items()]
    for name, own in courses.items():
        best, last = ([one.test[what] for one in own] for what in ("best", "last"))
        values = [mean_interval([getattr(one, value) for one in some])
                  for some in (best, last) for value in ("accuracy", "loss")]  # fmt: skip
        shown["best on dev"][name], shown["last"][name] = values[0], values[2]
        rows.append((name, *values, _beside(right[name], right[NGRAMS])))
    heads = ("", "accuracy, best on dev", "nats per text", "accuracy, last", "nats per text", "best minus n-grams")
    yield table(f"On the {len(true):,} of the test: baselines over texts, arms over seeds", heads, rows)
    names = [*known, *courses]
    yield draw("scores", dots(shown, names, xlabel="test accuracy, 95 % intervals"), size=(8.0, 4.2))
    return right


def _shares(own: Sequence[Course], what: str) -> Floats:
    """The share of seeds that find the label of each text of the test, (N,), with the best or the last checkpoint."""
    return np.mean([one.test[what].right for one in own], axis=0)


def _beside(one: Floats, other: Floats) -> Estimate:
    """How many more texts one finds than the other: the mean over texts, each of them over the seeds."""
    return bca_interval(one - other)


def _heads(trained: TrainedModel, right: Mapping[str, Floats], courses: Courses) -> Findings:
    """001-3.3 and 4.1: the small GPT and the pretrained encoder beside what needs no network."""
    model, task = trained.model, classification_of(trained)
    assert isinstance(model, Classifier)
    shape = f"{model.head.in_features} to {model.head.out_features}"
    wanted = f"{NANO.d_model} to {len(task.store.labels)}"
    yield SMALL.same("the language head gave way to one for labels", shape, wanted)
    batch = task.examples("dev").take(np.arange(8))
    with torch.no_grad():
        together = model(**batch.inputs)
        alone = torch.cat([model(**task.examples("dev").take(np.array([i])).inputs) for i in range(8)])
    yield SMALL.equal("its logits do not depend on padding", (together - alone).numpy(), 1e-5)
    for row, name, statement in (
        (SMALL, MAJORITY, "the small GPT finds more labels than the majority label"),
        (SMALL, NGRAMS, "and more than TF-IDF n-grams"),
        (SMALL, RANDOM, "and more than with random weights: what it read before helps"),
    ):
        yield row.within(statement, _beside(right[GPT], right[name]), MORE, shown=f"{{}} above {name}")
    best = max((FROZEN, LAST), key=lambda name: fmean(one.seen["dev"][-1].accuracy for one in courses[name]))
    for name in (MAJORITY, NGRAMS, GPT):
        statement = f"a pretrained encoder, the better of two on dev, finds more labels than {name}"
        yield TUNED.within(statement, _beside(right[best], right[name]), MORE, shown=f"{best}: {{}}")


def _fixture(right: Mapping[str, Floats], courses: Courses) -> Findings:
    """001-4.2 and E15: what the fixture learns as published, and whether it could learn more; all after the last step,
    which was published."""
    last, blind = {name: _shares(own, "last") for name, own in courses.items()}, math.log(2)
    loss = mean_interval([one.test["last"].loss for one in courses[AS_PRINTED]])
    statement = "as published, the fixture's loss stays that of a blind guess"
    yield E15.within(statement, loss, blind - CLOSE, blind + CLOSE, f"{PRINTED_LOSS}, training")
    gain = _beside(last[AS_PRINTED], right[MAJORITY])
    statement = "as published, it finds no more labels than the majority label"
    yield E15.within(statement, gain, high=CLOSE, printed=".541667 = 130 of 240")
    best = max((one.test["last"] for one in courses[FASTER]), key=lambda seen: seen.accuracy)
    gain = bca_interval(best.right - right[MAJORITY], confidence=1 - 0.05 / len(courses[FASTER]))  # the best of so many
    seeds = ", ".join(f"{one.test['last'].accuracy:.3f}" for one in courses[FASTER])
    statement = "that it has not enough parameters: with 100 times the rate no seed finds more than that either"
    shown = f"the best seed {{}} above {MAJORITY}; accuracy by seed {seeds}"
    yield E15.within(statement, gain, high=CLOSE, printed="not enough parameters", shown=shown)
    for name, printed in ((AS_PRINTED, "66.7 against 54.2 %"), (FASTER, "")):
        statement = f"the small GPT finds more labels than the {name}, each after its last step"
        yield FIXTURE.within(statement, _beside(last[GPT], last[name]), MORE, printed=printed)

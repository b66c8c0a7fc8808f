"""004-3.1 to 3.5, E33: what is learned from 448 sums in words, and whether it is more than the majority label."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from windtunnel.comparison.comparison import Comparison
from windtunnel.config import override
from windtunnel.experiments.frame import Findings, Given, Row, Setting, Steps, draw, table
from windtunnel.experiments.minilm_arms import LAST_TWO, MISREAD, SOLVED, UNTRAINED, WHOLE, minilm_arms
from windtunnel.experiments.training import FIELDS, folders_of, language_model, trained, write_corpus, write_labelled
from windtunnel.inspect.baselines import MAJORITY, NGRAMS, baselines, labels_of
from windtunnel.inspect.classification import (
    classification_of,
    confusion_of,
    macro_f1_of,
    predict,
    predict_split,
    scores_of,
)
from windtunnel.models.pretrained.catalogue import MINILM
from windtunnel.report.charts import dots
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.stats.proportions import wilson
from windtunnel.text.features import Floats
from windtunnel.training.imports import continue_from
from windtunnel.training.recipes import recipe, tiny
from windtunnel.training.run import load, open_run
from windtunnel.training.run_config import RunConfig

HEAD, FULL, FROZEN, OTHER, SENTENCES = (Row(f"004-3.{i}") for i in range(1, 6))
E33 = Row("E33")
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()  # noqa: SIM905
TRAIN = {"negative": 143, "zero": 19, "positive": 478}
"""How many of the source's 640 training expressions have each label; the other 160 of all 800 are its test."""
MAJORITY_PRINTED, OTHER_PRINTED, NGRAMS_SKETCH = 0.74479, 0.719, 0.932
ASKED = ("three minus five", "nine plus seven", "eleven minus eleven", "three minus two minus two")
Pair = tuple[str, str]


def verbal_arithmetic(at: Setting) -> Findings:
    """Sums and differences in words: positive, negative or zero.

    All 20 x 20 x 2 expressions of two numbers below twenty, the source's 640 for training and 160 for the test by their
    published counts (which ones they were is not published; here a seed draws them), and of the 640 its stratified
    split into 448 and 192. Arms begin with random weights, or with a small model that was trained on counting alone:
    runs of numbers, and "nine plus one is ten". Other arms have the shape of MiniLM (`windtunnel models get minilm-l6`;
    without it they are left out). Every arm is judged on the 192, after its last step.
    """
    parts = source_split()
    yield from _counted(parts)
    corpus = at.out / "expressions.csv"
    write_labelled(corpus, parts)
    arms = _arms(at, corpus)
    yield Given({"expressions": {name: len(own) for name, own in parts.items()}, "asked": ASKED})
    found = yield from trained(at, "what is learned", arms, at.seeds(8), name="arms")
    firsts = yield from _small_arms(found, [arm.name for arm in arms])
    if MINILM.path.exists():
        firsts |= yield from large_arms(at, corpus)
    else:
        yield Given({"MiniLM": "not on this machine, its arms are left out; windtunnel models get minilm-l6"})
    yield from _sentences(firsts)


def expressions() -> list[Pair]:
    """All 800 with their labels."""
    pairs = []
    for a, first in enumerate(NUMBERS):
        for b, second in enumerate(NUMBERS):
            pairs += [(f"{first} plus {second}", label_of(a + b)), (f"{first} minus {second}", label_of(a - b))]
    return pairs


def label_of(value: int) -> str:
    """positive, negative or zero."""
    return "positive" if value > 0 else "negative" if value < 0 else "zero"


def source_split(seed: int = 0) -> dict[str, list[Pair]]:
    """Train (448), dev (192) and test (160) with the source's count of each label."""
    from sklearn.model_selection import train_test_split

    shuffle, train, test = random.Random(seed), [], []
    for label, n in TRAIN.items():
        own = [pair for pair in expressions() if pair[1] == label]
        shuffle.shuffle(own)
        train += own[:n]
        test += own[n:]
    fitted, held = train_test_split(train, random_state=42, test_size=0.3, stratify=[label for _, label in train])
    return {"train": fitted, "dev": held, "test": test}


def counting(seed: int = 0) -> list[str]:
    """3,000 runs of 2 to 8 numbers up or down, and each successor as a sum and as a difference, 20 times."""
    pick, told = random.Random(seed), []
    for _ in range(3000):
        n = pick.randint(2, 8)
        first = pick.randint(0, 20 - n)
        run = NUMBERS[first : first + n]
        told.append(" ".join(run if pick.random() < 0.5 else run[::-1]))
    for one, more in pairwise(NUMBERS):
        told += 20 * [f"{one} plus one is {more}", f"{more} minus one is {one}"]
    pick.shuffle(told)
    return told


def _counted(parts: Mapping[str, Sequence[Pair]]) -> Findings:
    """The class counts of the source, and what its two printed accuracies are."""
    counts = {name: Counter(label for _, label in own) for name, own in parts.items()}
    both = counts["train"] + counts["dev"]
    shown = {"640": dict(sorted(both.items())), "160": dict(sorted(counts["test"].items()))}
    printed = {"640": dict(sorted(TRAIN.items())), "160": {"negative": 47, "positive": 111, "zero": 2}}
    yield FULL.same("the labels of the 640 and the 160 expressions are counted", shown, printed)
    rows = [(name, *(own[label] for label in TRAIN)) for name, own in counts.items()]
    yield table("Expressions by label", ("", *TRAIN), rows)
    majority = wilson(counts["dev"]["positive"], len(parts["dev"]))
    statement = "74.479 % is the majority label's accuracy on the 192, exactly: 143 of them are positive"
    yield E33.equal(statement, abs(majority.estimate - MAJORITY_PRINTED), 1e-5, "74.479 %", f"{majority}")
    below = majority.estimate > OTHER_PRINTED
    yield E33.shows(
        "71.9 % is below the majority label", below, f"138 of 192, {138 / 192:.3f}", "71.9 %", majority=majority
    )


def _arms(at: Setting, corpus: Path) -> list[Arm]:
    """The first is the baseline of the comparison: random weights, all of them trained."""
    steps, pretraining = at.size(300, quick=4), at.size(500, quick=4)
    known = _pretrained(at, "counting", pretraining, "bpe")
    letters = _pretrained(at, "counting, by letter", pretraining, "characters")
    base = recipe("classify", str(corpus))
    small = ["model.trunk.n_layers=2", "model.context_length=16", "text.tokenizer=bpe", "optimizer.lr=0.002"]
    return [
        Arm("random weights", _settled(at, override(base, small), steps)),
        Arm("random weights, frozen", _settled(at, override(base, [*small, "train.freeze=all"]), steps)),
        Arm("counting, full", _settled(at, continue_from(known, str(corpus), columns=FIELDS), steps)),
        Arm("counting, last layer", _from(at, known, corpus, steps, "train.freeze=1")),
        Arm("counting, frozen", _from(at, known, corpus, steps, "train.freeze=all")),
        Arm("counting, other tokens", _from(at, letters, corpus, steps)),
    ]


def _from(at: Setting, run: Path, corpus: Path, steps: int, *changes: str) -> RunConfig:
    return _settled(at, override(continue_from(run, str(corpus), columns=FIELDS), changes), steps)


def _settled(at: Setting, config: RunConfig, steps: int) -> RunConfig:
    """What all arms have in common."""
    train = {"steps": steps, "eval_every": 10**9, "save_every": 10**9, "choose": "last", "threads": 1}
    return config.replace(
        text=config.text.replace(columns=FIELDS),
        optimizer=config.optimizer.replace(lr=2e-3),
        train=config.train.replace(**train, precision="fp32"),
        seed=at.seed,
    )


def _pretrained(at: Setting, name: str, steps: int, tokenizer: str) -> Path:
    """A language model of 2 layers x 64 that was trained on counting; `name` is that of its folder."""
    corpus, folder = at.out / "counting.txt", at.out / "runs" / name.replace(", ", "-").replace(" ", "-")
    write_corpus(corpus, "\n".join(counting()))
    changes = [f"text.tokenizer={tokenizer}", "model.n_layers=2", "model.context_length=48", f"train.steps={steps}"]
    return language_model(at, folder, tiny(str(corpus)), changes)


def _scores(folders: Iterable[Path]) -> Floats:
    """Accuracy, macro-F1, and the share of the six zeros that are found, on the 192: (seeds, 3)."""
    rows = []
    for folder in folders:
        model = load(folder)
        task = classification_of(model)
        said, true = predict_split(model, task, "dev").argmax(axis=1), labels_of(task, "dev")
        confusion = confusion_of(said, true, len(task.store.labels))
        zero = task.store.labels.index("zero")
        rows.append([(said == true).mean(), macro_f1_of(confusion), confusion[zero, zero] / confusion[zero].sum()])
    return np.array(rows)


def _small_arms(found: Comparison, arms: Sequence[str]) -> Steps[dict[str, Path]]:
    """The small arms and what is claimed of them; the first folder of each."""
    firsts, scores, ngrams = yield from _beside_baselines(found, arms, "scores")
    means = {name: mean_interval(own[:, 0].tolist()) for name, own in scores.items()}
    best = max(means, key=lambda name: means[name].estimate)
    statement = f"an arm is above n-grams' published {NGRAMS_SKETCH} over all seeds: {best}"
    yield FULL.within(statement, means[best], NGRAMS_SKETCH, printed="> 92 %")
    yield FULL.within("the same arm is above the n-grams of this very split", means[best], ngrams)
    statement = "a frozen random trunk with a solved head does no worse than the majority label"
    frozen = means["random weights, frozen"]
    yield FROZEN.within(statement, frozen, MAJORITY_PRINTED - 0.01, printed="74.5 %; .10 and .30 in two other runs")
    gap = _gap(scores, "counting, full", "counting, other tokens")
    yield OTHER.within("another tokenizer costs accuracy, with the same pretraining", gap, 0.0)
    labels = open_run(firsts[arms[0]]).record["labels"]
    statement = "every arm's head is linear: hidden to 3"
    yield HEAD.shows(statement, len(labels) == 3, "64 to 3", "Linear(h, 3)", labels=labels)
    return firsts


def large_arms(at: Setting, corpus: Path) -> Steps[dict[str, Path]]:
    """Train the arms of MiniLM's shape, and what is claimed of them; the first folder of each."""
    arms = minilm_arms(at, corpus)
    found = yield from trained(at, "what MiniLM learns", arms, at.seeds(8), name="minilm-arms")
    firsts, scores, ngrams = yield from _beside_baselines(found, [arm.name for arm in arms], "minilm-scores")
    means = {name: mean_interval(own[:, 0].tolist()) for name, own in scores.items()}
    for arm in (LAST_TWO, WHOLE):
        statement = f"{arm}: above n-grams' published {NGRAMS_SKETCH} over all seeds"
        yield FULL.within(statement, means[arm], NGRAMS_SKETCH, printed="> 92 %")
        yield FULL.within(f"{arm}: above the n-grams of this very split", means[arm], ngrams)
    statement = f"{SOLVED}, its head solved: no worse than the majority label"
    yield FROZEN.within(statement, means[SOLVED], MAJORITY_PRINTED - 0.01, printed="74.5 %; .10 and .30 in two others")
    gap = _gap(scores, WHOLE, UNTRAINED)
    yield OTHER.within("a random encoder of the same shape is worse than the pretrained one", gap, 0.0)
    gap = _gap(scores, WHOLE, MISREAD)
    yield OTHER.within("another's tokenizer costs accuracy, with the same weights", gap, 0.0)
    return firsts


def _gap(scores: Mapping[str, Floats], one: str, other: str) -> Estimate:
    """By how much an arm is more accurate than another, over paired seeds."""
    return mean_interval((scores[one][:, 0] - scores[other][:, 0]).tolist())


def _beside_baselines(
    found: Comparison, arms: Sequence[str], figure: str
) -> Steps[tuple[dict[str, Path], dict[str, Floats], float]]:
    """Every arm over its seeds beside the baselines: the first folder and the scores of each, the n-grams' accuracy."""
    folders = {name: folders_of(found, name) for name in arms}
    scores = {name: _scores(own) for name, own in folders.items()}
    firsts = {name: own[0] for name, own in folders.items()}
    model = load(firsts[arms[0]])
    task = classification_of(model)
    known = {one.name: scores_of(one.probabilities, labels_of(task, "dev")) for one in
             baselines(model.run.config, task, "dev") if one.name in (MAJORITY, NGRAMS)}  # fmt: skip
    means = {name: [mean_interval(column.tolist()) for column in own.T] for name, own in scores.items()}
    rows: list[Sequence[object]] = [(name, own.accuracy, own.macro_f1, "") for name, own in known.items()]
    rows += [(name, *own) for name, own in means.items()]
    yield table("On the 192: baselines over texts, arms over seeds", ("", "accuracy", "macro-F1", "zeros found"), rows)
    series: dict[str, dict[str, Estimate]] = {
        "accuracy": {**{n: s.accuracy for n, s in known.items()}, **{n: own[0] for n, own in means.items()}},
        "macro-F1": {**{n: s.macro_f1 for n, s in known.items()}, **{n: own[1] for n, own in means.items()}},
    }
    yield draw(figure, dots(series, [*known, *means], xlabel="95 % intervals"), size=(9.0, 4.8))
    return firsts, scores, known[NGRAMS].accuracy.estimate


def _sentences(folders: Mapping[str, Path]) -> Findings:
    """What the first seed of each arm says of the handout's sentences."""
    rows, right = [], []
    for name, folder in folders.items():
        model = load(folder)
        found, labels = predict(model, ASKED), model.run.record["labels"]
        rows.append((name, *(f"{labels[row.argmax()]} {row.max():.2f}" for row in found)))
        right.append(labels[found[0].argmax()] == "negative")
    yield table("What is said of the handout's sentences, with its probability", ("", *ASKED), rows)
    shown = f"{sum(right)} of {len(right)} arms"
    yield SENTENCES.shows("some arm knows that three minus five is negative", any(right), shown, right=right)

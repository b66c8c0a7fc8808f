"""The built-in experiments: what a course or an interview did once by hand, run so that its conclusion holds.

To add one, write a generator function in a module of its name (see `frame`), and a line in EXPERIMENTS below. Only the
module of the one that is asked for is imported: the list needs neither torch nor matplotlib.
"""

from __future__ import annotations

import difflib

from windtunnel.errors import ConfigError
from windtunnel.experiments.frame import Experiment
from windtunnel.experiments.rows import ROWS


def find_experiment(name: str) -> Experiment:
    """The experiment of this name or row id, upper or lower case.

    Raises:
        ConfigError: for a row that is not built yet, and for an unknown name, naming the nearest.
    """
    asked = name.lower()
    for experiment in EXPERIMENTS.values():
        if asked in (experiment.name, *(row.lower() for row in experiment.rows)):
            return experiment
    for row, title in ROWS.items():
        if asked == row.lower():
            raise ConfigError(f"{row} ({title}) is not built yet; `windtunnel experiment` lists the ones that are")
    known = {key.lower(): key for key in [*EXPERIMENTS, *ROWS]}
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.4)
    hint = f"did you mean {known[near[0]]}?" if near else "`windtunnel experiment` lists them"
    raise ConfigError(f"there is no experiment {name!r}; {hint}")


def listing() -> list[dict[str, str]]:
    """Every row with its title and its experiment; a row without one is not built yet."""
    built = {row: experiment for experiment in EXPERIMENTS.values() for row in experiment.rows}
    rows = []
    for row, title in ROWS.items():
        state, one = ("done", built[row]) if row in built else ("not yet", Experiment("", (), ""))
        rows.append({"row": row, "state": state, "name": one.name, "title": title, "question": one.question})
    return rows


TAKE_CORPUS = ("tiny-corpus", "larger-corpus", "sentiment-head", "published-isoflop", "clip-tour", "caption-hunt")
NETS = ("emoji", "efficientnet-lite0", "minilm-l6")
FETCHED = {"sentiment-head": ("tweets", "minilm-l6"), "clip-tour": NETS, "caption-hunt": NETS}
EXPERIMENTS = {
    name: Experiment(name, tuple(rows.split()), question, name in TAKE_CORPUS, FETCHED.get(name, ()))
    for name, rows, question in (
        ("duplicated-feature", "000-Q1 E1", "Does a doubled feature share the old weight?"),
        ("email-ab-test", "000-Q2 E2", "Which of five e-mail templates differ from A at 95 %?"),
        ("sparse-logistic-cost", "000-Q3 E3", "Does a step on sparse data cost the same for any n?"),
        ("what-to-label", "000-Q4 E4", "Which of three ways to choose stories to train on is best, and where?"),
        ("coin-estimators", "000-Q5", "Which estimate of a coin is which, and which interval is right?"),
        ("reading-a-gpt", " ".join(f"001-1.2.{n}" for n in range(1, 11)) + " E6 E7 E8 E9 E10",
         "What do ten lines of a GPT's code do, and which value shows it?"),
        ("tiny-corpus", "001-2.1 001-2.2 001-2.3 001-2.4 001-2.5 E11 E12 E13",
         "Does a small GPT reach the entropy of its text, and is what it writes as probable as there?"),
        ("larger-corpus", "001-3.1 001-3.2",
         "Is a loaded or resumed model the one that was trained, and how much of what it writes is copied?"),
        ("sentiment-head", "001-3.3 001-4.1 001-4.2 E14 E15",
         "Is a small GPT's head for sentiment better than what needs no network, and is a fixture pretrained?"),
        ("gpt2-report", "000-R", "What did building, altering and distributing GPT-2 show, and what was hard?"),
        ("training-on-many-devices", "000-T3a 000-T3b 000-T3c",
         "Is a run the same on one process, with DDP and with FSDP, and what does each rank hold?"),
        ("tensor-shapes", "002-1.1 002-1.2 002-1.3 002-2", "Do the printed shapes, sizes and counts come out?"),
        ("seed-42", "002-3.1 002-3.2 E16 E18", "Which model since the seed printed 1.3744735717773438?"),
        ("attention-by-hand", "002-4 E17", "Do the weights come out by hand, and is the ratio of variances d_k?"),
        ("descent", "002-5.1", "Full batch, one example or a mini-batch: what does each cost?"),
        ("learning-rate", "002-5.2", "What was wrong when a loss was slow, and fluctuated when the rate was raised?"),
        ("weight-decay-groups", "E35", "Does it matter that biases and norms are decayed?"),
        ("gpt2-source", "000-T1 E5", "What is wrong with a GPT-2 written from memory, and what does each flaw cost?"),
        ("gpt2-positions", "000-T2a",
         "Do rotary positions replace learned ones, and which positions reach past the training context?"),
        ("gpt2-kv-heads", "000-T2b", "What do fewer key and value heads cost in loss, and what do they save?"),
        ("gpt2-windows", "000-T2c", "What does a sliding window cost in loss, and do time and memory grow with T·w?"),
        ("makemore-ladder", "003-1.E01 E19", "Which steps of the makemore lecture lower the loss?"),
        ("initial-loss", "003-1.E02 E20", "Does a tuned initialisation start at the loss of a blind guess?"),
        ("direct-connections", "003-1.E03 E21", "Do direct connections lower the loss?"),
        ("zero-init", "003-2.E01 E23", "What trains when all weights begin at zero?"),
        ("quick-recipe", "time-to-loss", "Does every choice of the recipe `quick` earn its place?"),
        ("fold-batch-norm", "003-2.E02 E22 E24",
         "Is a trained mlp the same function once its batch norm is folded away?"),
        ("recurrent-gradients", "004-1.1.1 004-1.1.2 004-1.2.1 E25",
         "How large can a gradient be behind many ReLUs, or many steps of a sigmoid recurrence?"),
        ("attention-as-convolution", "004-1.3.1 004-1.3.2 E26 E27",
         "Which convolutions can attention be, and when is it max pooling?"),
        ("attention-pieces", "004-2.1.1 004-2.1.2 004-2.1.3",
         "Do written-out attention and sinusoidal positions do what is said of them?"),
        ("translation-grid", "004-2.1.4 E28 E29",
         "Do a larger hidden size and more words lower the loss of a translation?"),
        ("translate-sentence", "004-2.1.v",
         "Does a trained encoder-decoder translate a sentence, and where does it look?"),
        ("verbal-arithmetic", "004-3.1 004-3.2 004-3.3 004-3.4 004-3.5 E33",
         "Does a classifier of sums in words learn more than the majority label, and from what?"),
        ("clip-tour", "004-4.1",
         "Do pictures and captions agree in a matrix, are classes found by their words, and what needs no training?"),
        ("caption-hunt", "004-4.2",
         "Which captions find their picture, and what is a caption worth that a search found?"),
        ("decoder-only", "004-2.2.1 004-2.2.2 004-2.2.3 E30",
         "Does a decoder alone translate better than an encoder-decoder?"),
        ("published-isoflop", "004-2.3.p E31",
         "Do the course's IsoFLOP points say what it read off them, and how surely?"),
        ("isoflop-translators", "004-2.3.1 004-2.3.2 004-2.3.3 004-2.3.4 E32",
         "Which size of translator is best for a budget, and what does the reading of the curves change?"),
    )
}  # fmt: skip

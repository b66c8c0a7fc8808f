"""Each choice of the recipe `quick` against what it replaced, on another corpus than its time is reported on."""

from __future__ import annotations

from typing import Any

from windtunnel.config import override
from windtunnel.experiments.frame import Findings, Given, Row, Setting
from windtunnel.experiments.training import trained, verdicts
from windtunnel.runs.arms import Arm
from windtunnel.text.store import TextConfig
from windtunnel.training.recipes import quick
from windtunnel.training.run_config import RunConfig

ROW = Row("time-to-loss")
SEEDS, STEPS, MATRIX_LR = 5, 120, 0.04
"""In fewer steps than the recipe's 300 the matrices want a higher rate than its 0.02; one arm has that."""
WORSE, NO_BETTER = ("worse",), ("worse", "no difference that matters")
CHOICES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], float]] = {
    "AdamW, lr 0.005": (
        "AdamW at 0.005 in place of Muon: a higher loss", ("optimizer.name=adamw", "optimizer.lr=0.005"), WORSE, 1,
    ),
    "AdamW, lr 0.015": ("AdamW at 0.015 in place of Muon: a higher loss", ("optimizer.name=adamw",), WORSE, 1),
    "matrix_lr 0.02": (
        "half the rate for the matrices: a higher loss in 120 steps", ("optimizer.matrix_lr=0.02",), WORSE, 1,
    ),
    "lr 0.005": ("a third of the rate for the rest: a higher loss", ("optimizer.lr=0.005",), WORSE, 1),
    "cosine to 0.1": (
        "small's schedule: a higher loss", ("schedule.curve=cosine", "schedule.final_fraction=0.1"), WORSE, 1,
    ),
    "batch 32": ("batches twice as large, as many tokens: a higher loss", ("train.batch_size=32",), WORSE, 0.5),
    "4 x 128": (
        "small's shape, whose step costs more: no lower loss",
        ("model.n_layers=4", "model.d_model=128", "model.n_heads=4", "model.d_ff=512"), NO_BETTER, 1,
    ),
    "GELU": ("GELU, whose step costs more: no lower loss", ("model.activation=gelu_tanh",), NO_BETTER, 1),
    "layer norm": ("layer norm in place of RMS norm: no lower loss", ("model.norm=layer",), NO_BETTER, 1),
}  # fmt: skip
"""Of each arm: what is said of it, its settings, the words that bear it out, and its steps in those of `quick`."""


def quick_recipe(at: Setting) -> Findings:
    """The recipe quick, choice by choice.

    The recipe and, for each of its choices, the recipe without it were trained on the bytes of Python's standard
    library, on paired seeds. All arms see as many tokens.
    """
    base = problem(at)
    yield Given({"steps": base.train.steps})
    found = yield from trained(at, "the choices", arms_of(base), at.seeds(SEEDS))
    yield from verdicts(ROW, found, {name: (said, words) for name, (said, _, words, _) in CHOICES.items()})


def problem(at: Setting) -> RunConfig:
    """The recipe on the bytes of Python's standard library, 1/100 of its files held out; evaluated at the end only.

    Quickly, on names.
    """
    base, steps = quick(at.size("python", quick="names")), at.size(STEPS, quick=4)
    train = {"steps": steps, "eval_every": steps, "save_every": steps, "sample_tokens": 0, "compile": False}
    if at.quick:
        train |= {"batch_size": 2, "eval_tokens": 1000}
    text: dict[str, Any] = {"unit": at.size("auto", quick="text"), "dev_fraction": 0.01, "test_fraction": 0.0}
    return base.replace(
        text=TextConfig(tokenizer="bytes", **text),
        optimizer=base.optimizer.replace(matrix_lr=MATRIX_LR),
        schedule=base.schedule.replace(warmup=steps // 10),
        train=base.train.replace(**train),
        seed=at.seed,
    )


def arms_of(base: RunConfig) -> list[Arm]:
    """The recipe, and the recipe without each of its choices."""
    arms = [Arm("quick", base)]
    for name, (_, settings, _, share) in CHOICES.items():
        config = override(base, settings)
        steps, warmup = int(base.train.steps * share), int(base.schedule.warmup * share)
        train = config.train.replace(steps=steps, eval_every=steps, save_every=steps)
        arms.append(Arm(name, config.replace(train=train, schedule=config.schedule.replace(warmup=warmup))))
    return arms

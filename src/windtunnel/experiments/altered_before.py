"""What the alterations of GPT-2 share (rows 000-T1 and 000-T2a to c): a small GPT-2, a table of its arms, claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from windtunnel.comparison.comparison import Comparison
from windtunnel.comparison.verdict import Word
from windtunnel.experiments.frame import Claim, Setting, Table
from windtunnel.experiments.speed_before import DECODED, decoding, take_turns
from windtunnel.experiments.training_before import is_judged
from windtunnel.models import TransformerConfig, build
from windtunnel.models.cost import cache_elements_per_token, parameter_formulas
from windtunnel.report.comparison_rows import signed
from windtunnel.runs.arms import Arm
from windtunnel.text.store import TextConfig
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.schedule import ScheduleConfig

Says = dict[str, tuple[str, Sequence[Word]]]
"""Of an arm by its name a statement, and the words of which the verdict must be one for it to hold."""
FLOAT32 = 4
"""Bytes of a number in the cache, which has the type of the weights."""


def small_gpt2(setting: Setting, **model: Any) -> RunConfig:
    """GPT-2 in 2 layers x 64 on the bytes of Python's standard library, 1/100 of its files held out."""
    n_layers, d_model, context_length, batch_size, steps = (1, 16, 16, 4, 5) if setting.quick else (2, 64, 128, 8, 400)
    shape = {"context_length": context_length, "n_layers": n_layers, "n_heads": 4, "d_model": d_model, "dropout": 0.0}
    every = {"eval_every": steps, "eval_tokens": 1000 if setting.quick else None, "save_every": steps}
    return RunConfig(
        corpus="python",
        text=TextConfig(tokenizer="bytes", dev_fraction=0.005 if setting.quick else 0.01, test_fraction=0.0),
        model=TransformerConfig(**{**shape, **model}),
        optimizer=OptimizerConfig(lr=3e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=50),
        train=TrainConfig(steps=steps, batch_size=batch_size, sample_tokens=0, **every),
        seed=setting.seed,
    )


def n_seeds(setting: Setting) -> int:
    """Two seeds decide nothing, and a quick run is there to show that everything works."""
    return 2 if setting.quick else 5


def settings_of(config: RunConfig, setting: Setting) -> dict[str, Any]:
    """What all arms share, in words."""
    model, train = config.model, config.train
    assert isinstance(model, TransformerConfig)
    shape = f"{model.n_layers} layers x {model.d_model}, {model.n_heads} heads, context {model.context_length} bytes"
    training = f"{train.steps} steps of {train.batch_size} windows, lr {config.optimizer.lr:g}"
    return {"corpus": config.corpus, "model": shape, "training": training, "paired seeds": n_seeds(setting)}


def transformer_of(arm: Arm) -> TransformerConfig:
    """The model of an arm of these experiments."""
    assert isinstance(arm.config.model, TransformerConfig)
    return arm.config.model


def n_parameters(config: TransformerConfig) -> int:
    """By formula, which the tests hold to the model itself."""
    return sum(n for _, _, n in parameter_formulas(config))


def arms_table(found: Comparison, arms: Sequence[Arm], repeats: int) -> Table:
    """Loss, verdict and cost of every arm; decoding is measured at the end of the context, arm by arm in turns.

    Of an arm without a causal mask, which has no cache and cannot decode, neither is given.
    """
    configs = {arm.name: transformer_of(arm).replace(vocab_size=257) for arm in arms}
    writers = {
        name: decoding(build(config, 0).eval(), config.context_length - DECODED)
        for name, config in configs.items()
        if config.causal
    }
    rates = {name: DECODED / median(seconds) for name, seconds in take_turns(writers, repeats).items()}
    verdicts = {j.arm: (signed(j.verdict.difference).replace("\n", " "), j.verdict.word) for j in found.judgements}
    rows = tuple(
        (
            arm.name,
            "-" if arm.loss is None else f"{arm.loss.estimate:.4f} [{arm.loss.low:.4f}, {arm.loss.high:.4f}]",
            *verdicts.get(arm.name, ("", "baseline")),
            f"{arm.n_parameters:,}",
            f"{FLOAT32 * cache_elements_per_token(configs[arm.name]):,}" if arm.name in rates else "-",
            f"{arm.tokens_per_second:,.0f}" if arm.tokens_per_second else "-",
            f"{rates[arm.name]:,.0f}" if arm.name in rates else "-",
        )
        for arm in found.arms
    )
    loss = f"dev loss, {found.unit}"
    heads = ("arm", loss, "difference", "verdict", "parameters", "KV bytes/token", "training tok/s", "decoding tok/s")
    return Table("Every arm: means with 95 % t intervals over the seeds; speeds as they were here", heads, rows)


def judged_claims(id: str, found: Comparison, says: Says) -> Iterator[Claim]:
    """For each arm what is said of it."""
    for judgement in found.judgements:
        statement, words = says[judgement.arm]
        verdict, values = is_judged(judgement, *words), {"difference": judgement.verdict.difference}
        yield Claim(id, statement, "", judgement.sentence.partition(": ")[2], verdict, values)


def as_good_claims(
    id: str, found: Comparison, arms: Sequence[Arm], named: Callable[[TransformerConfig], str]
) -> Iterator[Claim]:
    """For each arm that it loses nothing that matters."""
    good: tuple[Word, ...] = ("better", "no difference that matters")
    says: Says = {arm.name: (f"{named(transformer_of(arm))}: no loss that matters", good) for arm in arms}
    return judged_claims(id, found, says)

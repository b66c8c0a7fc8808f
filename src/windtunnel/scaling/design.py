"""What a scaling study trains: sizes along one dial, the run of a size at a budget, and the rule of its learning rate.

The dial is the width. The width of a head stays, so that heads are added; the depth grows with the square root of the
width. All sizes at a budget share a batch, and the schedule of each run ends where its budget does (Hoffmann et al.
2022, arXiv 2203.15556, section 3.1: a longer schedule that is cut off overestimates the loss).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from windtunnel.config import parse
from windtunnel.errors import ConfigError
from windtunnel.models import FAMILIES, ModelConfig
from windtunnel.models.block import BlocksConfig
from windtunnel.models.translator import TranslatorConfig
from windtunnel.runs.arms import Arm, ResolvedArm
from windtunnel.tasks import Task
from windtunnel.training.run_config import RunConfig
from windtunnel.training.step_cost import step_cost

STEP_OF_BUDGETS = math.sqrt(10)
FEWEST_STEPS = 500
"""Of a run. With fewer, small models are limited by the number of their steps, and the smallest seems the best."""
SIZES, SIZE_STEP = 5, 2.0
"""How many sizes a budget has, and the factor between their parameters."""
GUESS = 120.0
"""C / N^2 of the best size before anything is known: 6 FLOPs a parameter and token, 20 tokens a parameter."""
TOKENS_POWER = 0.32
NARROWEST_HEAD, FEWEST_HEADS = 8, 4


def guess(budget: float) -> float:
    """The best number of parameters at a budget, before anything is known."""
    return math.sqrt(budget / GUESS)


@dataclass(frozen=True)
class Size:
    """One place of the dial.

    parameters: without embeddings; all_parameters with them. flops: of training on one token, counted by formula.
    """

    width: int
    n_layers: int
    n_heads: int
    parameters: int
    all_parameters: int
    flops: float


@dataclass(frozen=True)
class RateRule:
    """How the learning rate depends on a run: lr at the reference, times a power of each of these by its own.

    width: to the -power, .5 until a sweep tells another.
    batch: to the .5 (Malladi et al. 2022, arXiv 2205.10287).
    tokens of the run: to the -.32 (Bjorck et al. 2024, arXiv 2409.19913). Of two sizes at a budget the larger sees
        fewer; without this, a sweep would take what shorter runs need for what wider models need.

    A matrix rate of Muon has all but the width.
    """

    lr: float
    matrix_lr: float
    width: int
    batch: int
    tokens: float
    power: float = 0.5

    def factor(self, batch: int, tokens: float) -> float:
        """Of both rates, for all but the width."""
        return math.sqrt(batch / self.batch) * (tokens / self.tokens) ** -TOKENS_POWER

    def at(self, width: int, batch: int, tokens: float) -> float:
        """The rate of everything but the matrices that Muon moves."""
        return self.lr * (width / self.width) ** -self.power * self.factor(batch, tokens)

    def times(self, factor: float) -> RateRule:
        """The rule with both rates so many times as high."""
        return replace(self, lr=self.lr * factor, matrix_lr=self.matrix_lr * factor)

    def __str__(self) -> str:
        return (
            f"learning rate {self.lr:.3g} * (width / {self.width})^{-self.power:.2f} * (batch / {self.batch})^0.5 * "
            f"(tokens / {self.tokens:.2g})^-{TOKENS_POWER:g}"
        )


@dataclass(frozen=True)
class Design:
    """The sizes and runs of a study of one config.

    base: the config that all others are made of, and its corpus.
    head: the width of a head, of every size.
    """

    base: ResolvedArm
    head: int
    rule: RateRule
    fewest_steps: int = FEWEST_STEPS
    _sizes: dict[int, Size] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def task(self) -> Task:
        """What is learned; opened once."""
        return self.base.task

    @property
    def dial(self) -> str:
        """The rule of the sizes, in words."""
        model = self.base.config.model
        assert isinstance(model, BlocksConfig)
        return f"width in heads of {self.head}, {model.n_layers} * sqrt(width / {model.d_model}) layers"

    def size(self, n: int) -> Size:
        """The size whose width is n heads."""
        if n not in self._sizes:
            model = resized(self.base.config.model, n * self.head, self.head)
            tokens, flops = step_cost(self.base.config.replace(model=model), self.base.store, self.task)
            assert isinstance(model, BlocksConfig)
            self._sizes[n] = Size(
                model.d_model, model.n_layers, model.n_heads,
                model.n_parameters(embeddings=False), model.n_parameters(), flops / tokens,
            )  # fmt: skip
        return self._sizes[n]

    def nearest(self, parameters: float) -> Size:
        """The size whose parameters are nearest, as a ratio."""
        n = 1
        while self.size(n).parameters < parameters:
            n += 1
        above, below = self.size(n), self.size(max(1, n - 1))
        return below if parameters / below.parameters < above.parameters / parameters else above

    def around(self, parameters: float, n: int = SIZES) -> tuple[Size, ...]:
        """So many sizes a factor SIZE_STEP apart, the middle one the nearest; the smallest there is at the least."""
        found = [self.nearest(parameters)]
        while len(found) < (n + 1) // 2 and (smaller := self.smaller(found[0])):
            found.insert(0, smaller)
        while len(found) < n:
            found.append(self.larger(found[-1]))
        return tuple(found)

    def smaller(self, size: Size) -> Size | None:
        """The next place of the dial that has about half of the parameters; None below the smallest."""
        if size.width == self.head:
            return None
        found = self.nearest(size.parameters / SIZE_STEP)
        return found if found.width < size.width else self.size(size.width // self.head - 1)

    def larger(self, size: Size) -> Size:
        """The next place of the dial that has about twice the parameters."""
        found = self.nearest(size.parameters * SIZE_STEP)
        return found if found.width > size.width else self.size(size.width // self.head + 1)

    def tokens(self, size: Size, budget: float) -> float:
        """How many tokens a size sees for a budget of FLOPs."""
        return budget / size.flops

    def batch(self, size: Size, budget: float) -> int:
        """Examples a step: the config's own, or as many as leave the largest planned size, and this one, its steps.

        Raises:
            ConfigError: when not even one example a step leaves enough steps.
        """
        largest = self.around(guess(budget))[-1]
        flops = max(size.flops, largest.flops)
        if not self.has_steps(size, budget):
            raise ConfigError(
                f"{budget:.2g} FLOPs are fewer than {self.fewest_steps} steps of one example for a model of "
                f"{size.parameters:,} parameters; give more --minutes, or a shorter --set model.context_length"
            )
        return max(
            1, min(self.base.config.train.batch_size, int(budget / flops / self.fewest_steps / self.per_example))
        )

    @cached_property
    def per_example(self) -> float:
        """Tokens that an example predicts, on average; counted once, since that may take a pass over the text."""
        config = self.base.config
        return step_cost(config, self.base.store, self.task)[0] / config.train.batch_size

    def arm(self, size: Size, budget: float, factor: float = 1.0) -> Arm:
        """The run of a size at a budget, whose schedule ends there.

        Args:
            factor: of the rule's learning rate.
        """
        base, batch, steps = self.base.config, self.batch(size, budget), self.steps(size, budget)
        rule, at = self.rule, (batch, self.tokens(size, budget))
        rate, matrices = rule.at(size.width, *at) * factor, rule.matrix_lr * rule.factor(*at) * factor
        config = base.replace(
            model=resized(base.model, size.width, self.head),
            optimizer=base.optimizer.replace(lr=_short(rate), matrix_lr=_short(matrices)),
            schedule=base.schedule.replace(warmup=min(base.schedule.warmup, steps // 10)),
            train=base.train.replace(
                steps=steps, batch_size=batch, grad_accumulation=min(base.train.grad_accumulation, batch),
                eval_every=steps, eval_tokens=EVAL_TOKENS, sample_tokens=0,
                save_every=max(base.train.save_every, steps // 4), keep=1,
            ),
        )  # fmt: skip
        times = "" if factor == 1 else f", rate x {factor:g}"
        return Arm(f"{budget:.1e} FLOPs, {size.parameters:,} parameters{times}", config)

    def has_steps(self, size: Size, budget: float) -> bool:
        """Whether a budget pays for the fewest steps of a size, with one example each."""
        return budget / size.flops >= self.fewest_steps * self.per_example

    def steps(self, size: Size, budget: float) -> int:
        """How many steps the run of a size at a budget has."""
        return round(self.tokens(size, budget) / (self.batch(size, budget) * self.per_example))

    def spent(self, size: Size, budget: float) -> tuple[float, float]:
        """Tokens and FLOPs of the run of a size at a budget: whole steps."""
        tokens = self.steps(size, budget) * self.batch(size, budget) * self.per_example
        return tokens, tokens * size.flops

    def epochs(self, size: Size, budget: float) -> float:
        """How often the run of a size at a budget reads its training text."""
        return self.tokens(size, budget) / self.unique

    @cached_property
    def unique(self) -> float:
        """Tokens that can be learned from without one of them coming twice."""
        n, task = self.base.config.train.n_examples, self.task
        share = 1.0 if n is None else n / len(task.examples("train"))
        return share * task.totals("train")["targets"]


EVAL_TOKENS = 4096
"""Read at the first and the last step; the loss of the study is that of the whole dev split, measured at the end."""


def make_design(base: ResolvedArm, smallest: float, fewest_steps: int = FEWEST_STEPS) -> Design:
    """The design of a resolved config.

    Args:
        smallest: the fewest parameters that are planned; the head is halved until they are FEWEST_HEADS wide.

    Raises:
        ConfigError: for a family without a dial, or a config that leaves none.
    """
    config = base.config
    model = config.model
    _check(config)
    assert isinstance(model, BlocksConfig)
    tokens = step_cost(config, base.store, base.task)[0] * config.train.steps
    rates = config.optimizer.lr, config.optimizer.matrix_lr
    rule = RateRule(*rates, model.d_model, config.train.batch_size, max(1.0, tokens))
    head = model.head_width
    while True:
        design = Design(base, head, rule, fewest_steps)
        if design.size(FEWEST_HEADS).parameters <= smallest or head < 2 * NARROWEST_HEAD or head % 4:
            return design
        head //= 2


def _check(config: RunConfig) -> None:
    model = config.model
    if not isinstance(model, BlocksConfig):
        able = " or ".join(name for name, kind in FAMILIES.items() if issubclass(kind, BlocksConfig))
        raise ConfigError(
            f"the family {model.family} has no dial for its size: there is no rule how its width and depth grow "
            f"together; give a recipe of the family {able}, or fit your own runs: windtunnel scale fit points.csv"
        )
    if isinstance(model.window, tuple):
        raise ConfigError(
            f"model.window has one number for each of {model.n_layers} layers, and sizes differ in their layers; "
            "give one number for all"
        )
    if config.start is not None or config.generator is not None:
        raise ConfigError("a scaling study begins every size with random weights; leave out start and generator")


def resized(model: ModelConfig, width: int, head: int) -> ModelConfig:
    """A model of blocks with another width, the depth and the rest by the rule; at its own width it is as it was."""
    assert isinstance(model, BlocksConfig)
    ratio = width / model.d_model
    changes = _resized({name: getattr(model, name) for name in SCALED}, model, ratio, head)
    if isinstance(model, TranslatorConfig):
        encoder = {name: getattr(model.encoder, name) for name in SCALED}
        changes["encoder"] = model.encoder.model_dump() | _resized(encoder, model, ratio, head)
    return parse(type(model), model.model_dump() | changes)


SCALED = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_ff")


def _resized(part: dict[str, Any], model: BlocksConfig, ratio: float, head: int) -> dict[str, Any]:
    """What becomes of the settings of a part of the model; one that is not set stays so."""
    narrower = model.head_width / head  # each of the model's heads becomes so many
    new: dict[str, Any] = {}
    if part["d_model"]:
        new["d_model"] = max(1, round(part["d_model"] * ratio / head)) * head
    if part["n_layers"]:
        new["n_layers"] = max(1, round(part["n_layers"] * math.sqrt(ratio)))
    if part["d_ff"]:
        new["d_ff"] = max(1, round(part["d_ff"] * ratio / 8)) * 8
    if part["d_head"]:
        new["d_head"] = head
    if part["n_heads"]:
        new["n_heads"] = max(1, round(part["n_heads"] * narrower * ratio))
    if part["n_kv_heads"]:
        heads, groups = new.get("n_heads", 1), part["n_kv_heads"] * narrower * ratio
        new["n_kv_heads"] = max(n for n in range(1, heads + 1) if heads % n == 0 and n <= max(1, round(groups)))
    return new


def _short(rate: float) -> float:
    return float(f"{rate:.4g}")

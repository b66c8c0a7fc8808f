"""What a run is, in full: corpus, text, model, optimizer, schedule, training, seed."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from windtunnel.config import Config
from windtunnel.errors import ConfigError
from windtunnel.models import FAMILIES, AnyModelConfig, TransformerConfig
from windtunnel.models.lora import LoraConfig, check_lora
from windtunnel.tasks import AnyTaskConfig, LanguageConfig
from windtunnel.text.store import TextConfig
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.schedule import ScheduleConfig

Freeze = Literal["all", "embeddings"] | NonNegativeInt | None


class TrainConfig(Config):
    """How long, how much at once, how often to look and to save, and on what."""

    added: ClassVar[frozenset[str]] = frozenset({"n_examples", "recompute", "choose", "freeze"})
    steps: NonNegativeInt = 2000
    """Optimizer steps; 0 keeps the weights that the run begins with."""
    batch_size: PositiveInt = 12
    """Examples an optimizer step: windows of running text, or documents; for an mlp predictions of one token."""
    n_examples: PositiveInt | None = None
    """Train on a random sample of this many examples, the same for every seed; None is all of them."""
    grad_accumulation: PositiveInt = 1
    """Into how many micro-batches the batch is cut; the result does not depend on it."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients with a larger norm are scaled down to it; None is no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs the matrix products in bfloat16 and keeps weights and optimizer in float32; auto is what this machine
    was measured to be faster with, once."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile is used; auto compiles runs that are long enough to earn its half minute
    back, where there is a C++ compiler."""
    recompute: bool = False
    """Whether the activations inside a block are computed again in the backward pass instead of kept: the same
    gradients with less memory, in about a third more time."""
    threads: PositiveInt | None = None
    """CPU threads of the run; None is one when several seeds run side by side, else one a core, or fewer where this
    machine was measured to be clearly faster with them."""
    eval_every: PositiveInt = 250
    """Steps between two evaluations on the dev split."""
    eval_tokens: PositiveInt | None = None
    """How many tokens of the dev split an evaluation reads; None is all of them."""
    save_every: PositiveInt = 500
    """Steps between two checkpoints."""
    keep: PositiveInt = 2
    """How many checkpoints stay on disk; best is short for choose=best."""
    choose: Literal["last", "best"] = "last"
    """Which checkpoint is the run's model: the last, or the one with the best score on dev. The model is then saved at
    each evaluation, and the best stays on disk, too."""
    freeze: Freeze = None
    """What is not trained: the embeddings; a number N, the embeddings and the first N layers; all, everything but the
    head of a classifier, which is then solved to convergence without steps."""
    sample_tokens: NonNegativeInt = 32
    """How long a text the model writes at each evaluation; 0 is none."""
    explode: Annotated[float, Field(gt=1)] = 3.0
    """Training stops when the loss exceeds this many times the larger of its first value and ln(vocab_size)."""

    @model_validator(mode="before")
    @classmethod
    def _keep_the_best(cls, data: Any) -> Any:
        """`keep=best` keeps the best beside the newest, and takes it as the model."""
        if not isinstance(data, dict) or data.get("keep") != "best":
            return data
        return {**{name: value for name, value in data.items() if name != "keep"}, "choose": "best"}


class Start(Config):
    """The weights that a run begins with; in a file or after `--set start=` the other run's folder is enough."""

    added: ClassVar[frozenset[str]] = frozenset({"part"})
    run: str
    """The folder of the run whose newest weights they are; of an imported or altered run, what they were made of."""
    weights_sha256: str | None = None
    """Of those weights; None accepts what is there, and resolving the config fills it in."""
    part: Literal["all", "trunk"] = "all"
    """Which of them are taken; `trunk` leaves out the head, and the trunk of a classifier gets them."""

    @model_validator(mode="before")
    @classmethod
    def _of_folder(cls, data: Any) -> Any:
        return {"run": data} if isinstance(data, str) else data


class ChangeConfig(Config):
    """Code of the user's own that a run trains with (`windtunnel.training.change`): what it was, never where to find
    it, so that a config cannot have anything executed."""

    function: str
    source_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the whole file."""


class RunConfig(Config):
    """A run. Equal configs on the same corpus and machine give equal losses."""

    added: ClassVar[frozenset[str]] = frozenset({"start", "generator", "task", "change", "lora"})
    corpus: str
    """A name from `windtunnel corpora`, or a file, a folder or a glob. Several with weights, `a.txt:0.7,b.txt:0.3`, are
    a mix: the weights are the shares of the training tokens."""
    text: TextConfig = TextConfig()
    model: AnyModelConfig = TransformerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    seed: NonNegativeInt = 0
    """Decides the first weights, the order of the examples and the dropout."""
    task: AnyTaskConfig = LanguageConfig()
    """What is learned from the corpus."""
    start: Start | None = None
    """The run whose weights training begins with, as `--from` sets it; None begins with random weights."""
    generator: NonNegativeInt | None = None
    """None: every draw is a function of (seed, purpose, step). A number replays a published script, which draws all
    from one `torch.Generator().manual_seed(number)`: first the weights of an mlp, one matrix after another, then the
    examples of every step, with replacement. The run's own `seed` is added to it, so seed 0 is the script itself."""

    lora: LoraConfig = LoraConfig()
    """What is trained in place of the weights that the run begins with; by default these are trained themselves."""
    change: ChangeConfig | None = None
    """What was changed in Python; `--change FILE:FUNCTION` sets it, and is needed again to train on."""

    @model_validator(mode="after")
    def _rising_ends(self) -> Self:
        ends = (*self.schedule.ends, self.train.steps)
        if any(a >= b for a, b in pairwise(ends)):
            raise ValueError(f"schedule.ends must rise and stay below train.steps, given {', '.join(map(str, ends))}")
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.task.coupled and self.train.grad_accumulation > 1:
            raise ValueError(
                f"train.grad_accumulation is {self.train.grad_accumulation}, and a {self.task.kind} loss compares all "
                "rows of a batch with each other, so a batch cannot be cut; expected 1: leave it out, and give a "
                "smaller train.batch_size where memory is short"
            )
        return self


def check_family(config: RunConfig) -> None:
    """Raises ConfigError for what only another family, or a larger batch, can do."""
    model, train = config.model, config.train
    if config.generator is not None and not model.replays_generator:
        able = " or ".join(family for family, kind in FAMILIES.items() if kind.replays_generator)
        raise ConfigError(
            f"generator={config.generator} replays scripts of the family {able}, and the model is a {model.family}; "
            "leave it out, since without it every draw is a function of the seed already"
        )
    if config.lora.rank:
        _check_lora(config)
    if train.freeze is not None and model.stackable:
        raise ConfigError(
            f"train.freeze={train.freeze} is for models with layers, and this is a {model.family}; omit it"
        )
    if train.freeze == "all" and config.task.kind != "classification":
        raise ConfigError("train.freeze=all solves the head of a classifier; give task.kind=classification, or omit it")
    _check_rates(config)
    if train.recompute and not model.has_blocks:
        raise ConfigError(f"train.recompute computes blocks again, and the family {model.family} has none; omit it")
    if model.needs_whole_batch and train.batch_size < 2 * train.grad_accumulation:
        raise ConfigError(
            f"batch norm needs at least two examples at once, and batch_size {train.batch_size} in "
            f"{train.grad_accumulation} parts has fewer; give a larger batch, or --set model.batch_norm=false"
        )


def _check_lora(config: RunConfig) -> None:
    rank = config.lora.rank
    if config.train.freeze is not None:
        raise ConfigError(
            f"lora.rank={rank} leaves all weights as they are, so train.freeze={config.train.freeze} says nothing; "
            "give one of the two"
        )
    if config.start is None:
        raise ConfigError(
            f"lora.rank={rank} adapts a trained model, and this run begins with random weights; give --from RUN"
        )
    check_lora(config.model, config.lora)


def _check_rates(config: RunConfig) -> None:
    """Raises ConfigError for learning rates by part of a model that has no such parts."""
    model, optimizer = config.model, config.optimizer
    given = [name for name in ("trunk_factor", "layer_decay") if getattr(optimizer, name) != 1]
    if not given:
        return
    what = f"optimizer.{given[0]}={getattr(optimizer, given[0])}"
    if "trunk_factor" in given and not model.trunk_names:
        raise ConfigError(
            f"{what} is for a model with a trunk and a head, or with pictures or captions that a net reads which was "
            f"trained before, and this is a {model.family}; omit it, or give --recipe classify or clip-tuned"
        )
    if "layer_decay" in given and (model.stackable or model.reads == "pair"):
        why = "no layers" if model.stackable else "two stacks of layers"
        raise ConfigError(
            f"optimizer.layer_decay is for one stack of layers, and this {model.family} has {why}; omit it"
        )
    if optimizer.name == "muon":
        raise ConfigError(f"{what} is for adamw and sgd: muon has rates of its own, optimizer.matrix_lr; omit it")
    if config.train.freeze == "all":
        raise ConfigError(f"{what} has no effect with train.freeze=all, which solves the head without steps; omit it")

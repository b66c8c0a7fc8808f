"""What every model family says of itself: how it is built, what it costs, and how it is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from windtunnel.config import Tagged
from windtunnel.errors import ConfigError
from windtunnel.nn.cache import AnyCache


@dataclass(frozen=True)
class ParameterRow:
    """Parameters of one kind of module, all layers together.

    Evaluated with the names of `ModelConfig.formula_names`, the formula gives the number.
    """

    module: str
    formula: str
    n_parameters: int
    is_embedding: bool = False
    """Whether they are a table in which tokens or positions are looked up."""


class Model(nn.Module):
    """forward(ids (B, T), ...) -> logits (B, T', V); the caller owns loss, optimizer, cache and memory.

    A model that reads pairs is forward(ids (B, T), source (B, S), source_kept (B, S)), or forward(ids, memory=...) with
    the memory that `encode` made of the source.
    """

    config: ModelConfig
    embedding: nn.Embedding

    def new_cache(self, batch_size: int, capacity: int) -> AnyCache | None:
        """An empty cache of what was read; None for a family that computes every token from the ids alone."""
        return None

    def encode(self, source: Tensor, source_kept: Tensor | None = None) -> Selectable:
        """What the model makes of sources before it writes, once for all tokens of the target.

        Args:
            source: (B, S) token ids.
            source_kept: (B, S) bool, False where a source is padding; None is no padding.
        """
        raise NotImplementedError(f"a model of the family {self.config.family} reads no source")


class Selectable(Protocol):
    """A memory: one row for each source."""

    def select(self, rows_B: Tensor) -> Self:
        """Row i of the result is row rows_B[i] of this."""
        ...


Reads = Literal["stream", "context", "pair", "text", "captioned"]
"""What `forward` reads: `stream` predicts the token after each id (B, T) it is given, `context` the one token after
exactly context_length of them, `pair` the token after each id of a target, whose source it has read before, `text` no
token but the label of a whole text, `captioned` which of several pictures a caption is of. A task chooses its examples
by it."""


class ModelConfig(Tagged, ABC):
    """The settings of one family. A new family is one subclass beside its module, and one line in `FAMILIES`."""

    tag: ClassVar[str] = "family"
    family: str
    """The kind of model; it decides which other settings there are."""
    vocab_size: PositiveInt
    """Tokens that the model knows; left out, it is as many as the tokenizer has."""
    context_length: PositiveInt
    """The most tokens that the model reads at once."""

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """What the model reads."""

    has_blocks: ClassVar[bool] = False
    """Whether the model is made of `Blocks`: they can be compiled and recomputed one by one."""
    attends: ClassVar[bool] = False
    """Whether `forward` takes `attend`, the attention function, and `kept`, which tells tokens from padding."""
    stackable: ClassVar[bool] = False
    """Whether seeds of tiny runs train stacked in one process (`windtunnel.training.stack`)."""
    replays_generator: ClassVar[bool] = False
    """Whether `build` can draw all weights from one generator, as a published script does."""
    bias_setting: ClassVar[str] = "bias"
    """The setting that removes the biases in front of norms."""

    @property
    def trunk_names(self) -> tuple[str, ...]:
        """The modules whose learning rate `optimizer.trunk_factor` lowers."""
        return ()

    @property
    @abstractmethod
    def targets_per_example(self) -> int:
        """How many tokens an example of a batch predicts, at most."""

    @property
    @abstractmethod
    def widest(self) -> int:
        """Width of the vectors that most of the arithmetic is made of; 0 is too small for bfloat16 to pay."""

    def for_pairs(self) -> Self:
        """These settings with what they leave open decided for a task of sources and targets."""
        return self

    def example(self, n_rows: int, length: int, source: int | None = None) -> dict[str, Tensor]:
        """Inputs of `forward` as a batch has them: zeros, ids (n_rows, length) and a source, by default as long."""
        lengths = {"ids": length} | ({"source": length if source is None else source} if self.reads == "pair" else {})
        return {name: torch.zeros(n_rows, n, dtype=torch.int64) for name, n in lengths.items()}

    @property
    def is_causal(self) -> bool:
        """Whether a prediction sees nothing of the token it is of, and of those after it."""
        return True

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a row's loss depends on the batch's other rows, so that ranks cannot share a batch."""
        return False

    @property
    def shares_embedding(self) -> bool:
        """Whether the head's matrix is the embedding's."""
        return False

    @abstractmethod
    def create(self) -> Model:
        """A model whose weights are still to be filled."""

    @abstractmethod
    def build(self, seed: int, generator: torch.Generator | None = None) -> Model:
        """A freshly initialised model; the weights are a function of (seed, their names, their shapes).

        Args:
            generator: draws all weights instead; only for a family that `replays_generator`.
        """

    def refuse_generator(self, generator: torch.Generator | None) -> None:
        """For `build` of a family that does not `replays_generator`. Raises ConfigError when there is one."""
        if generator is not None:
            raise ConfigError(
                f"the weights of the family {self.family} are drawn from the seed and their names, not from a generator"
            )

    @abstractmethod
    def parameter_rows(self) -> list[ParameterRow]:
        """Each kind of module with its formula and its number of parameters; those without any are left out."""

    def n_parameters(self, embeddings: bool = True) -> int:
        """By formula; without embeddings the tables in which tokens and positions are looked up are left out."""
        return sum(row.n_parameters for row in self.parameter_rows() if embeddings or not row.is_embedding)

    @abstractmethod
    def formula_names(self) -> dict[str, int]:
        """The values of the names in the formulas, with what the config leaves open filled in."""

    @property
    def untrained_parts(self) -> frozenset[str]:
        """Of `flops_by_part` those that have no backward pass, because nothing in them or before them is trained."""
        return frozenset()

    @abstractmethod
    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        """Matrix-multiply FLOPs of predicting `length` tokens in a row, a multiply and an add counted as two.

        Args:
            source: tokens of the source that a model that reads pairs has read before; None is as many.
        """

    def cache_elements_per_token(self) -> int:
        """Numbers that a cache keeps for each token; 0 for a family without one."""
        return 0

    def cache_elements(self) -> int:
        """Numbers that a cache keeps for a whole context, and for a source as long where one is read before."""
        n_tokens = self.context_length * (2 if self.reads == "pair" else 1)
        return n_tokens * self.cache_elements_per_token()

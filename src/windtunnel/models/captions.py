"""Towers that read captions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from windtunnel.models.encoder import BERT, Pool, pool
from windtunnel.models.family import ParameterRow
from windtunnel.models.transformer import Transformer, TransformerConfig, spread
from windtunnel.models.vision import TowerConfig, load_trained
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.norms import FixedNorm


class CaptionConfig(TowerConfig):
    """What reads a caption."""

    @abstractmethod
    def create(self) -> nn.Module:
        """A tower of `sized` settings, `forward(ids, kept, attend) -> (M, D)`, whose weights are still to be filled."""

    @abstractmethod
    def sized(self, vocab_size: int, context_length: int) -> Self:
        """These settings with the vocabulary and the context of the model."""

    def example(self, n_captions: int, length: int) -> dict[str, Tensor]:
        """Captions of `length` tokens as the tower reads them, all zeros."""
        ids = torch.zeros(n_captions, length, dtype=torch.int64)
        return {"ids": ids, "kept": torch.ones_like(ids, dtype=torch.bool)}

    @abstractmethod
    def flops_by_part(self, length: int) -> dict[str, int]:
        """Matrix-multiply FLOPs of one caption of `length` tokens, a multiply and an add counted as two."""


class CaptionTrunkConfig(CaptionConfig):
    """A trunk that reads a whole caption, its tokens pooled to one vector."""

    has_blocks: ClassVar[bool] = True
    pool: Pool = "mean"
    """Which vector stands for a caption: the mean of its tokens', its last token's as in CLIP, or its first token's."""
    trunk: TransformerConfig
    """The blocks. Its own vocab_size, context_length, tie_embeddings and head_bias are not used."""

    @property
    def width(self) -> int:
        return self.trunk.d_model

    def sized(self, vocab_size: int, context_length: int) -> Self:
        own = {"vocab_size": vocab_size, "context_length": context_length, "tie_embeddings": True, "head_bias": False}
        return self.model_copy(update={"trunk": self.trunk.replace(**own)})

    def parameter_rows(self) -> list[ParameterRow]:
        return self.trunk.parameter_rows()

    def formula_names(self) -> dict[str, int]:
        return self.trunk.formula_names()

    def flops_by_part(self, length: int) -> dict[str, int]:
        return {part: n for part, n in self.trunk.flops_by_part(length).items() if part != "head"}

    def std(self, name: str, parameter: Tensor) -> float | None:
        return spread(self.trunk, name, parameter, 2 * self.trunk.n_layers)


class CaptionTransformerConfig(CaptionTrunkConfig):
    """A transformer that learns from the captions alone."""

    kind: Literal["transformer"] = "transformer"
    trunk: TransformerConfig = TransformerConfig(
        n_layers=2, n_heads=4, d_model=128, activation="relu", dropout=0.0, bias=False, causal=False
    )
    """The blocks; causal in CLIP. Its own vocab_size, context_length, tie_embeddings and head_bias are not used."""

    def create(self) -> CaptionTransformer:
        return CaptionTransformer(self)


class CaptionTransformer(nn.Module):
    """A transformer without its head, pooled."""

    def __init__(self, config: CaptionTrunkConfig) -> None:
        super().__init__()
        self.trunk, self.how = Transformer(config.trunk), config.pool

    def forward(self, ids: Tensor, kept: Tensor | None, attend: Attend) -> Tensor:
        return pool(self.trunk.hidden(ids, attend=attend, kept=kept), kept, self.how)


class CaptionEncoderConfig(CaptionTrunkConfig):
    """MiniLM-L6, which begins with the weights that it was trained to on sentences, and is trained further.

    It reads its own tokens: text.tokenizer is the folder that `windtunnel models get minilm-l6` names.
    """

    kind: Literal["encoder"] = "encoder"
    net: Literal["minilm-l6"] = "minilm-l6"
    """The trained encoder, of `windtunnel models`."""
    pretrained: bool = True
    """Whether it begins with trained weights, or with random ones."""
    trunk: TransformerConfig = BERT.replace(n_layers=6, d_model=384)
    """The blocks, which are those of the net; `dropout` can be another."""

    @property
    def was_trained(self) -> bool:
        return self.pretrained

    def create(self) -> CaptionEncoder:
        return CaptionEncoder(self)

    def begin(self, tower: nn.Module) -> None:
        """Load the trained weights. Raises DataError where they have not been fetched."""
        if self.pretrained:
            from windtunnel.models.pretrained.minilm import minilm_weights

            load_trained(tower, minilm_weights(self.trunk.context_length))


class CaptionEncoder(CaptionTransformer):
    """An encoder that was trained before, pooled, each number brought to one scale."""

    def __init__(self, config: CaptionEncoderConfig) -> None:
        super().__init__(config)
        self.norm = FixedNorm(config.width)

    def settle(self, ids: Tensor, kept: Tensor | None = None) -> None:
        """Take the statistics of what it makes of the captions of training."""
        self.norm.settle(super().forward(ids, kept, attend))

    def forward(self, ids: Tensor, kept: Tensor | None, attend: Attend) -> Tensor:
        vectors: Tensor = self.norm(super().forward(ids, kept, attend))
        return vectors


class BagConfig(CaptionConfig):
    """The mean of the vectors of a caption's tokens, whatever their order: of few captions it learns most."""

    added: ClassVar[frozenset[str]] = frozenset({"longest_run", "buckets"})
    kind: Literal["bag"] = "bag"
    vocab_size: PositiveInt = 1
    """Set by the model's own."""
    d_model: PositiveInt = 128
    """Width of a token's vector."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """The share of tokens, and of the elements of the mean, that training sets to 0."""
    longest_run: Annotated[int, Field(ge=1, le=8)] = 1
    """Runs of 2 to this many tokens have vectors, too, and are in the mean; 1 is tokens alone. With
    `text.tokenizer=bytes` they are the n-grams of characters of fastText (Bojanowski et al. 2017)."""
    buckets: PositiveInt = 16384
    """How many vectors the runs share, by a hash of their tokens."""

    @property
    def width(self) -> int:
        return self.d_model

    @property
    def n_buckets(self) -> int:
        """The vectors of runs; 0 where there are no runs."""
        return self.buckets if self.longest_run > 1 else 0

    def sized(self, vocab_size: int, context_length: int) -> Self:
        return self.model_copy(update={"vocab_size": vocab_size})

    def create(self) -> Bag:
        return Bag(self)

    def parameter_rows(self) -> list[ParameterRow]:
        rows = [ParameterRow("embedding", "vocab_size * d_model", self.vocab_size * self.d_model, True)]
        of_runs = ParameterRow("runs", "buckets * d_model", self.n_buckets * self.d_model, True)
        return rows + [of_runs] * bool(self.n_buckets)

    def formula_names(self) -> dict[str, int]:
        names = {"vocab_size": self.vocab_size, "d_model": self.d_model}
        return names | ({"buckets": self.n_buckets} if self.n_buckets else {})

    def flops_by_part(self, length: int) -> dict[str, int]:
        return {}

    def std(self, name: str, parameter: Tensor) -> float | None:
        """Runs begin at 0, so that one that training never had says nothing."""
        return 0.0 if name.startswith("runs") else 1.0


class Bag(nn.Module):
    """Ids (M, T) -> the mean of their vectors, and of those of their runs (M, D)."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.runs = nn.Embedding(config.n_buckets, config.d_model) if config.n_buckets else None
        self.dropout, self.longest_run = Dropout(config.dropout), config.longest_run

    def forward(self, ids: Tensor, kept: Tensor | None, attend: Attend) -> Tensor:
        kept_MT = torch.ones_like(ids, dtype=torch.bool) if kept is None else kept
        x_MTD = self.embedding(ids)
        if self.runs is not None:
            runs_MR, kept_MR = runs(ids, kept_MT, self.longest_run, self.runs.num_embeddings)
            x_MTD, kept_MT = torch.cat([x_MTD, self.runs(runs_MR)], 1), torch.cat([kept_MT, kept_MR], 1)
        weights_MT1 = self.dropout(kept_MT.float())[..., None]
        return self.dropout((x_MTD * weights_MT1).sum(1) / kept_MT.sum(1, keepdim=True))


def runs(ids: Tensor, kept: Tensor, longest: int, n_buckets: int) -> tuple[Tensor, Tensor]:
    """Of all runs of 2 to `longest` of the ids (M, T), each within what is kept: buckets (M, R) and which count (M, R).

    A bucket is a hash of the run's ids in their order: polynomial, modulo a prime, so that nothing overflows.
    """
    hashes, whole, found = ids, kept, [(ids[:, :0], kept[:, :0])]
    for n in range(1, min(longest, ids.shape[1])):
        hashes, whole = (hashes[:, :-1] * 1_000_003 + ids[:, n:] + n) % (2**31 - 1), whole[:, :-1] & kept[:, n:]
        found.append((hashes % n_buckets, whole))
    return torch.cat([one for one, _ in found], 1), torch.cat([one for _, one in found], 1)

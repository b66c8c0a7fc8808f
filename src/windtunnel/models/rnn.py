"""Recurrent networks: a language model, or an encoder and a decoder with attention between them.

Mikolov et al. 2010 for the language model, Zaremba et al. 2014 (arXiv 1409.2329) for its dropout; the cells name their
sources in `windtunnel.nn.recurrent`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.nn.blocks import Layers
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.embedding import lookup
from windtunnel.nn.init import initialise, stream
from windtunnel.nn.linear import Linear, linear
from windtunnel.nn.recurrent import CELLS, Cell, StateCache, recur


class RNNConfig(ModelConfig):
    """A recurrent network; the defaults are two GRU layers of 128."""

    bias_setting: ClassVar[str] = "cell_bias"
    family: Literal["rnn"] = "rnn"
    vocab_size: PositiveInt = 256
    context_length: PositiveInt = 64
    """How many tokens training reads in a row; a longer text is read as its last context_length tokens."""
    cell: Literal["elman", "gru", "lstm"] = "gru"
    n_layers: PositiveInt = 2
    d_model: PositiveInt = 128
    """Width of a token's vector and of the state."""
    cell_bias: bool = True
    """torch gives a cell two biases, one beside each of its matrices; that of an lstm's forget gate begins at 1."""
    tie_embeddings: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what goes into each layer and into the head; what goes from token to token is left alone."""

    @property
    def reads(self) -> Reads:
        return "stream"

    @property
    def targets_per_example(self) -> int:
        return self.context_length

    @property
    def widest(self) -> int:
        return 0

    @property
    def shares_embedding(self) -> bool:
        return self.tie_embeddings

    @property
    def kind_of_cell(self) -> Cell:
        """What the setting `cell` names."""
        return CELLS[self.cell]

    def create(self) -> RNN:
        return RNN(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> RNN:
        """Matrices N(0, 1 / sqrt(inputs)), the recurrent ones orthogonal (Saxe et al. 2014), biases zero.

        The table is N(0, 1), and N(0, 1 / sqrt(d_model)) where it is the head, too. An lstm begins by remembering:
        the bias of its forget gate is 1 (Jozefowicz et al. 2015).
        """
        if generator is not None:
            raise ConfigError("an rnn's weights are drawn from the seed and their names, not from a generator")
        model = RNN(self)

        def std(name: str, parameter: Tensor) -> float:
            if "bias" in name:
                return 0.0
            return 1.0 if name == "embedding.weight" and not self.tie_embeddings else parameter.shape[-1] ** -0.5

        initialise(model, seed, std)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "weight_hh" in name:
                    draw = torch.Generator().manual_seed(stream(seed, "weights", name))
                    for matrix in parameter.chunk(self.kind_of_cell.n_gates):
                        nn.init.orthogonal_(matrix, generator=draw)
                elif "bias_ih" in name and self.cell == "lstm":
                    parameter.chunk(4)[1].fill_(1.0)
        return model

    def parameter_rows(self) -> list[ParameterRow]:
        d, v, layers, gates = self.d_model, self.vocab_size, self.n_layers, self.kind_of_cell.n_gates
        b = int(self.cell_bias)
        rows = [
            ParameterRow("embedding", "vocab_size * d_model", v * d, True),
            ParameterRow("layers", f"n_layers * n_gates * 2 * {_wide(b)} * d_model", layers * gates * 2 * (d + b) * d),
            ParameterRow("head", "vocab_size * d_model", v * d * (not self.tie_embeddings)),
        ]
        return [row for row in rows if row.n_parameters]

    def formula_names(self) -> dict[str, int]:
        names = ("vocab_size", "context_length", "n_layers", "d_model")
        return {name: getattr(self, name) for name in names} | {"n_gates": self.kind_of_cell.n_gates}

    def flops_by_part(self, length: int) -> dict[str, int]:
        d = self.d_model
        return {
            "layers": 2 * length * self.n_layers * self.kind_of_cell.n_gates * 2 * d * d,
            "head": 2 * length * d * self.vocab_size,
        }


def _wide(bias: int) -> str:
    return "(d_model + 1)" if bias else "d_model"


class RNN(Model):
    """ids (B, T) -> logits (B, T, V): token t's logits are the model's belief about token t + 1."""

    config: RNNConfig

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocab_size, c.d_model)
        self.dropout = Dropout(c.dropout)
        cell = c.kind_of_cell.module
        self.layers = Layers(cell(c.d_model, c.d_model, bias=c.cell_bias, batch_first=True) for _ in range(c.n_layers))
        self.head = None if c.tie_embeddings else Linear(c.d_model, c.vocab_size, bias=False)

    def forward(self, ids: Tensor, cache: StateCache | None = None) -> Tensor:
        """Logits (B, T, V).

        Args:
            ids: (B, T) token ids; with a cache, the tokens that follow those that it has read.
            cache: the states after the tokens before, which become those after these.
        """
        x_BTD, table_VD = lookup(ids, self.embedding.weight)
        begin_LNBD = None if cache is None else cache.states_LNBD
        x_BTD, states_LNBD = self.read(x_BTD, begin_LNBD)
        if cache is not None:
            cache.states_LNBD = states_LNBD
            cache.advance(ids.shape[1])
        x_BTD = self.dropout(x_BTD)
        return linear(x_BTD, table_VD) if self.head is None else self.head(x_BTD)

    def read(self, x_BTD: Tensor, states_LNBD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The vectors of the last layer (B, T, D) for the tokens' vectors (B, T, D), and the states (L, N, B, D) of all
        layers after them. It begins with the states that are given; None is zeros."""
        after = []
        for i, layer in enumerate(self.layers):
            begin_NBD = None if states_LNBD is None else states_LNBD[i]
            x_BTD, last_NBD = recur(layer, self.dropout(x_BTD), begin_NBD)  # type: ignore[arg-type]
            after.append(last_NBD)
        return x_BTD, torch.stack(after)

    def new_cache(self, batch_size: int, capacity: int) -> StateCache:
        """An empty cache of states."""
        return StateCache(capacity)

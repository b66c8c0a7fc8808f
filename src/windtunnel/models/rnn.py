"""Recurrent networks: a language model, or an encoder and a decoder that looks back at the source.

Mikolov et al. 2010 for the language model, Zaremba et al. 2014 (arXiv 1409.2329) for its dropout; Sutskever et al. 2014
(arXiv 1409.3215) for encoder and decoder. Cells and attention name their sources where they are written, in
`windtunnel.nn`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.nn.alignment import ALIGNMENTS, align
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
    """How many tokens training reads in a row; a longer text is read as its last context_length tokens.
    With an encoder, the most tokens of a source and of a target."""
    cell: Literal["elman", "gru", "lstm"] = "gru"
    """What is computed at each token: Elman's network, a GRU, or an LSTM."""
    n_layers: PositiveInt = 2
    """Recurrent layers, one on another; as many in an encoder."""
    d_model: PositiveInt = 128
    """Width of a token's vector and of the state."""
    cell_bias: bool = True
    """torch gives a cell two biases, one beside each of its matrices; that of an lstm's forget gate begins at 1."""
    tie_embeddings: bool = True
    """Whether the head's matrix is the table of embeddings."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what goes into each layer and into the head; what goes from token to token is left alone."""
    encoder: bool | None = None
    """Whether a source is read before its target is written; None is yes for a task of pairs, else no."""
    bidirectional: bool = True
    """Whether the encoder reads its source from both ends; each way has a state of d_model."""
    attention: Literal["additive", "dot", "none"] = "additive"
    """How the decoder looks at the source again for each token; none leaves it the encoder's last state only."""

    @property
    def reads(self) -> Reads:
        return "pair" if self.encoder else "stream"

    def for_pairs(self) -> Self:
        return self.replace(encoder=True) if self.encoder is None else self

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

    @property
    def d_memory(self) -> int:
        """Width of the encoder's vectors."""
        return self.d_model * (1 + self.bidirectional)

    def create(self) -> RNN:
        return RNN(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> RNN:
        """Matrices N(0, 1 / sqrt(inputs)), the recurrent ones orthogonal (Saxe et al. 2014), biases zero.

        The table is N(0, 1), and N(0, 1 / sqrt(d_model)) where it is the head, too. An lstm begins by remembering:
        the bias of its forget gate is 1 (Jozefowicz et al. 2015).
        """
        self.refuse_generator(generator)
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
        row = "(d_model + 1)" if b else "d_model"
        rows = [
            ParameterRow("embedding", "vocab_size * d_model", v * d, True),
            *(self._encoder_rows() if self.encoder else []),
            ParameterRow("layers", f"n_layers * n_gates * 2 * {row} * d_model", layers * gates * 2 * (d + b) * d),
            ParameterRow("head", "vocab_size * d_model", v * d * (not self.tie_embeddings)),
        ]
        return [row for row in rows if row.n_parameters]

    def _encoder_rows(self) -> list[ParameterRow]:
        d, e, b = self.d_model, self.d_memory, 2 * self.cell_bias
        n, gates, deep = self.kind_of_cell.n_states, e // d * self.kind_of_cell.n_gates, self.n_layers - 1
        plus, looks, adds = " + 2" * self.cell_bias, self.attention != "none", self.attention == "additive"
        key = (looks and self.bidirectional) or adds
        return [
            ParameterRow(
                "encoder, first", f"n_directions * n_gates * (2 * d_model{plus}) * d_model", gates * (2 * d + b) * d
            ),
            ParameterRow(
                "encoder, others",
                f"(encoder_n_layers - 1) * n_directions * n_gates * ((n_directions + 1) * d_model{plus}) * d_model",
                deep * gates * (e + d + b) * d,
            ),
            ParameterRow(
                "bridge",
                "(n_states * n_directions * d_model + 1) * n_states * d_model",
                (n * e + 1) * n * d * self.bidirectional,
            ),
            ParameterRow("attention.query", "d_model * d_model", d * d * adds),
            ParameterRow("attention.key", f"(n_directions * d_model{' + 1' * adds}) * d_model", (e + adds) * d * key),
            ParameterRow("attention.score", "d_model", d * adds),
            ParameterRow("join", "((n_directions + 1) * d_model + 1) * d_model", (d + e + 1) * d * looks),
        ]

    def formula_names(self) -> dict[str, int]:
        cell, names = self.kind_of_cell, ("vocab_size", "context_length", "n_layers", "d_model")
        own = {name: getattr(self, name) for name in names} | {"n_gates": cell.n_gates}
        directions = self.d_memory // self.d_model
        of_encoder = {"encoder_n_layers": self.n_layers, "n_directions": directions, "n_states": cell.n_states}
        return own | of_encoder if self.encoder else own

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        d, gates = self.d_model, self.kind_of_cell.n_gates
        return {
            **(self._encoder_flops(length, length if source is None else source) if self.encoder else {}),
            "layers": 2 * length * self.n_layers * gates * 2 * d * d,
            "head": 2 * length * d * self.vocab_size,
        }

    def _encoder_flops(self, length: int, source: int) -> dict[str, int]:
        d, e, n, gates = self.d_model, self.d_memory, self.kind_of_cell.n_states, self.kind_of_cell.n_gates
        looks, adds = self.attention != "none", self.attention == "additive"
        parts = {
            "encoder": 2 * source * gates * e * (2 * d + (self.n_layers - 1) * (e + d)),
            "bridge": 2 * self.n_layers * n * e * n * d * self.bidirectional,
            "attention.query": 2 * length * d * d * adds,
            "attention.key": 2 * source * e * d * ((looks and self.bidirectional) or adds),
            "attention.scores": 2 * length * source * d * looks,
            "attention.mix": 2 * length * source * e * looks,
            "join": 2 * length * (d + e) * d * looks,
        }
        return {part: flops for part, flops in parts.items() if flops}


class Memory(NamedTuple):
    """What an encoder made of sources."""

    vectors_BSE: Tensor
    keys_BSD: Tensor | None
    """What the decoder's attention compares with; None without attention."""
    kept_BS: Tensor | None
    """False where a source is padding; None is no padding."""
    states_LNBD: Tensor
    """What the decoder's layers begin with."""

    def select(self, rows_B: Tensor) -> Memory:
        """Row i of the result is row rows_B[i] of this."""
        vectors, keys, kept = (None if x is None else x.index_select(0, rows_B) for x in self[:3])
        assert vectors is not None
        return Memory(vectors, keys, kept, self.states_LNBD.index_select(2, rows_B))


class RNN(Model):
    """ids (B, T) -> logits (B, T, V): token t's logits are the model's belief about token t + 1."""

    config: RNNConfig

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocab_size, c.d_model)
        self.dropout = Dropout(c.dropout)
        cell, e = c.kind_of_cell, c.d_memory
        self.layers = Layers(
            cell.module(c.d_model, c.d_model, bias=c.cell_bias, batch_first=True) for _ in range(c.n_layers)
        )
        self.head = None if c.tie_embeddings else Linear(c.d_model, c.vocab_size, bias=False)
        if not c.encoder:
            return
        self.encoder = Layers(
            cell.module(width, c.d_model, bias=c.cell_bias, batch_first=True, bidirectional=c.bidirectional)
            for width in [c.d_model] + (c.n_layers - 1) * [e]
        )
        self.bridge = Linear(cell.n_states * e, cell.n_states * c.d_model) if c.bidirectional else None
        self.attention = None if c.attention == "none" else ALIGNMENTS[c.attention](c.d_model, e)
        self.join = None if c.attention == "none" else Linear(c.d_model + e, c.d_model)

    def forward(
        self,
        ids: Tensor,
        source: Tensor | None = None,
        source_kept: Tensor | None = None,
        cache: StateCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Logits (B, T, V).

        Args:
            ids: (B, T) token ids; with a cache, the tokens that follow those that it has read.
            source: (B, S) ids of the sources, for a model with an encoder; None where their memory is given.
            source_kept: (B, S) bool, False at the padding on the right of a source; None is no padding.
            cache: the states after the tokens before, which become those after these.
            memory: what `encode` made of the sources.

        Raises:
            ConfigError: for a source and no encoder, or an encoder and no source.
        """
        memory = self._memory(source, source_kept, memory)
        h_BTD, table_VD = self._read(ids, cache, memory)
        if memory is not None and self.join is not None:
            weights_BTS = self._look(h_BTD, memory)
            h_BTD = self.join(torch.cat([h_BTD, weights_BTS @ memory.vectors_BSE], dim=-1)).tanh()
        h_BTD = self.dropout(h_BTD)
        return linear(h_BTD, table_VD) if self.head is None else self.head(h_BTD)

    def attention_weights(self, ids: Tensor, source: Tensor, source_kept: Tensor | None = None) -> Tensor:
        """How much each token of the target (B, T) looks at each of its source (B, S): (B, T, S), each row a sum of 1.

        Raises:
            ConfigError: for a model without an encoder, or without attention.
        """
        if not self.config.encoder or self.attention is None:
            raise ConfigError(
                f"attention weights need a source to look at, and this rnn has encoder={self.config.encoder} and "
                f"attention={self.config.attention}; train one on pairs, with attention additive or dot"
            )
        memory = self.encode(source, source_kept)
        return self._look(self._read(ids, None, memory)[0], memory)

    def encode(self, source: Tensor, source_kept: Tensor | None = None) -> Memory:
        """What the decoder begins with and looks at; the arguments are those of `forward`."""
        if not self.config.encoder:
            raise ConfigError("this rnn has no encoder to read a source; train one with --set model.encoder=true")
        x_BSE, after = self.embed(source)[0], []
        for layer in self.encoder:
            x_BSE, last_NBE = recur(layer, self.dropout(x_BSE), kept_BT=source_kept)  # type: ignore[arg-type]
            after.append(last_NBE)
        states_LNBD = torch.stack(after)
        if self.bridge is not None:  # of each layer's vectors side by side
            joined_LBX = self.bridge(states_LNBD.transpose(1, 2).flatten(2))
            states_LNBD = joined_LBX.unflatten(2, (-1, self.config.d_model)).transpose(1, 2)
        keys_BSD = None if self.attention is None else self.attention.keys(x_BSE)
        return Memory(x_BSE, keys_BSD, source_kept, states_LNBD)

    def embed(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens' vectors (B, T, D), and the table (V, D) as a tied head is to use it; see `lookup`.

        A table that is the head, too, holds small numbers, and cells want large ones: its rows are multiplied by
        sqrt(d_model) on the way in (Vaswani et al. 2017, section 3.4).
        """
        x_BTD, table_VD = lookup(ids_BT, self.embedding.weight)
        return (x_BTD * self.config.d_model**0.5 if self.head is None else x_BTD), table_VD

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

    def _memory(self, source: Tensor | None, source_kept: Tensor | None, memory: Memory | None) -> Memory | None:
        if source is not None and memory is None:
            return self.encode(source, source_kept)
        if self.config.encoder and memory is None:
            raise ConfigError("an rnn with an encoder reads a source before its target; give source, or its memory")
        return memory

    def _read(self, ids_BT: Tensor, cache: StateCache | None, memory: Memory | None) -> tuple[Tensor, Tensor]:
        """The last layer's vectors (B, T, D), and the table (V, D) of `embed`."""
        x_BTD, table_VD = self.embed(ids_BT)
        begin_LNBD = None if memory is None else memory.states_LNBD
        if cache is not None and cache.states_LNBD is not None:
            begin_LNBD = cache.states_LNBD
        h_BTD, states_LNBD = self.read(x_BTD, begin_LNBD)
        if cache is not None:
            cache.states_LNBD = states_LNBD
            cache.advance(ids_BT.shape[1])
        return h_BTD, table_VD

    def _look(self, h_BTD: Tensor, memory: Memory) -> Tensor:
        """The attention weights (B, T, S)."""
        assert self.attention is not None
        assert memory.keys_BSD is not None
        return align(self.attention(h_BTD, memory.keys_BSD), memory.kept_BS)

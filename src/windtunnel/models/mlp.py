"""A multilayer perceptron over the last few tokens: the neural language model of Bengio et al. 2003 (JMLR 3).

Every token of the context is looked up in one table, the vectors are laid side by side, hidden tanh layers follow, and
a linear layer gives the logits. With its defaults and `names` it is the model of Karpathy's makemore, part 3.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.nn.blocks import Layers
from windtunnel.nn.init import initialise
from windtunnel.nn.norms import BatchNorm

TANH_GAIN = 5 / 3
"""By how much tanh shrinks a standard normal: with it the spread is kept from layer to layer (He et al. 2015)."""

Scale = Annotated[float, Field(ge=0)]


class MLPConfig(ModelConfig):
    """A multilayer perceptron; the defaults are makemore's, 12,297 parameters with 27 tokens."""

    stackable: ClassVar[bool] = True
    replays_generator: ClassVar[bool] = True
    bias_setting: ClassVar[str] = "hidden_bias"
    family: Literal["mlp"] = "mlp"
    vocab_size: PositiveInt = 27
    context_length: PositiveInt = 3
    """How many tokens a prediction is made from."""
    d_embedding: PositiveInt = 10
    """Width of a token's vector."""
    d_hidden: PositiveInt = 200
    """Width of a hidden layer."""
    n_layers: PositiveInt = 1
    """Hidden layers."""
    hidden_bias: bool = True
    """Whether hidden layers have biases. Before a batch norm they do nothing: their gradient is zero."""
    batch_norm: bool = True
    """Whether each hidden layer is normalised over the batch before its tanh."""
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.001
    """How far the running statistics go towards those of a batch at each step."""
    batch_norm_epsilon: Annotated[float, Field(ge=0)] = 1e-5
    """Added to the variance that batch norm divides by."""
    batch_norm_unbiased: bool = True
    """Whether the variance of a batch of n is a sum over n - 1, as makemore has it; torch divides by n."""
    direct: bool = False
    """Connections from the token vectors straight to the logits (Bengio et al. 2003, equation 1, the matrix W)."""
    init: Literal["normal", "constant"] = "normal"
    """What the settings `init_...` mean: what a standard normal is multiplied by, or (constant) the value itself."""
    init_embedding: Scale = 1.0
    """Of the token vectors."""
    init_hidden: Scale | Literal["kaiming"] = "kaiming"
    """Of the matrices of the hidden layers; kaiming is 5/3 / sqrt(number of inputs)."""
    init_hidden_bias: Scale = 0.01
    """Of the biases of the hidden layers."""
    init_output: Scale = 0.01
    """Of the matrix that gives the logits."""
    init_output_bias: Scale = 0.0
    """Of the biases of the logits."""
    init_direct: Scale = 0.01
    """Of the direct connections."""

    @property
    def reads(self) -> Reads:
        return "context"

    @property
    def targets_per_example(self) -> int:
        return 1

    @property
    def widest(self) -> int:
        return 0

    @property
    def needs_whole_batch(self) -> bool:
        return self.batch_norm

    @property
    def d_input(self) -> int:
        """Width of the context's vectors side by side."""
        return self.context_length * self.d_embedding

    def create(self) -> MLP:
        return MLP(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> MLP:
        """By the settings `init_...`.

        Args:
            generator: draws all weights, in the order and the layout (inputs first) of makemore's script; None draws
                each from (seed, its name).
        """
        model = MLP(self)
        if self.init == "normal" and generator is None:
            initialise(model, seed, self._scale)
            return model
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                value = self._scale(name, parameter)
                if value is None:
                    continue
                if self.init == "constant":
                    parameter.fill_(value)
                elif parameter.dim() == 2 and name != "embedding.weight":
                    parameter.copy_(torch.randn(parameter.shape[::-1], generator=generator).T * value)
                else:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * value)
        return model

    def _scale(self, name: str, parameter: Tensor) -> float | None:
        """By what a parameter's standard normal is multiplied; None is left as it is."""
        if ".norm." in name:
            return None
        part = name.split(".")[0].replace("layers", "hidden")
        chosen = getattr(self, f"init_{part}_bias" if name.endswith("bias") else f"init_{part}")
        return TANH_GAIN / math.sqrt(parameter.shape[-1]) if chosen == "kaiming" else float(chosen)

    def parameter_rows(self) -> list[ParameterRow]:
        v, f, i, deep = self.vocab_size, self.d_hidden, self.d_input, self.n_layers - 1
        b = int(self.hidden_bias)
        plus = " + 1" * b
        rows = [
            ParameterRow("embedding", "vocab_size * d_embedding", v * self.d_embedding, True),
            ParameterRow("hidden, first", f"(context_length * d_embedding{plus}) * d_hidden", (i + b) * f),
            ParameterRow("hidden, others", f"(n_layers - 1) * (d_hidden{plus}) * d_hidden", deep * (f + b) * f),
            ParameterRow("batch norms", "n_layers * 2 * d_hidden", self.n_layers * 2 * f * self.batch_norm),
            ParameterRow("output", "(d_hidden + 1) * vocab_size", (f + 1) * v),
            ParameterRow("direct", "context_length * d_embedding * vocab_size", i * v * self.direct),
        ]
        return [row for row in rows if row.n_parameters]

    def formula_names(self) -> dict[str, int]:
        names = ("vocab_size", "context_length", "n_layers", "d_embedding", "d_hidden")
        return {name: getattr(self, name) for name in names}

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        f, i, v = self.d_hidden, self.d_input, self.vocab_size
        parts = {
            "hidden": 2 * length * (i * f + (self.n_layers - 1) * f * f),
            "output": 2 * length * f * v,
            "direct": 2 * length * i * v * self.direct,
        }
        return {part: flops for part, flops in parts.items() if flops}


class Hidden(nn.Module):
    """x (B, T, d_in) -> (B, T, d_hidden): linear, batch norm, tanh."""

    def __init__(self, config: MLPConfig, d_in: int) -> None:
        super().__init__()
        c = config
        self.linear = nn.Linear(d_in, c.d_hidden, bias=c.hidden_bias)
        self.norm = (
            BatchNorm(c.d_hidden, c.batch_norm_epsilon, c.batch_norm_momentum, c.batch_norm_unbiased)
            if c.batch_norm
            else nn.Identity()
        )
        self.tanh = nn.Tanh()

    def forward(self, x_BTI: Tensor) -> Tensor:
        x_BTF: Tensor = self.tanh(self.norm(self.linear(x_BTI)))
        return x_BTF


class MLP(Model):
    """ids (B, T) -> logits (B, T - context_length + 1, V), of the tokens that follow every whole context.

    Shorter ids are one context, continued to the left by their first token: of a document that is the end mark.
    """

    config: MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_embedding)
        widths = [config.d_input] + (config.n_layers - 1) * [config.d_hidden]
        self.layers = Layers(Hidden(config, width) for width in widths)
        self.output = nn.Linear(config.d_hidden, config.vocab_size)
        self.direct = nn.Linear(config.d_input, config.vocab_size, bias=False) if config.direct else None

    def forward(self, ids: Tensor) -> Tensor:
        missing = self.config.context_length - ids.shape[1]
        if missing > 0:
            ids = torch.cat([ids[:, :1].expand(-1, missing), ids], dim=1)
        contexts_BTC = ids.unfold(1, self.config.context_length, 1)
        x_BTI = self.embedding(contexts_BTC).flatten(2)
        x_BTF = x_BTI
        for layer in self.layers:
            x_BTF = layer(x_BTF)
        logits_BTV: Tensor = self.output(x_BTF)
        return logits_BTV if self.direct is None else logits_BTV + self.direct(x_BTI)

"""A multilayer perceptron over the last few tokens: the neural language model of Bengio et al. 2003 (JMLR 3).

Every token of the context is looked up in one table, the vectors are laid side by side, hidden tanh layers follow, and
a linear layer gives the logits. With its defaults and `names` it is the model of Karpathy's makemore, part 3.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.config import Config
from windtunnel.nn.init import initialise
from windtunnel.nn.norms import BatchNorm

TANH_GAIN = 5 / 3
"""By how much tanh shrinks a standard normal: with it the spread is kept from layer to layer (He et al. 2015)."""

Scale = Annotated[float, Field(ge=0)]


class MLPConfig(Config):
    """A multilayer perceptron; the defaults are makemore's, 12,297 parameters with 27 tokens.

    The settings `init_...` are what a standard normal is multiplied by; with `init=constant` the value itself.
    """

    family: Literal["mlp"] = "mlp"
    vocab_size: PositiveInt = 27
    context_length: PositiveInt = 3
    """How many tokens a prediction is made from."""
    d_embedding: PositiveInt = 10
    """Width of a token's vector."""
    d_hidden: PositiveInt = 200
    n_layers: PositiveInt = 1
    """Hidden layers."""
    hidden_bias: bool = True
    """Before a batch norm it does nothing: its gradient is zero."""
    batch_norm: bool = True
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.001
    """How far the running statistics go towards those of a batch at each step."""
    batch_norm_epsilon: Annotated[float, Field(ge=0)] = 1e-5
    batch_norm_unbiased: bool = True
    """Whether the variance of a batch of n is a sum over n - 1, as makemore has it; torch divides by n."""
    direct: bool = False
    """Connections from the token vectors straight to the logits (Bengio et al. 2003, equation 1, the matrix W)."""
    init: Literal["normal", "constant"] = "normal"
    init_embedding: Scale = 1.0
    init_hidden: Scale | Literal["kaiming"] = "kaiming"
    """kaiming is 5/3 / sqrt(number of inputs)."""
    init_hidden_bias: Scale = 0.01
    init_output: Scale = 0.01
    init_output_bias: Scale = 0.0
    init_direct: Scale = 0.01

    @model_validator(mode="before")
    @classmethod
    def _say_the_family(cls, data: Any) -> Any:
        """Always among the settings that were given, since it tells which family the others belong to."""
        return {"family": "mlp", **data} if isinstance(data, dict) else data

    @property
    def last_only(self) -> bool:
        """An example of a batch predicts only its last token."""
        return True

    @property
    def causal(self) -> bool:
        """A prediction sees nothing of the token it is of."""
        return True

    @property
    def targets_per_example(self) -> int:
        """How many tokens an example of a batch predicts, at most."""
        return 1

    @property
    def widest(self) -> int:
        """Width of the vectors that most of the arithmetic is made of; 0 is too small for bfloat16 to pay."""
        return 0

    @property
    def d_input(self) -> int:
        """Width of the context's vectors side by side."""
        return self.context_length * self.d_embedding


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


class MLP(nn.Module):
    """ids (B, T) -> logits (B, T - context_length + 1, V), of the tokens that follow every whole context.

    Shorter ids are one context, continued to the left by their first token: of a document that is the end mark.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_embedding)
        widths = [config.d_input] + (config.n_layers - 1) * [config.d_hidden]
        self.layers = nn.ModuleList(Hidden(config, width) for width in widths)
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

    def new_cache(self, batch_size: int, capacity: int) -> None:
        """There is nothing to keep: every token is predicted from a context of its own."""


def build(config: MLPConfig, seed: int, generator: torch.Generator | None = None) -> MLP:
    """A freshly initialised model, by the config's `init_...` settings.

    Args:
        generator: draws all weights, in the order and the layout (inputs first) of makemore's script; None draws each
            from (seed, its name).
    """
    model = MLP(config)

    def scale(name: str, parameter: Tensor) -> float | None:
        if ".norm." in name:
            return None
        part = name.split(".")[0].replace("layers", "hidden")
        chosen = getattr(config, f"init_{part}_bias" if name.endswith("bias") else f"init_{part}")
        return TANH_GAIN / math.sqrt(parameter.shape[-1]) if chosen == "kaiming" else float(chosen)

    if config.init == "normal" and generator is None:
        initialise(model, seed, scale)
        return model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = scale(name, parameter)
            if value is None:
                continue
            if config.init == "constant":
                parameter.fill_(value)
            elif parameter.dim() == 2 and name != "embedding.weight":
                parameter.copy_(torch.randn(parameter.shape[::-1], generator=generator).T * value)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * value)
    return model


def parameter_formulas(config: MLPConfig) -> list[tuple[str, str, int]]:
    """Each kind of module with its formula and its number of parameters; see `windtunnel.models.cost`."""
    v, f, i, deep = config.vocab_size, config.d_hidden, config.d_input, config.n_layers - 1
    b = int(config.hidden_bias)
    plus = " + 1" * b
    rows = [
        ("embedding", "vocab_size * d_embedding", v * config.d_embedding),
        ("hidden, first", f"(context_length * d_embedding{plus}) * d_hidden", (i + b) * f),
        ("hidden, others", f"(n_layers - 1) * (d_hidden{plus}) * d_hidden", deep * (f + b) * f),
        ("batch norms", "n_layers * 2 * d_hidden", config.n_layers * 2 * f * config.batch_norm),
        ("output", "(d_hidden + 1) * vocab_size", (f + 1) * v),
        ("direct", "context_length * d_embedding * vocab_size", i * v * config.direct),
    ]
    return [row for row in rows if row[2]]


def flops_by_part(config: MLPConfig, length: int) -> dict[str, int]:
    """Matrix-multiply FLOPs of predicting `length` tokens, a multiply and an add counted as two."""
    f, i, v = config.d_hidden, config.d_input, config.vocab_size
    parts = {
        "hidden": 2 * length * (i * f + (config.n_layers - 1) * f * f),
        "output": 2 * length * f * v,
        "direct": 2 * length * i * v * config.direct,
    }
    return {part: flops for part, flops in parts.items() if flops}

"""000-T1 and E5: a GPT-2 as an assignment had it, beside GPT-2: what is different, by a number each, and what it costs.

Its attention has no causal mask; what it adds to the scores is mask x -1e9, of a mask that a caller has to make.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.altered import altered, small_gpt2
from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, Steps, draw, interval, table
from windtunnel.inspect.prefix_loss import Question, both_losses, questions
from windtunnel.models import Transformer, TransformerConfig, as_transformer, build
from windtunnel.report.charts import dots
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import mean_interval, paired_difference
from windtunnel.training.run import load

Honest = Mapping[str, Sequence[tuple[float, float]]]
"""Of each arm, for each seed: the loss that training prints, and that of the same tokens after their prefixes alone."""
T1, E5 = Row("000-T1"), Row("E5")
OURS, LEAKING, ALL = "GPT-2", "no causal mask", "the source"
FLAWS: dict[str, dict[str, Any]] = {
    "post-norm": {"norm_position": "post"},
    "untied head": {"tie_embeddings": False},
    "exact GELU": {"activation": "gelu"},
    "no residual scaling": {"residual_scaling": False},
    "torch's own biases": {"zero_biases": False},
    LEAKING: {"causal": False},
}
"""Each with the settings that make it; the source has them all."""
SOURCE = {name: value for flaw in FLAWS.values() for name, value in flaw.items()}


def gpt2_source(at: Setting) -> Findings:
    """GPT-2 as it was handed in.

    From GPT-2 as published one thing at a time was changed to what the source has, and at last all of them; each was
    trained on paired seeds. A model without a causal mask sees the token that it is to predict, so the loss it prints
    is no prediction's: it was asked again, token by token, with only those before.
    """
    for part in (sizes, leaks, masks, details):
        yield from part()
    flaws: dict[str, dict[str, Any]] = {OURS: {}, **at.size(FLAWS, quick={LEAKING: FLAWS[LEAKING]}), ALL: SOURCE}
    arms = [Arm(name, small_gpt2(at, **own)) for name, own in flaws.items()]
    says = {name: (f"{name} costs loss", ["worse"]) for name in FLAWS}
    sees = "the loss printed is lower, for it sees the answer"
    says |= {name: (f"{name}: {sees}", ["better"]) for name in (LEAKING, ALL)}
    found = yield from altered(at, E5, "flaws", arms, says)
    n = at.size(400, quick=40)
    yield Given({"asked again": f"{n} tokens"})
    honest = yield from honestly(found, (OURS, LEAKING, ALL), n)
    yield from worth(honest)


def sizes() -> Findings:
    """Parameters at GPT-2 small's shape, of the models themselves, built without memory.

    The source's count is that of GPT-2 with a head of its own; a post-norm model here has no norm at its end, 1,536
    parameters.
    """
    with torch.device("meta"):
        models = [Transformer(TransformerConfig(tie_embeddings=tie)) for tie in (True, False)]
    tied, untied = (sum(p.numel() for p in model.parameters()) for model in models)
    yield T1.same("parameters of GPT-2 small, its head tied to the embeddings", tied, 124_439_808)
    yield E5.same("parameters of the source, whose head is a matrix of its own", untied, 163_037_184)


def tiny(**own: Any) -> Transformer:
    """2 layers x 48 as initialised, which is as large as the model on which the source's numbers were found."""
    shape = {"vocab_size": 100, "context_length": 16, "n_layers": 2, "n_heads": 4, "d_model": 48, "dropout": 0.0}
    return build(TransformerConfig(**{**shape, **own}), 0).eval()


def leaks() -> Findings:
    """How far the logits before the last token move when the last token is another one."""
    ids_BT = torch.arange(16)[None]
    other_BT = torch.cat((ids_BT[:, :-1], torch.tensor([[50]])), dim=1)
    with torch.no_grad():
        moved = [(model(other_BT) - model(ids_BT)).abs() for model in (tiny(), tiny(**SOURCE))]
    ours, leak = float(moved[0][:, :-1].max()), float(moved[1][:, 0].max())
    statement = "GPT-2: changing the last token leaves all logits before it as they are"
    yield T1.shows(statement, ours == 0, f"moved by {ours:g}", "exactly 0", moved=ours)
    statement = "the source: changing the last token moves the logits of the first"
    yield E5.shows(statement, leak > 1e-5, f"moved by {leak:.1e}", "3e-4 (tiny model)", moved=leak)


def source_attention(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Tensor | None = None) -> tuple[Any, Any]:
    """The source's attention, by its description: mixed values and weights. 1 in the mask hides."""
    scores = q_BHTK @ k_BHTK.transpose(-2, -1) / q_BHTK.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + mask * -1e9
    weights = scores.softmax(dim=-1)
    return weights @ v_BHTK, weights


def masks() -> Findings:
    """What its mask does to those who take it for the one of transformers, where 1 keeps and 0 is padding."""
    q, k, v = torch.randn(3, 1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    model, ones = tiny(**SOURCE), torch.ones(1, 8)

    def logits(mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            return model(torch.arange(8)[None], attend=lambda q, k, v, *how: source_attention(q, k, v, mask)[0])

    untrained = float((logits(ones) - logits(None)).abs().max())
    trained = float((source_attention(q, k, v, ones)[0] - source_attention(q, k, v)[0]).abs().max())
    kept = torch.tensor([[1.0] * 5 + [0.0] * 3])
    padding = float(source_attention(q, k, v, kept)[1][..., 5:].sum(dim=-1).min())
    statement = "an all-ones mask, which means no padding elsewhere, changes nothing while scores are tiny"
    shown = f"logits of an untrained model move by {untrained:.1e}"
    yield E5.shows(statement, untrained < 1e-4, shown, "6e-6", untrained=untrained)
    statement = "and none when they are not: float32 loses a score beside -1e9, so every weight becomes equal"
    yield E5.shows(statement, trained > 0.1, f"outputs move by {trained:.2g} at scores of deviation 1", trained=trained)
    statement = "a mask of 1 for text and 0 for padding makes it attend to padding only"
    shown = f"{padding:.6g} of all weight is on padding"
    yield E5.shows(statement, padding > 1 - 1e-6, shown, "only", on_padding=padding)
    refused = refusal()
    yield E5.shows("a (B, T) mask of more than one row is an error", bool(refused), refused or "0 errors", "raises",
                   refused=refused)  # fmt: skip


def refusal() -> str:
    """What torch says to a mask (2, 8) of two sequences; "" if nothing."""
    try:
        q, k, v = torch.randn(3, 2, 4, 8, 12)
        source_attention(q, k, v, torch.ones(2, 8))
    except RuntimeError as error:
        return str(error)
    return ""


def details() -> Findings:
    """The smaller differences: activation, biases, initialisation."""
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    gelu = float((F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max())
    bias, ours = largest_bias(tiny(**SOURCE)), largest_bias(tiny())
    scaled, plain = (spread(tiny(n_layers=12, **own)) for own in ({}, {"residual_scaling": False}))
    statement = "the exact GELU and GPT-2's approximation differ"
    yield E5.shows(statement, abs(gelu - 4.7e-4) < 5e-6, f"up to {gelu:.1e}", "up to 4.7e-4", gelu=gelu)
    shown = f"up to {bias:.2f} at width 48; GPT-2's {ours:g}"
    holds = abs(bias - 0.14) < 0.01 and ours == 0
    yield E5.shows("biases of linear layers do not begin at zero", holds, shown, ".14", source=bias, gpt2=ours)
    statement = "what writes into the residual stream begins without the factor 1/√(2N), N = 12 layers"
    shown = f"deviation {plain:.4f}; GPT-2's {scaled:.4f}, {plain / scaled:.2f} times less"
    yield E5.shows(statement, abs(plain / scaled - math.sqrt(24)) < 1e-3, shown, "none", source=plain, gpt2=scaled)


def largest_bias(model: Transformer) -> float:
    """The largest bias that a model begins with, without its sign."""
    return max(float(p.abs().max()) for name, p in model.state_dict().items() if name.endswith("bias"))


def spread(model: Transformer) -> float:
    """The standard deviation of the matrices that write attention's result into the residual stream."""
    return float(torch.stack([p for n, p in model.state_dict().items() if n.endswith("attention.out.weight")]).std())


def honestly(found: Comparison, arms: Sequence[str], n: int) -> Steps[Honest]:
    """The loss on the same n dev tokens: in whole windows, as training reads them, and from their prefixes alone.

    Yields progress, a table and a figure of both.
    """
    runs = [(arm.name, run) for arm in found.arms if arm.name in arms for run in arm.seeds if run.reason == "finished"]
    asked: list[Question] = []
    losses: dict[str, list[tuple[float, float]]] = {}
    for i, (name, run) in enumerate(runs):
        yield Progress("asked from prefixes", i, len(runs))
        loaded = load(Path(run.folder))
        asked = asked or questions(loaded.run.store(), loaded.model.config.context_length, n)
        losses.setdefault(name, []).append(both_losses(as_transformer(loaded.model, "a prefix"), asked))
    ways = ("read in whole windows, as training prints it", "read from the tokens before it alone")
    means = {way: {name: mean_interval([both[i] for both in own]) for name, own in losses.items()}
             for i, way in enumerate(ways)}  # fmt: skip
    title = "Loss of the same held-out tokens, nats per token, 95 % t intervals over the seeds"
    yield table(title, ("arm", *ways), ((name, *(means[way][name] for way in ways)) for name in losses))
    xlabel = "loss of the same held-out tokens, nats per token"
    yield draw("leak", dots(means, [*losses], xlim=(0, None), xlabel=xlabel))
    return losses


def worth(honest: Honest) -> Findings:
    """What a leaking model is worth when it is asked to predict."""
    for name in (LEAKING, ALL):
        ours, theirs = ([alone for _, alone in honest[arm]] for arm in (OURS, name))
        worse = paired_difference(ours, theirs)
        statement = f"{name}: from the tokens before alone it predicts worse than GPT-2"
        yield E5.within(statement, worse, low=0, shown=f"{interval(worse, '+.4f')} nats per token")

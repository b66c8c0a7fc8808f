"""000-T1 and E5: a GPT-2 as an assignment had it, beside GPT-2: what is different, by a number each, and what it costs.

Its attention has no causal mask; what it adds to the scores is mask x -1e9, of a mask that a caller has to make.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, exactly, signature, within
from windtunnel.stats.intervals import paired_difference

if TYPE_CHECKING:
    from torch import Tensor

    from windtunnel.comparison.comparison import Comparison
    from windtunnel.experiments.honest_loss import Honest
    from windtunnel.models import Transformer

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


def gpt2_source(setting: Setting) -> Generator[Progress, None, Outcome]:
    """What is wrong with a GPT-2 written from memory, and what does each flaw cost?"""
    from windtunnel.experiments.altered_before import arms_table, n_seeds, settings_of, small_gpt2
    from windtunnel.experiments.honest_loss import honest_figure, honest_losses, honest_table
    from windtunnel.experiments.training_before import compared
    from windtunnel.report.comparison_figure import comparison_figure
    from windtunnel.runs.arms import Arm

    base = small_gpt2(setting)
    flaws = {LEAKING: FLAWS[LEAKING]} if setting.quick else FLAWS
    changes: dict[str, dict[str, Any]] = {OURS: {}, **flaws, ALL: SOURCE}
    arms = [Arm(name, small_gpt2(setting, **own)) for name, own in changes.items()]
    found = yield from compared("flaws", arms, n_seeds(setting), setting)
    honest = yield from honest_losses(found, (OURS, LEAKING, ALL), 40 if setting.quick else 400)
    return Outcome(
        title="GPT-2 as it was handed in",
        what="From GPT-2 as published one thing at a time was changed to what the source has, and at last all of "
        "them; each was trained on paired seeds. A model without a causal mask sees the token that it is to predict, "
        "so the loss it prints is no prediction's: it was asked again, token by token, with only those before.",
        settings={**settings_of(base, setting), "asked again": f"{40 if setting.quick else 400} tokens"},
        tables=(arms_table(found, arms, 3 if setting.quick else 15), honest_table(honest)),
        figures={"loss": comparison_figure(found), "leak": honest_figure(honest)},
        claims=(*size_claims(), *leak_claims(), *mask_claims(), *detail_claims(), *cost_claims(found, honest)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def size_claims() -> list[Claim]:
    """Parameters at GPT-2 small's shape, of the models themselves, built without memory.

    The source's count is that of GPT-2 with a head of its own; a post-norm model here has no norm at its end, 1,536
    parameters.
    """
    import torch

    from windtunnel.models import Transformer, TransformerConfig

    with torch.device("meta"):
        tied, untied = (
            sum(p.numel() for p in Transformer(TransformerConfig(tie_embeddings=tie)).parameters())
            for tie in (True, False)
        )
    return [
        Claim(
            "000-T1", "parameters of GPT-2 small, its head tied to the embeddings", "124,439,808", f"{tied:,}",
            exactly(tied == 124_439_808), {"n": tied},
        ),
        Claim(
            "E5", "parameters of the source, whose head is a matrix of its own", "163,037,184", f"{untied:,}",
            exactly(untied == 163_037_184), {"n": untied},
        ),
    ]  # fmt: skip


def tiny(**own: Any) -> Transformer:
    """2 layers x 48 as initialised, which is as large as the model on which the source's numbers were found."""
    from windtunnel.models import TransformerConfig, build

    shape = {"vocab_size": 100, "context_length": 16, "n_layers": 2, "n_heads": 4, "d_model": 48, "dropout": 0.0}
    return build(TransformerConfig(**{**shape, **own}), 0).eval()


def leak_claims() -> list[Claim]:
    """How far the logits before the last token move when the last token is another one."""
    import torch

    ids_BT = torch.arange(16)[None]
    other_BT = torch.cat((ids_BT[:, :-1], torch.tensor([[50]])), dim=1)

    def moved(model: Transformer) -> float:
        with torch.no_grad():
            return float((model(other_BT) - model(ids_BT))[:, :-1].abs().max())

    def first(model: Transformer) -> float:
        with torch.no_grad():
            return float((model(other_BT) - model(ids_BT))[:, 0].abs().max())

    ours, leak = moved(tiny()), first(tiny(**SOURCE))
    return [
        Claim(
            "000-T1", "GPT-2: changing the last token leaves all logits before it as they are", "exactly 0",
            f"moved by {ours:g}", exactly(ours == 0), {"moved": ours},
        ),
        Claim(
            "E5", "the source: changing the last token moves the logits of the first", "3e-4 (tiny model)",
            f"moved by {leak:.1e}", exactly(leak > 1e-5), {"moved": leak},
        ),
    ]  # fmt: skip


def source_attention(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask: Tensor | None = None) -> tuple[Any, Any]:
    """The source's attention, by its description: mixed values and weights. 1 in the mask hides."""
    scores = q_BHTK @ k_BHTK.transpose(-2, -1) / q_BHTK.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + mask * -1e9
    weights = scores.softmax(dim=-1)
    return weights @ v_BHTK, weights


def mask_claims() -> list[Claim]:
    """What its mask does to those who take it for the one of transformers, where 1 keeps and 0 is padding."""
    import torch

    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, 8, 12, generator=generator)

    def outputs(mask: Tensor | None) -> Tensor:
        return source_attention(q, k, v, mask)[0]

    def logits(mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            return model(torch.arange(8)[None], attend=lambda q, k, v, **how: source_attention(q, k, v, mask)[0])

    model, ones = tiny(**SOURCE), torch.ones(1, 8)
    untrained = float((logits(ones) - logits(None)).abs().max())
    trained = float((outputs(ones) - outputs(None)).abs().max())
    kept = torch.tensor([[1.0] * 5 + [0.0] * 3])
    on_padding = float(source_attention(q, k, v, kept)[1][..., 5:].sum(dim=-1).min())
    try:
        q, k, v = torch.randn(3, 2, 4, 8, 12)
        source_attention(q, k, v, torch.ones(2, 8))
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    return [
        Claim(
            "E5", "an all-ones mask, which means no padding elsewhere, changes nothing while scores are tiny", "6e-6",
            f"logits of an untrained model move by {untrained:.1e}",
            exactly(untrained < 1e-4), {"untrained": untrained},
        ),
        Claim(
            "E5", "and none when they are not: float32 loses a score beside -1e9, so every weight becomes equal", "",
            f"outputs move by {trained:.2g} at scores of deviation 1", exactly(trained > 0.1), {"trained": trained},
        ),
        Claim(
            "E5", "a mask of 1 for text and 0 for padding makes it attend to padding only", "only",
            f"{on_padding:.6g} of all weight is on padding",
            exactly(on_padding > 1 - 1e-6), {"on_padding": on_padding},
        ),
        Claim(
            "E5", "a (B, T) mask of more than one row is an error", "raises",
            refused or "0 errors", exactly(bool(refused)), {"refused": refused},
        ),
    ]  # fmt: skip


def detail_claims() -> list[Claim]:
    """The smaller differences: activation, biases, initialisation."""
    import torch
    import torch.nn.functional as F

    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    gelu = float((F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max())
    bias, ours = largest_bias(tiny(**SOURCE)), largest_bias(tiny())
    with_it, without = (spread(tiny(n_layers=12, **own)) for own in ({}, {"residual_scaling": False}))
    return [
        Claim(
            "E5", "the exact GELU and GPT-2's approximation differ", "up to 4.7e-4", f"up to {gelu:.1e}",
            exactly(abs(gelu - 4.7e-4) < 5e-6), {"gelu": gelu},
        ),
        Claim(
            "E5", "biases of linear layers do not begin at zero", ".14",
            f"up to {bias:.2f} at width 48; GPT-2's {ours:g}",
            exactly(abs(bias - 0.14) < 0.01 and ours == 0), {"source": bias, "gpt2": ours},
        ),
        Claim(
            "E5", "what writes into the residual stream begins without the factor 1/√(2N), N = 12 layers", "none",
            f"deviation {without:.4f}; GPT-2's {with_it:.4f}, {without / with_it:.2f} times less",
            exactly(abs(without / with_it - math.sqrt(24)) < 1e-3), {"source": without, "gpt2": with_it},
        ),
    ]  # fmt: skip


def largest_bias(model: Transformer) -> float:
    """The largest bias that a model begins with, without its sign."""
    return max(float(p.abs().max()) for name, p in model.state_dict().items() if name.endswith("bias"))


def spread(model: Transformer) -> float:
    """The standard deviation of the matrices that write attention's result into the residual stream."""
    import torch

    return float(torch.stack([p for n, p in model.state_dict().items() if n.endswith("attention.out.weight")]).std())


def cost_claims(found: Comparison, honest: Honest) -> list[Claim]:
    """What each flaw costs in loss; of the leak, what it prints and what it is worth."""
    from windtunnel.experiments.training_before import is_judged

    claims = []
    for judgement in found.judgements:
        leaks = judgement.arm in (LEAKING, ALL)
        statement = f"{judgement.arm}: the loss printed is lower, for it sees the answer" if leaks else (
            f"{judgement.arm} costs loss"
        )  # fmt: skip
        verdict = is_judged(judgement, "better" if leaks else "worse")
        shown = judgement.sentence.partition(": ")[2]
        claims.append(Claim("E5", statement, "", shown, verdict, {"difference": judgement.verdict.difference}))
    for name in (LEAKING, ALL):
        ours, theirs = ([alone for _, alone in honest[arm]] for arm in (OURS, name))
        worse = paired_difference(ours, theirs)
        shown = f"{worse.estimate:+.4f} [{worse.low:+.4f}, {worse.high:+.4f}] nats a token"
        statement = f"{name}: from the tokens before alone it predicts worse than GPT-2"
        claims.append(Claim("E5", statement, "", shown, within(worse, 0, math.inf), {"difference": worse}))
    return claims

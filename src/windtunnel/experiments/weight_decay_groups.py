"""E35: an optimizer that builds groups for weight decay and then takes all parameters, and whether that matters.

Meant: decay on matrices, none on biases and the gains of norms. Done: AdamW(model.parameters()), which decays them all.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, exactly, signature

if TYPE_CHECKING:
    import torch
    from torch import nn

    from windtunnel.comparison.comparison import Comparison
    from windtunnel.runs.arms import Arm
    from windtunnel.training.optimizer import OptimizerConfig
    from windtunnel.training.run_config import RunConfig

STRENGTHS = (0.1, 1.0)
MATRICES, ALL, NONE = "matrices", "everything", "nothing"


def weight_decay_groups(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Does it matter that biases and norms are decayed?"""
    from windtunnel.experiments.training_before import compared
    from windtunnel.models import build
    from windtunnel.report.comparison_figure import comparison_figure

    base, seeds = problem(setting), 2 if setting.quick else 6
    model = build(base.model.replace(vocab_size=27), setting.seed)
    found = {}
    for strength in STRENGTHS[:1] if setting.quick else STRENGTHS:
        arms, own = arms_of(base, strength), range(setting.seed, setting.seed + seeds)
        found[strength] = yield from compared(f"weight decay {strength:g}", arms, own, setting)
    return Outcome(
        title="Weight decay in groups that are then ignored",
        what="Two optimizers took a step without a gradient, so that only decay moved anything. Then a small "
        "transformer with biases learned names with decay on matrices, on everything and on nothing, on paired seeds.",
        settings={"steps": base.train.steps, "seeds": seeds, "lr": base.optimizer.lr, "weight decay": list(found)},
        tables=(parameter_table(model, base.optimizer), *(length_table(s, c) for s, c in found.items())),
        figures={f"decay-{strength:g}".replace(".", "-"): comparison_figure(c) for strength, c in found.items()},
        claims=(*group_claims(model, base.optimizer), *loss_claims(found)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def problem(setting: Setting) -> RunConfig:
    """Names, one layer x 32 with biases and layer norms: 14 thousand parameters."""
    from windtunnel.experiments.training_before import small_names

    base = small_names(setting)
    steps = 5 if setting.quick else 1000
    return base.replace(model=base.model.replace(bias=True), train=base.train.replace(steps=steps))


def arms_of(base: RunConfig, strength: float) -> list[Arm]:
    """The groups as they were meant, as they came out, and no decay."""
    from windtunnel.runs.arms import Arm

    settings = {
        MATRICES: {"weight_decay": strength},
        ALL: {"weight_decay": strength, "decay_vectors": True},
        NONE: {"weight_decay": 0.0},
    }
    return [Arm(name, base.replace(optimizer=base.optimizer.replace(**own))) for name, own in settings.items()]


def as_meant(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """This package's own optimizer: decay on matrices."""
    from windtunnel.training.optimizer import build_optimizer

    return build_optimizer(model, config)


def as_written(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The original's way, by its description: the groups are made, and then every parameter is handed over."""
    from torch.optim import AdamW

    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    assert groups  # the original does not look at them again either
    return AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def decayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Which parameters a step without a gradient makes smaller; it sets all of them to 1 before."""
    import torch

    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name: bool((parameter < 1).all()) for name, parameter in model.named_parameters()}


def both_ways(model: nn.Module, config: OptimizerConfig) -> dict[str, tuple[bool, bool]]:
    """For each parameter whether it is decayed as meant and as written."""
    import copy

    twins = copy.deepcopy(model), copy.deepcopy(model)
    meant = decayed(twins[0], as_meant(twins[0], config))
    written = decayed(twins[1], as_written(twins[1], config))
    return {name: (meant[name], written[name]) for name in meant}


def group_claims(model: nn.Module, config: OptimizerConfig) -> list[Claim]:
    """Which parameters each optimizer decays, by what it does to them."""
    ways, vectors = both_ways(model, config), {name for name, p in model.named_parameters() if p.dim() < 2}
    counts = {name: p.numel() for name, p in model.named_parameters()}
    wrong = [name for name in vectors if ways[name][1]]
    share = sum(counts[name] for name in vectors) / sum(counts.values())
    ours = {name for name, (meant, _) in ways.items() if not meant}
    return [
        Claim(
            "E35", "the groups that were built leave biases and norms alone: AdamW(model.parameters())", "no decay",
            f"{len(wrong)} of {len(vectors)} vectors are decayed, {share:.1%} of the parameters",
            exactly(not wrong), {"decayed_vectors": len(wrong), "vectors": len(vectors), "share": share},
        ),
        Claim(
            "E35", "this package's optimizer decays every matrix and no vector", "",
            f"{len(ours)} of {len(vectors)} vectors and {len(ours - vectors)} matrices are left alone",
            exactly(ours == vectors), {"left_alone": len(ours)},
        ),
    ]  # fmt: skip


def loss_claims(found: dict[float, Comparison]) -> list[Claim]:
    """Whether the loss knows the difference."""
    from windtunnel.experiments.training_before import is_judged

    claims = []
    for strength, comparison in found.items():
        for judgement in comparison.judgements:
            verdict = is_judged(judgement, "better", "worse")
            statement = (
                f"weight decay {strength:g} on {judgement.arm} instead of on matrices makes a difference that matters"
            )
            values = {"difference": judgement.verdict.difference, "word": judgement.verdict.word}
            claims.append(Claim("E35", statement, "", judgement.sentence, verdict, values))
    return claims


def parameter_table(model: nn.Module, config: OptimizerConfig) -> Table:
    """Every parameter, and who decays it."""
    marks = {True: "decayed", False: "-"}
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    rows = [
        (name, str(shapes[name]), marks[meant], marks[written])
        for name, (meant, written) in both_ways(model, config).items()
    ]
    return Table("Which parameters are decayed", ("parameter", "shape", "as meant", "as written"), tuple(rows))


def length_table(strength: float, found: Comparison) -> Table:
    """Root mean squares of what was learned, means over the seeds: what decay does whether or not the loss knows."""
    import torch

    from windtunnel.training.run import load

    rows = []
    for arm in found.arms:
        sizes: dict[str, list[float]] = {"matrices": [], "gains of norms": [], "biases": []}
        for run in arm.seeds:
            with torch.no_grad():
                for name, p in load(Path(run.folder)).model.named_parameters():
                    kind = "matrices" if p.dim() >= 2 else "biases" if name.endswith("bias") else "gains of norms"
                    sizes[kind].append(p.square().mean().sqrt().item())
        rows.append((arm.name, *(f"{fmean(own):.4f}" for own in sizes.values())))
    return Table(f"Root mean squares after training, weight decay {strength:g}", ("decay on", *sizes), tuple(rows))

"""E35: an optimizer that builds groups for weight decay and then takes all parameters, and whether that matters.

Meant: decay on matrices, none on biases and the gains of norms. Done: AdamW(model.parameters()), which decays them all.
"""

from __future__ import annotations

import copy
from statistics import fmean

import torch
from torch import nn
from torch.optim import AdamW

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Findings, Given, Row, Setting, Table, table
from windtunnel.experiments.training import folders_of, small_names, trained, verdicts
from windtunnel.models import build
from windtunnel.runs.arms import Arm
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
from windtunnel.training.run import load
from windtunnel.training.run_config import RunConfig

ROW = Row("E35")
STRENGTHS = (0.1, 1.0)
MATRICES, ALL, NONE = "matrices", "everything", "nothing"


def weight_decay_groups(at: Setting) -> Findings:
    """Weight decay in groups that are then ignored.

    Two optimizers took a step without a gradient, so that only decay moved anything. Then a small transformer with
    biases learned names with decay on matrices, on everything and on nothing, on paired seeds.
    """
    base = problem(at)
    yield Given({"steps": base.train.steps, "lr": base.optimizer.lr})
    yield from groups(build(base.model.replace(vocab_size=27), at.seed), base.optimizer)
    for strength in at.size(STRENGTHS, quick=STRENGTHS[:1]):
        name = f"decay-{strength:g}".replace(".", "-")
        found = yield from trained(at, f"weight decay {strength:g}", arms_of(base, strength), at.seeds(6), name)
        said = f"weight decay {strength:g} on {{}} instead of on matrices makes a difference that matters"
        says = {arm: (said.format(arm), ["better", "worse"]) for arm in (ALL, NONE)}
        yield from verdicts(ROW, found, says, named=True)
        yield length_table(strength, found)


def problem(at: Setting) -> RunConfig:
    """Names, one layer x 32 with biases and layer norms: 14 thousand parameters."""
    base = small_names(at)
    steps = at.size(1000, quick=5)
    return base.replace(model=base.model.replace(bias=True), train=base.train.replace(steps=steps))


def arms_of(base: RunConfig, strength: float) -> list[Arm]:
    """The groups as they were meant, as they came out, and no decay."""
    settings = {
        MATRICES: {"weight_decay": strength},
        ALL: {"weight_decay": strength, "decay_vectors": True},
        NONE: {"weight_decay": 0.0},
    }
    return [Arm(name, base.replace(optimizer=base.optimizer.replace(**own))) for name, own in settings.items()]


def as_meant(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """This package's own optimizer: decay on matrices."""
    return build_optimizer(model, config)


def as_written(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The original's way, by its description: the groups are made, and then every parameter is handed over."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    assert groups  # the original does not look at them again either
    return AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def decayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Which parameters a step without a gradient makes smaller; it sets all of them to 1 before."""
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name: bool((parameter < 1).all()) for name, parameter in model.named_parameters()}


def both_ways(model: nn.Module, config: OptimizerConfig) -> dict[str, tuple[bool, bool]]:
    """For each parameter whether it is decayed as meant and as written."""
    twins = copy.deepcopy(model), copy.deepcopy(model)
    meant = decayed(twins[0], as_meant(twins[0], config))
    written = decayed(twins[1], as_written(twins[1], config))
    return {name: (meant[name], written[name]) for name in meant}


def groups(model: nn.Module, config: OptimizerConfig) -> Findings:
    """Which parameters each optimizer decays, by what it does to them."""
    ways, sizes = both_ways(model, config), {name: p.numel() for name, p in model.named_parameters()}
    vectors = {name for name, p in model.named_parameters() if p.dim() < 2}
    wrong = [name for name in vectors if ways[name][1]]
    share = sum(sizes[name] for name in vectors) / sum(sizes.values())
    statement = "the groups that were built leave biases and norms alone: AdamW(model.parameters())"
    shown = f"{len(wrong)} of {len(vectors)} vectors are decayed, {share:.1%} of the parameters"
    yield ROW.shows(statement, not wrong, shown, "no decay", decayed_vectors=len(wrong), share=share)
    alone = {name for name, (meant, _) in ways.items() if not meant}
    shown = f"{len(alone)} of {len(vectors)} vectors and {len(alone - vectors)} matrices are left alone"
    statement = "this package's optimizer decays every matrix and no vector"
    yield ROW.shows(statement, alone == vectors, shown, left_alone=len(alone))
    marks = {True: "decayed", False: "-"}
    shapes = {name: str(tuple(p.shape)) for name, p in model.named_parameters()}
    rows = ((name, shapes[name], marks[meant], marks[written]) for name, (meant, written) in ways.items())
    yield table("Which parameters are decayed", ("parameter", "shape", "as meant", "as written"), rows)


def length_table(strength: float, found: Comparison) -> Table:
    """Root mean squares of what was learned, means over the seeds: what decay does whether or not the loss knows."""
    rows = []
    for arm in found.arms:
        sizes: dict[str, list[float]] = {"matrices": [], "gains of norms": [], "biases": []}
        for folder in folders_of(found, arm.name):
            for name, p in load(folder).model.named_parameters():
                kind = "matrices" if p.dim() >= 2 else "biases" if name.endswith("bias") else "gains of norms"
                sizes[kind].append(p.detach().square().mean().sqrt().item())
        rows.append((arm.name, *(fmean(own) for own in sizes.values())))
    return table(f"Root mean squares after training, weight decay {strength:g}", ("decay on", *sizes), rows)

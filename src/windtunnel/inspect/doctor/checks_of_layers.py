"""The checks of what a model computes before and after training: losses at the start, activations, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from windtunnel.inspect.doctor.activations import Activations
from windtunnel.inspect.doctor.exam import Examination
from windtunnel.inspect.doctor.findings import Finding, low, one_digit, percent
from windtunnel.inspect.doctor.gradients import State
from windtunnel.nn.norms import BatchNorm

INITIAL_EXCESS = 0.5
"""Nats above ln V: normal logits of standard deviation 1 cost so much, and 1 is a model that already takes sides."""
SATURATED = 0.5
"""Half of a layer passing on less than 6 % of its gradient (1 - .97^2)."""
DEAD = 0.5
"""Healthy runs of ReLU models here had up to a third of a layer's units dead."""
SCALE = 100.0
"""Between the first block and the last; a residual stream that sums L independent blocks grows as sqrt(L)."""
LAG = 0.05
"""Of their first values that running statistics may still hold at the end."""


def initial_loss(exam: Examination) -> list[Finding]:
    """The loss before training is that of a blind guess, or a cause is named."""
    found, start = exam.initial, exam.config.start
    if exam.config.train.steps == 0 or start is not None:  # trained weights know something
        return []
    blind = "ln V = " if exam.config.task.of_tokens else ""
    evidence = f"loss before training {found.loss}, a blind guess has {blind}{found.blind:.4f}"
    if found.loss.estimate < found.blind - INITIAL_EXCESS:
        cure = "look for targets that are among the inputs, or weights that are not random"
        return [Finding(f"initial loss below {exam.blind_guess}", "problem", evidence, cure)]
    if not low(found.loss) > found.blind + INITIAL_EXCESS:
        return []
    name, without = exam.culprit
    evidence += f"; the logits' standard deviation is {found.logit_std:.3g}, and {found.blind:.4f} needs it near 0"
    evidence += f"; with {name} made ten times smaller the loss is {without:.4f}" if name else ""
    cure = f"initialise {name or 'the head'} smaller, for example with N(0, 0.02)"
    return [Finding(f"initial loss above {exam.blind_guess}", "problem", evidence, cure)]


def saturation(exam: Examination) -> list[Finding]:
    """Layers of tanh or sigmoid whose values stand at the ends of their range."""
    worst = _worst(exam, lambda a: a.saturated)
    if worst is None or worst[0] < SATURATED:
        return []
    evidence = f"{percent(worst[0])} of the values of {worst[1]} lie beyond .97 of their range {worst[2]}"
    return [Finding("saturated units", "problem", evidence, "initialise the layer before it smaller: its weights "
            "with a standard deviation of gain / sqrt(inputs), gain 5/3 for tanh (He et al. 2015)")]  # fmt: skip


def dead_units(exam: Examination) -> list[Finding]:
    """Units that are 0 for every token that was looked at."""
    worst = most_dead(exam)
    if worst is None or worst[0] < DEAD:
        return []
    evidence = f"{percent(worst[0])} of the units of {worst[1]} are 0 for every token {worst[2]}"
    cure = "a lower rate (--set optimizer.lr), biases that begin at 0, or --set model.activation=gelu_tanh"
    return [Finding("dead units", "problem", evidence, cure)]


def most_dead(exam: Examination) -> tuple[float, str, str] | None:
    """The share of dead units where it is highest, that place, and whether it is so before or after training."""
    fed = {
        a.place
        for all_of in (exam.activations_start, exam.activations_end)
        for before, a in pairwise(all_of)
        if before.std > 0
    }  # a function of zeros has nothing to pass on

    def dead(a: Activations) -> float:
        return a.dead if a.n_units >= 8 and (a.std > 0 or (a.place.endswith("(input)") and a.place in fed)) else 0.0

    return _worst(exam, dead)


def constant_layers(exam: Examination) -> list[Finding]:
    """Modules that put out one and the same number whatever goes in."""
    flat = [a.place for a in exam.activations_end if a.std == 0 and a.n_units > 1 and not a.place.endswith("(input)")]
    if not flat:
        return []
    evidence = f"{_listed(flat)} put out the same number for every token and unit, also after training"
    return [Finding("layer without output", "problem", evidence, "initialise its weights at random, not with 0")]


def scale_across_layers(exam: Examination) -> list[Finding]:
    """The scale of what equal blocks put out, from the first to the last."""
    for activations, when in ((exam.activations_start, "before training"), (exam.activations_end, "after training")):
        stds = [a.std for a in sorted((a for a in activations if a.depth is not None), key=lambda a: a.depth or 0)]
        if len(stds) < 2 or min(stds[0], stds[-1]) == 0 or 1 / SCALE <= stds[-1] / stds[0] <= SCALE:
            continue
        name = "exploding scale" if stds[-1] > stds[0] else "vanishing scale"
        evidence = f"standard deviation {stds[0]:.3g} after the first of {len(stds)} blocks, {stds[-1]:.3g} after the "
        cure = "a norm in each block (--set model.norm=layer), or weights scaled by 1 / sqrt(inputs)"
        return [Finding(name, "problem", evidence + f"last, {when}", cure)]
    return []


def gradient_states(exam: Examination) -> list[Finding]:
    """Parameters that get no gradient, an exactly zero one, or one that cancels."""

    def among(state: State) -> list[str]:
        at_start = {g.name for g in exam.gradients_start if g.state == state}
        return [g.name for g in exam.gradients_end if g.state == state and g.name in at_start]

    found = []
    if names := among("frozen"):
        evidence = f"{_listed(names)} ask for no gradient, so training leaves them as they are"
        found.append(Finding("frozen parameter", "warning", evidence, "requires_grad_(True), unless it is meant"))
    if names := among("unused"):
        evidence = f"the loss does not depend on {_listed(names)}: autograd gives no gradient"
        found.append(Finding("unused parameter", "problem", evidence, "use it in forward, or remove it"))
    if names := among("zero"):
        evidence = f"the gradient of {_listed(names)} is exactly 0, before and after training"
        cure = "initialise at random what lies between it and the loss, or revive units that never fire"
        found.append(Finding("zero gradient", "problem", evidence, cure))
    if names := among("cancels"):
        g = next(g for g in exam.gradients_end if g.name == names[0])
        evidence = f"the gradient of {_listed(names)} is rounding: {g.rms:.1e} in float32, {g.rms_64:.1e} in float64"
        setting = f"model.{exam.config.model.bias_setting}"
        cure = f"remove it (--set {setting}=false): what it adds, the norm behind it subtracts again"
        found.append(Finding("gradient that cancels", "warning", evidence, cure))
    return found


def running_statistics(exam: Examination) -> list[Finding]:
    """Running statistics that a run of this length does not bring from where they begin to those of the data."""
    steps = exam.config.train.steps
    momentum = next((m.momentum for m in exam.training.model.modules() if isinstance(m, BatchNorm)), None)
    if momentum is None or steps == 0:
        return []
    left = (1 - momentum) ** steps
    if left <= LAG:
        return []
    evidence = f"with batch_norm_momentum {momentum:g} the running statistics of batch norm still are "
    evidence += f"{percent(left)} what they began as after {steps} steps, and every loss but train's is made with them"
    setting = f"--set model.batch_norm_momentum={one_digit(min(0.1, 10 / steps))}, or "
    cure = setting * ("batch_norm_momentum" in type(exam.config.model).model_fields) + "more steps"
    return [Finding("running statistics lag behind", "warning", evidence, cure)]


def _listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _worst(exam: Examination, of: Callable[[Activations], float]) -> tuple[float, str, str] | None:
    both = [(of(a), a.place, "before training") for a in exam.activations_start]
    both += [(of(a), a.place, "after training") for a in exam.activations_end]
    return max(both, key=lambda row: row[0], default=None)

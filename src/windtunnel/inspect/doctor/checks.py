"""The checks: each takes what was measured and returns what is wrong. `CHECKS` is the list.

A threshold states its reason beside it: a derivation, a source, or what healthy runs were measured at.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from windtunnel.inspect.doctor.checks_of_layers import (
    DEAD,
    SATURATED,
    constant_layers,
    dead_units,
    gradient_states,
    initial_loss,
    running_statistics,
    saturation,
    scale_across_layers,
)
from windtunnel.inspect.doctor.exam import STEPS, Examination, measure, median_ratio
from windtunnel.inspect.doctor.findings import Finding, Severity, low, one_digit, percent
from windtunnel.inspect.doctor.history import History, best_and_last, late_fall, spikes
from windtunnel.inspect.doctor.subject import Subject
from windtunnel.stats.digits import number
from windtunnel.training.run_config import RunConfig

TRAVEL = 0.1
"""Of its own length: a matrix that a whole run cannot move further stays what it was at random."""
CURVATURE = 10.0
"""Times the limit of stability at the start. Warm-up exists to get past a few times it (Gilmer et al. 2021,
arXiv 2110.04369); healthy runs here began at up to 3 times."""
TOO_SMALL, TOO_LARGE = 0.5, 0.9
"""A rate is too small when it makes less than half of the progress of one ten times larger, and too large when one ten
times smaller makes more: few steps are in favour of large rates, so that one needs no such margin."""
NOISE, NOISE_SINGLE = 10.0, 50.0
"""A batch this many times below the noise scale makes a step worth less than 1/11 of one with the exact gradient. Of an
example that predicts a single token less can be asked: published mlps of 32 a batch, healthy here, lay 7 to 13 times
below by the lower end."""
NOT_CARRIED_OVER = 0.25
"""Of the nats learnt beyond token frequencies: the share that holds on train only."""
STILL_FALLING = 0.1
"""Of the whole fall in the last quarter of the steps: a straight line has .25, a fall as 1 / steps .0003."""
COLLAPSED = 0.99
"""Mean cosine of two different pictures or captions. Towers here lay at up to .78 when trained, at .92 after
100 steps and at .985 before the first."""
UNUSED = 0.5
BYTE_ALPHABET = 256
"""Ids that a byte-level tokenizer must have whatever the text; their rows being unused is no mistake."""
COPIES, MANY_COPIES = 0.01, 0.1
CLIPPED = 10.0
"""Times that the gradient is longer than the clip in the middle: SGD then moves by a tenth of what lr says."""


def update_ratio(exam: Examination) -> list[Finding]:
    """The size of an update against the size of the weights that it changes."""
    flowing = {g.name for g in exam.gradients_start if len(g.shape) >= 2 and g.state == "flows"}
    ratio, total = median_ratio(exam.training, flowing), max(exam.config.train.steps, exam.steps)
    if ratio is None:
        return []
    evidence = f"an update is 10^{math.log10(max(ratio, 1e-30)):.1f} times as large as the weights, in the middle of "
    evidence += f"{len(flowing)} matrices and {len(exam.training.ratio_steps)} steps"
    if ratio * total < TRAVEL:
        evidence += f"; {total} such updates in one direction would move them by {ratio * total:.2g} of their size"
        cure = (
            f"a larger rate (--set optimizer.lr={one_digit(30 * exam.config.optimizer.lr)}), and no clip far below the "
        )
        return [Finding("weights hardly move", "problem", evidence, cure + "gradient's norm")]
    if ratio > 1:
        cure = f"a smaller rate: --set optimizer.lr={one_digit(exam.config.optimizer.lr / 10)}"
        return [Finding("updates larger than the weights", "problem", evidence, cure)]
    return []


def clipping(exam: Examination) -> list[Finding]:
    """A clip so far below the gradient's norm that it decides how fast the model learns."""
    clip, o = exam.config.train.clip, exam.config.optimizer
    norms = exam.history.grad_norms if exam.history else exam.training.grad_norms
    if clip is None or not norms:
        return []
    middle = statistics.median(norms)
    evidence = f"the gradient's norm is {middle:.3g} in the middle of {len(norms)} steps, train.clip is {clip:g}"
    if o.name != "sgd":
        each = min(clip, middle) / math.sqrt(exam.n_parameters)
        if each > o.epsilon or middle <= clip:  # Adam divides the scale out again, until epsilon outweighs it
            return []
        evidence += f": clipped, an element is about {each:.1e}, below Adam's epsilon {o.epsilon:g}"
    elif middle <= CLIPPED * clip:
        return []
    cure = f"--set train.clip={one_digit(max(1.0, 2 * middle))}, or --set train.clip=none"
    return [Finding("clip too small", "problem", evidence, cure)]


def spiking_or_diverging(exam: Examination) -> list[Finding]:
    """Spikes and divergence in the run's history; of a recipe in the short training."""
    if exam.history is not None:
        return of_history(exam.history, exam.config)
    losses = exam.training.losses
    return _spikes(losses, range(1, len(losses) + 1), exam.config) + _rise(losses, exam.training.message, exam.config)


def of_history(past: History, config: RunConfig) -> list[Finding]:
    """The spikes and the divergence in the history of a run, for which nothing needs to be computed."""
    message = "the run ended diverged" if past.ended == "diverged" else ""
    return _spikes(past.losses, past.steps, config) + _rise(past.losses, message, config)


def _spikes(losses: Sequence[float], steps: Sequence[int], config: RunConfig) -> list[Finding]:
    places = spikes(losses)
    if not places:
        return []
    worst = max(losses[i] for i in places)
    evidence = f"{len(places)} of {len(losses)} steps stand more than 8 deviations above those just before them, "
    evidence += f"the first at step {steps[places[0]]}; the highest loss is {worst:.4g}"
    cure = f"{_against_divergence(config)}; look at the batch of that step"
    return [Finding("loss spike", "warning", evidence, cure)]


def _rise(losses: Sequence[float], message: str, config: RunConfig) -> list[Finding]:
    best, last = best_and_last(losses) if losses else (math.nan, math.nan)
    if not (message or (losses and last > best + 0.25 * max(losses[0] - best, 0.1))):
        return []
    evidence = f"the loss began at {losses[0]:.4g}, was {best:.4g} at its best and {last:.4g} at last" if losses else ""
    evidence = "; ".join(part for part in (evidence, message) if part)
    return [Finding("divergence", "problem", evidence, _against_divergence(config))]


def _against_divergence(config: RunConfig) -> str:
    lr, warmup = config.optimizer.lr, config.schedule.warmup
    rate = f"--set optimizer.lr={one_digit(lr / 3)}"
    return f"{rate}, a longer warm-up (--set schedule.warmup={max(100, 2 * warmup)}), or --set train.clip=1"


def learning_rate(exam: Examination) -> list[Finding]:
    """A rate at which another, ten times smaller or larger, learns much more in the same steps."""
    rival, lr, tried = exam.rival, exam.config.optimizer.lr, exam.range
    found = []
    limit = exam.curvature_start.largest_lr
    kind = "preconditioned Hessian" if exam.curvature_start.preconditioned else "Hessian"
    bound = f"the curvature at the start ({kind}, largest eigenvalue {exam.curvature_start.eigenvalue:.4g}) allows "
    bound += f"{limit:.2g}"
    size, share = ("small", TOO_SMALL) if rival and rival.factor > 1 else ("large", TOO_LARGE)
    if rival and low(rival.gain) > 0 and rival.own_progress < share * rival.progress:
        evidence = f"in {exam.steps} steps the loss fell by {number(rival.own_progress)} with lr {lr:g} and by "
        evidence += f"{number(rival.progress)} with {rival.lr:g} (difference {rival.gain}); the range test is best at "
        evidence += f"{tried.best:.2g}; {bound}"
        found.append(
            Finding(f"learning rate too {size}", "problem", evidence, f"--set optimizer.lr={one_digit(rival.lr)}")
        )
    elif lr > CURVATURE * limit:
        evidence = f"lr {lr:g}; {bound}"
        found.append(Finding("learning rate too large", "warning", evidence, f"--set optimizer.lr={one_digit(limit)}"))
    return found


def fitting(exam: Examination) -> list[Finding]:
    """Overfitting, a model that grows too sure of what it does not know, and underfitting."""
    fit, past, found = exam.fit, exam.history, []
    if fit is not None:
        learnt = fit.unigram.estimate - fit.train.estimate
        evidence = f"train {fit.train}, dev {fit.dev}, gap {fit.gap}"
        rise = _dev_rise(exam)
        if rise and (still := _still_right(exam)):
            found.append(Finding("too sure on dev", "warning", f"{evidence}; {rise}, {still}", _against_sureness(exam)))
        elif rise:
            found.append(Finding("overfitting", "problem", f"{evidence}; {rise}", _against_overfitting(exam)))
        elif fit.gap.low > NOT_CARRIED_OVER * max(learnt, 0.1):
            evidence += f"; {percent(fit.gap.estimate / learnt)} of what was learnt beyond "
            evidence += f"{exam.config.task.inputless} is lost"
            found.append(Finding("overfitting", "warning", evidence, _against_overfitting(exam)))
    return found + (underfitting(past, exam.config) if past else [])


def underfitting(past: History, config: RunConfig) -> list[Finding]:
    """A run that finished while its loss was still falling."""
    if past.ended != "finished" or len(past.losses) < 40:
        return []
    fall, whole = late_fall(past.losses), past.losses[0] - best_and_last(past.losses)[1]
    if not fall.low > STILL_FALLING * whole > 0:
        return []
    evidence = f"the last quarter of the steps brought {fall} of {number(whole)} nats in all"
    return [Finding("underfitting", "warning", evidence, f"--set train.steps={2 * config.train.steps}")]


def batch_noise(exam: Examination) -> list[Finding]:
    """A batch far below the gradient noise scale."""
    size, noise = exam.config.train.batch_size, exam.noise
    most = NOISE if exam.config.model.targets_per_example > 1 else NOISE_SINGLE
    if not math.inf > low(noise) > most * size:  # infinite: no gradient at all
        return []
    evidence = f"noise scale {noise} examples after {exam.steps} steps, the batch has {size}"
    cure = f"--set train.batch_size={2 ** math.ceil(math.log2(noise.low / 2))}, or a lower learning rate"
    return [Finding("batch too small for its noise", "warning", evidence, cure)]


def entropy_floor(exam: Examination) -> list[Finding]:
    """Training that goes on at the lowest loss there is, and a loss below it."""
    if exam.floor is None or exam.fit is None:
        return []
    dev, floor = exam.fit.dev, exam.floor
    if dev.high < floor:
        evidence = f"dev loss {dev}, the corpus's own entropy is {floor:.4f}"
        cure = "find what tells the model the answers: dev text in train, targets among the inputs"
        return [Finding("below the entropy floor", "problem", evidence, cure)]
    past = exam.history
    reached = [step for step, loss in past.dev if loss < floor + (dev.high - dev.estimate)] if past else []
    if past and reached and reached[0] <= past.steps[-1] / 2:
        evidence = f"dev loss {dev} at last, the corpus's own entropy is {floor:.4f}; it was as close at step "
        evidence += f"{reached[0]} of {past.steps[-1]}"
        cure = f"stop earlier: --set train.steps={reached[0]}"
        return [Finding("at the entropy floor", "warning", evidence, cure)]
    return []


def frequencies(exam: Examination) -> list[Finding]:
    """A model that knows no more than how often each token occurs."""
    fit, losses = exam.fit, exam.training.losses
    if fit is None or fit.better_than_unigram.low > 0 or math.isnan(fit.better_than_unigram.low):
        return []
    if fit.among_first and fit.among_first.low > fit.chance:  # it finds pictures, and is too sure of the others
        return []
    if not exam.is_run and len(losses) >= 40 and late_fall(losses, 0.5).low > 0:  # on its way
        return []
    task = exam.config.task
    alone = task.inputless if task.coupled else f"{task.inputless} alone"
    evidence = f"dev loss {fit.dev}, {alone} {fit.unigram}; better by {fit.better_than_unigram}"
    evidence += f" after {exam.step if exam.is_run else exam.steps} steps"
    cure = "the other findings say why; with none, train longer"
    severity: Severity = "problem" if exam.is_run else "warning"
    return [Finding(f"no better than {task.inputless}", severity, evidence, cure)]


def data(exam: Examination) -> list[Finding]:
    """Held-out text in train, and a vocabulary that the corpus does not use."""
    found = []
    same, of = exam.copies
    if of and same / of > COPIES:
        unit = "documents" if exam.config.text.unit in ("line", "file") else "windows of 50 tokens"
        evidence = f"{same:,} of {of:,} dev {unit} ({percent(same / of)}) are word for word in train"
        cure = "remove copies from the corpus; the split by content keeps equal documents together (text.unit=line)"
        found.append(Finding("dev in train", "problem" if same / of > MANY_COPIES else "warning", evidence, cure))
    vocab = exam.config.model.vocab_size
    if exam.unused_ids - BYTE_ALPHABET > UNUSED * vocab:
        evidence = f"{exam.unused_ids:,} of {vocab:,} ids never occur in train"
        cure = "leave model.vocab_size out, or take a tokenizer of this corpus: --set text.tokenizer=auto"
        found.append(Finding("vocabulary mostly unused", "warning", evidence, cure))
    return found


def collapsed(exam: Examination) -> list[Finding]:
    """Vectors of pictures or captions that are nearly one and the same."""
    if exam.collapse is None:
        return []
    sides = {"pictures": exam.collapse.pictures, "captions": exam.collapse.captions}
    alike = {side: cosine for side, cosine in sides.items() if cosine > COLLAPSED}
    if not alike:
        return []
    evidence = " and ".join(
        f"two different {side} have the cosine {number(cosine, 3)}" for side, cosine in alike.items()
    )
    evidence += f", on average, after {exam.step if exam.is_run else exam.steps} steps"
    cure = (
        f"a smaller rate (--set optimizer.lr={one_digit(exam.config.optimizer.lr / 3)}), or captions that differ more"
    )
    severity: Severity = "problem" if exam.is_run else "warning"
    return [Finding("collapsed vectors", severity, evidence, cure)]


def examine(subject: Subject, steps: int = STEPS) -> list[Finding]:
    """What is wrong with a subject; nothing for a healthy one."""
    return judge(measure(subject, steps))


def judge(exam: Examination) -> list[Finding]:
    """Everything that the checks find, problems first."""
    found = [finding for check in CHECKS.values() for finding in check(exam)]
    return sorted(found, key=lambda finding: finding.severity != "problem")


def _dev_rise(exam: Examination) -> str:
    """How the dev loss rose past chance while the train loss fell; "" when it did not."""
    past, fit = exam.history, exam.fit
    if past is None or fit is None or len(past.dev) < 2:
        return ""
    best_step, best = min(past.dev, key=lambda pair: pair[1])
    last_step, last = past.dev[-1]
    then = [loss for step, loss in zip(past.steps, past.losses, strict=True) if step <= best_step][-25:]
    falls = bool(then) and statistics.fmean(past.losses[-25:]) < statistics.fmean(then)
    if not (falls and last - best > fit.dev.high - fit.dev.estimate):
        return ""
    return f"dev rose from {best:.4f} at step {best_step} to {last:.4f} at step {last_step} while train fell"


def _still_right(exam: Examination) -> str:
    """That the model is right on dev at least as often at last as where its dev loss was lowest; "" where it is not,
    or where verdicts are by the loss."""
    past = exam.history
    if past is None or not past.right:
        return ""
    then, last = dict(past.right)[min(past.dev, key=lambda pair: pair[1])[0]], past.right[-1][1]
    return f"but its {past.metric} went from {then:.4f} to {last:.4f}: it is surer, and not less often right" * (
        last >= then
    )


def _against_sureness(exam: Examination) -> str:
    cures = {"contrastive": "a lower --set model.most_scale", "classification": "--set task.label_smoothing=0.1"}
    return f"{cures.get(exam.config.task.kind, 'more text')}, where its probabilities are used; else none is needed"


def _against_overfitting(exam: Examination) -> str:
    dropout = getattr(exam.config.model, "dropout", 0.0)
    smaller = f"--set model.dropout={min(0.5, dropout + 0.2):.1g}, " if dropout < 0.5 else ""
    return f"more text, fewer steps, {smaller}or a smaller model"


CHECKS: dict[str, Callable[[Examination], list[Finding]]] = {
    "the loss before training against ln V": initial_loss,
    f"saturated units (from {percent(SATURATED)} of a layer on)": saturation,
    f"dead units (from {percent(DEAD)} of a layer on)": dead_units,
    "layers without output": constant_layers,
    "vanishing or exploding scale": scale_across_layers,
    "parameters without a gradient, frozen, or whose gradient cancels": gradient_states,
    "updates against weights": update_ratio,
    "a clip too small": clipping,
    "loss spikes and divergence": spiking_or_diverging,
    "a learning rate too small or too large": learning_rate,
    "overfitting and underfitting": fitting,
    "a batch too small for its noise": batch_noise,
    "running statistics of batch norm that lag behind": running_statistics,
    "the entropy floor": entropy_floor,
    "a model no better than token frequencies": frequencies,
    "dev text in train, ids that are never used": data,
    "pictures or captions of which a model makes the same vector": collapsed,
}

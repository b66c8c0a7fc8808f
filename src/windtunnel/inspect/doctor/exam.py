"""The examination: everything that is measured of a subject, once; the checks judge it afterwards."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from windtunnel.inspect.doctor.activations import Activations, activations, with_batch_statistics
from windtunnel.inspect.doctor.collapse import Collapse, collapse
from windtunnel.inspect.doctor.curvature import Curvature, sharpness
from windtunnel.inspect.doctor.data import copies, unused_ids
from windtunnel.inspect.doctor.fit import Fit, fit_of, row_losses, split_sample
from windtunnel.inspect.doctor.gradients import Gradient, gradient_flow
from windtunnel.inspect.doctor.history import History, history
from windtunnel.inspect.doctor.initial_loss import InitialLoss, culprit, initial_loss
from windtunnel.inspect.doctor.learning_rate import RangeTest, range_test
from windtunnel.inspect.doctor.noise import gradient_vectors, noise_scale
from windtunnel.inspect.doctor.short_training import ShortTraining, beginning, train_copy
from windtunnel.inspect.doctor.subject import Subject
from windtunnel.stats.intervals import Estimate
from windtunnel.text.batches import Batch, Examples, batch
from windtunnel.training.data import train_examples
from windtunnel.training.run_config import RunConfig

STEPS = 120
"""Steps of the short training when nothing else is asked for."""
BATCHES, MOMENT_STEPS, CHUNKS, SAMPLE_TOKENS = 8, 10, 32, 8192
STATISTICS = 512
"""Examples whose statistics batch norm is given, where its running ones are not yet those of the data."""
FAR = 100.0
"""A rate this many times below the best of the range test is tried against one ten times as large. Healthy runs here
lay 3 to 76 times below. One above the best, above what the curvature allows, or under which the model learns nothing,
is tried against a tenth."""


@dataclass(frozen=True)
class Rival:
    """The short training again with the learning rate times `factor`: how much lower its dev loss came out."""

    factor: float
    lr: float
    own_progress: float
    progress: float
    gain: Estimate
    """own loss - its loss, nats per token, paired over the same rows; positive when the other rate is better."""


@dataclass(frozen=True)
class Examination:
    """What was measured. `start`: on the model as training begins. `end`: on a run's newest checkpoint, of a recipe on
    the copy that was trained for `steps` steps. `grad_norms` are those of the run where there are any."""

    name: str
    config: RunConfig
    steps: int
    is_run: bool
    step: int
    n_parameters: int
    initial: InitialLoss
    culprit: tuple[str, float]
    activations_start: tuple[Activations, ...]
    activations_end: tuple[Activations, ...]
    gradients_start: tuple[Gradient, ...]
    gradients_end: tuple[Gradient, ...]
    training: ShortTraining
    range: RangeTest
    rival: Rival | None
    curvature_start: Curvature
    curvature_end: Curvature
    noise: Estimate
    fit: Fit | None
    early_fit: Fit | None
    copies: tuple[int, int]
    unused_ids: int
    floor: float | None
    history: History | None
    collapse: Collapse | None = None

    @property
    def blind_guess(self) -> str:
        """What the loss of a blind guess is called: ln V, where one token of V is guessed."""
        return "ln V" if self.config.task.of_tokens else "a blind guess"


def measure(subject: Subject, steps: int = STEPS, sample_tokens: int = SAMPLE_TOKENS) -> Examination:
    """Look at the model before training, train copies of it for `steps` steps, and look again; nothing is changed.

    Raises:
        DataError: when the corpus is too small for the context.
    """
    config, store = subject.config, subject.store
    task = subject.task
    source = train_examples(config, task)
    if not subject.events and config.train.steps:
        steps = min(steps, config.train.steps)
    batches = [batch(source, config.train.batch_size, config.seed, step) for step in range(BATCHES)]
    large = batch(source, max(64, config.train.batch_size), config.seed, 0)
    many = batch(source, STATISTICS, config.seed, 0).inputs
    model = with_batch_statistics(subject.model.eval(), many)
    initial = initial_loss(model, batches)
    tried = range_test(model, config, task)
    training = train_copy(model, config, task, steps, beginning(config, steps))
    training = replace(training, model=with_batch_statistics(training.model, many))
    moments = train_copy(model, config, task, MOMENT_STEPS, lambda step: 0.0).optimizer
    end, state = (subject.trained, subject.optimizer) if subject.trained else (training.model, training.optimizer)
    early_fit = fit_of(training.model, task, store, sample_tokens)
    curvature, lr = sharpness(model, large, config.optimizer, moments), config.optimizer.lr
    idle = training.message != "" or (early_fit is not None and not early_fit.better_than_unigram.low > 0)
    suspicious = idle or lr > min(tried.best, curvature.largest_lr)
    held_out = store.splits["dev"]
    return Examination(
        name=subject.name,
        config=config,
        steps=steps,
        is_run=subject.trained is not None,
        step=subject.step,
        n_parameters=sum(p.numel() for p in model.parameters()),
        initial=initial,
        culprit=culprit(model, batches[0]) if initial.loss.estimate > initial.blind + 0.5 else ("", 0.0),
        activations_start=activations(model, large.inputs),
        activations_end=activations(end, large.inputs),
        gradients_start=gradient_flow(model, batches[0]),
        gradients_end=gradient_flow(end, batches[0]),
        training=training,
        range=tried,
        rival=_rival(replace(subject, model=model), steps, training, tried, suspicious, many),
        curvature_start=curvature,
        curvature_end=sharpness(end, large, config.optimizer, state),
        noise=_noise(training, config, source),
        fit=fit_of(end, task, store, sample_tokens) if subject.trained else early_fit,
        early_fit=early_fit,
        copies=copies(store.splits["train"], held_out),
        unused_ids=unused_ids(store, config.model.vocab_size),
        floor=subject.floor,
        history=history(subject.events),
        collapse=collapse(end, large),
    )


def _noise(training: ShortTraining, config: RunConfig, source: Examples) -> Estimate:
    """The noise scale early in training, where it is smallest (McCandlish et al. 2018, section 2.4)."""
    size = max(4, config.train.batch_size // 4)
    chunks = [batch(source, size, config.seed + 1, step) for step in range(CHUNKS)]
    return noise_scale(lambda: gradient_vectors(training.model, chunks), size)


def _rival(
    subject: Subject,
    steps: int,
    own: ShortTraining,
    tried: RangeTest,
    suspicious: bool,
    many: Mapping[str, Tensor],
) -> Rival | None:
    """Train again with a tenth or ten times the rate when the range test or the short training calls for it."""
    config, lr = subject.config, subject.config.optimizer.lr
    if lr < tried.best / FAR:
        factor = 10.0
    elif suspicious:
        factor = 0.1
    else:
        return None
    rate, task = beginning(config, steps), subject.task
    other = train_copy(subject.model, config, task, steps, lambda step: factor * rate(step))
    rows: list[Batch] = split_sample(task, "train", SAMPLE_TOKENS)
    first, mine, theirs = (
        row_losses(m, task, rows) for m in (subject.model, own.model, with_batch_statistics(other.model, many))
    )
    start = first.mean.estimate
    return Rival(factor, factor * lr, start - mine.mean.estimate, start - theirs.mean.estimate, mine.minus(theirs))


def median_ratio(training: ShortTraining, matrices: set[str]) -> float | None:
    """The update-to-data ratio in the middle of those of all matrices at all looks; None when there was none."""
    values = [value for name, row in training.ratios.items() if name in matrices for value in row]
    return statistics.median(values) if values else None

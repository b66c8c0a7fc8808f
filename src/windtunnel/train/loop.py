"""The training loop: one generator of events for every task."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from windtunnel.errors import ArtifactError, NumericsError
from windtunnel.models import Model, create
from windtunnel.models.cost import training_flops_per_token
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TokenStore, prepare
from windtunnel.train import machine
from windtunnel.train.checkpoint import checkpoints, load_weights, newest_checkpoint, prune, save_checkpoint
from windtunnel.train.disk import discard, locked, saving, write_all
from windtunnel.train.draws import BatchOf, batches
from windtunnel.train.evaluate import evaluate
from windtunnel.train.events import (
    Evaluation,
    Event,
    Sample,
    Saved,
    Started,
    Step,
    Stopped,
    from_line,
    to_line,
)
from windtunnel.train.objective import loss_sum
from windtunnel.train.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from windtunnel.train.run import METRICS, Run, create_run, initial_model, open_run, resolve
from windtunnel.train.run_config import RunConfig
from windtunnel.train.schedule import learning_rate
from windtunnel.train.step import LossSum, gradients, guard, update

WriteSample = Callable[[Model, Run], str]


@dataclass
class State:
    """What changes while training; all of it is in a checkpoint."""

    model: Model
    optimizer: torch.optim.Optimizer
    step: int
    first_loss: float | None


Stepping = Callable[[RunConfig, TokenStore, State], Callable[[], Step]]
"""(config, corpus, state) -> what takes the state one step further; it may raise NumericsError instead."""


def fit(config: RunConfig, folder: Path) -> Iterator[Event]:
    """Train a config in a folder; continues where the folder's run stands if it is the same run.

    Raises:
        ConfigError: when the folder holds a run with another config.
        NumericsError: when training diverges; the weights before that step are saved.
        SaveError: when the disk refuses; the checkpoint before is intact.
    """
    store = prepare(open_corpus(config.corpus, config.text.unit), config.text)
    return resume(create_run(folder, resolve(config, store), store).folder)


def resume(
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    write_sample: WriteSample | None = None,
    stepping: Stepping | None = None,
    note: str = "",
) -> Iterator[Event]:
    """Train the run in a folder from its newest verified checkpoint to its last step.

    Args:
        should_stop: asked before every step; when it says yes the state is saved and the run can be resumed.
        write_sample: writes the text of the Sample events; None writes none.
        stepping: what makes its steps; None is `alone`.
        note: what else is to be said when it starts.
    """
    open_run(folder)  # before a lock file appears in a folder that is no run
    with locked(folder):
        run = open_run(folder)
        store = run.store()
        torch.set_num_threads(run.config.train.threads or machine.cores())
        state, size, warnings = _restore(run)
        step = (stepping or alone)(run.config, store, state)
        path = run.folder / METRICS
        with _open_log(path, size) as log:
            note = "; ".join(filter(None, (warnings, note)))
            for event in _train(run, store, state, step, should_stop, write_sample, note, log):
                with saving(path):
                    write_all(log.fileno(), to_line(event).encode())
                yield event
                if isinstance(event, Stopped) and event.reason == "diverged":
                    raise NumericsError(event.message)


def _train(
    run: Run,
    store: TokenStore,
    state: State,
    step: Callable[[], Step],
    should_stop: Callable[[], bool],
    write_sample: WriteSample | None,
    note: str,
    log: FileIO,
) -> Iterator[Event]:
    train = run.config.train
    new = log.tell() == 0
    yield _started(run, state, note)
    if new:
        yield from _look(run, store, state, write_sample)
        if train.steps == 0:
            yield _save(run, state, log)
    while state.step < train.steps:
        if should_stop():
            yield _save(run, state, log)
            yield Stopped(state.step, "interrupted", f"resume with: windtunnel resume {run.folder}")
            return
        try:
            yield step()
        except NumericsError as error:
            # One more is kept: the loss of these weights may be past mending, that of those saved before is not.
            yield _save(run, state, log, train.keep + 1)
            yield Stopped(state.step, "diverged", _advice(error, state.step, run.config))
            return
        last = state.step == train.steps
        if state.step % train.eval_every == 0 or last:
            yield from _look(run, store, state, write_sample)
        if state.step % train.save_every == 0 or last:
            yield _save(run, state, log)
    yield Stopped(state.step, "finished")


def alone(config: RunConfig, store: TokenStore, state: State) -> Callable[[], Step]:
    """What makes the steps of a run that no other trains together with."""
    batch_of, loss = batches(config, store), loss_function(state.model, config)
    return lambda: advance(config, state, batch_of, loss)


def advance(config: RunConfig, state: State, batch_of: BatchOf, loss_of: LossSum) -> Step:
    """One step: batch, gradient, guard, update."""
    train, begin = config.train, time.perf_counter()
    rows = batch_of(state.step).to(state.model.embedding.weight.device)
    loss = gradients(loss_of, rows, train.grad_accumulation, config.seed, state.step)
    first = state.first_loss if state.first_loss is not None else loss
    guard(loss, train.explode * max(first, math.log(config.model.vocab_size)))
    lr = learning_rate(state.step, train.steps, config.optimizer.lr, config.schedule)
    norm = update(state.model, state.optimizer, lr, train.clip)
    state.step, state.first_loss = state.step + 1, first
    return Step(state.step, loss, lr, norm, rows.n_targets, time.perf_counter() - begin)


def _look(run: Run, store: TokenStore, state: State, write_sample: WriteSample | None) -> Iterator[Evaluation | Sample]:
    """The dev loss, and a text from the model."""
    train, model = run.config.train, run.config.model
    if len(store.splits["dev"].ids) > 0:
        yield evaluate(state.model, store, "dev", model.context_length, state.step, train.eval_tokens, model.last_only)
    if write_sample is not None and train.sample_tokens and state.step:
        yield Sample(state.step, write_sample(state.model, run))


def _save(run: Run, state: State, log: FileIO, keep: int | None = None) -> Saved:
    """Save the state together with how long the log was, so that a resume can cut the log back to here.

    Only the newest `keep` checkpoints stay; None is as many as the config says.
    """
    with saving(run.folder / METRICS):
        os.fsync(log.fileno())
    facts = {
        "first_loss": state.first_loss,
        "metrics_size": log.tell(),
        "config_sha256": run.record["config_sha256"],
        "threads": run.config.train.threads,
        "precision": run.config.train.precision,
        "random": run.record["random"],
    }
    weights = state.model.state_dict()
    path = save_checkpoint(run.folder, state.step, weights, optimizer_tensors(state.optimizer, state.model), facts)
    prune(run.folder, keep or run.config.train.keep)
    return Saved(state.step, path.name)


def _restore(run: Run) -> tuple[State, int, str]:
    """The state to go on from, how much of the log belongs to it, and what is to be said about it."""
    checkpoint = newest_checkpoint(run.folder)
    # A run that has saved needs the one that it started from no more.
    model = create(run.config.model) if checkpoint else initial_model(run.config)
    model.to(machine.device()).train()
    optimizer = build_optimizer(model, run.config.optimizer)
    if checkpoint is None:
        return State(model, optimizer, 0, None), 0, ""
    load_weights(model, checkpoint.weights)
    restore_optimizer(optimizer, model, checkpoint.optimizer)
    for step, folder in checkpoints(run.folder):
        if step > checkpoint.step:
            with saving(folder):
                discard(folder)
    state = State(model, optimizer, checkpoint.step, checkpoint.facts["first_loss"])
    return state, checkpoint.facts["metrics_size"], "; ".join(checkpoint.warnings)


def _open_log(path: Path, size: int) -> FileIO:
    """The log cut back to the first `size` bytes, ready to be appended to."""
    with saving(path):
        path.touch()
        kept = path.read_bytes()[:size]
        for number, line in enumerate(kept.splitlines(keepends=True), start=1):
            with suppress(ValueError):
                from_line(line.decode())
                continue
            raise ArtifactError(
                f"{path} was altered in line {number}; the run's losses cannot be trusted any more. "
                "Its model can still be used; to train, begin a new run with --out"
            )
        if len(kept) < size:
            raise ArtifactError(
                f"{path} was truncated: {len(kept)} bytes, expected at least {size}. "
                "Its model can still be used; to train, begin a new run with --out"
            )
        os.truncate(path, size)
        # Unbuffered: no event waits in memory for a kill, and closing cannot fail on a full disk.
        return path.open("ab", buffering=0)


def loss_function(model: Model, config: RunConfig) -> LossSum:
    """(ids, targets) -> summed loss, in the run's precision and compiled when the run is."""
    kind, dtype = machine.device().type, machine.DTYPES[config.train.precision]

    def total(ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits_BTV = model(ids_BT)
        return loss_sum(logits_BTV, targets_BT)

    return torch.compile(total) if config.train.compile else total


def _started(run: Run, state: State, note: str) -> Started:
    model, train = run.config.model, run.config.train
    assert train.precision != "auto"
    return Started(
        step=state.step,
        steps=train.steps,
        n_parameters=sum(p.numel() for p in state.model.parameters()),
        flops_per_token=training_flops_per_token(model, model.targets_per_example),
        peak_flops=machine.peak_flops(train.precision, torch.get_num_threads()),
        note=note,
    )


def _advice(error: NumericsError, step: int, config: RunConfig) -> str:
    return (
        f"training diverged at step {step + 1}: {error}. The weights before that step are saved. Try a lower "
        f"learning rate (--set optimizer.lr={config.optimizer.lr / 3:.2g}), a longer warm-up (--set schedule.warmup="
        f"{max(100, 2 * config.schedule.warmup)}), or clipping (--set train.clip=1)"
    )

"""The training loop: one generator of events for every task."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor, nn

from windtunnel.errors import ArtifactError, NumericsError
from windtunnel.models import Model
from windtunnel.models.cost import training_flops_per_token
from windtunnel.text.batches import Batch
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TokenStore, prepare
from windtunnel.training import machine
from windtunnel.training.checkpoint import checkpoints, load_weights, newest_checkpoint, prune, save_checkpoint
from windtunnel.training.disk import discard, locked, open_regular, saving, write_all
from windtunnel.training.distributed import ALONE, Ranks
from windtunnel.training.draws import BatchOf, batches
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import (
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
from windtunnel.training.objective import loss_sum, training_loss_sum
from windtunnel.training.optimizer import build_optimizer, restore_optimizer
from windtunnel.training.run import (
    METRICS,
    Run,
    compiles,
    compiling_pays,
    create_run,
    in_blocks,
    in_one_graph,
    initial_model,
    open_run,
    resolve,
)
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate
from windtunnel.training.step import LossOf, compile_for_training, gradients, guard, one_graph, prepare_blocks, update

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
    ranks: Ranks | None = None,
    stepping: Stepping | None = None,
    note: str = "",
) -> Iterator[Event]:
    """Train the run in a folder from its newest verified checkpoint to its last step.

    Args:
        should_stop: asked before every step; when it says yes the state is saved and the run can be resumed.
        write_sample: writes the text of the Sample events; None writes none.
        ranks: the processes that train this run together, each of which calls this; rank 0 alone writes the folder.
            None is this process alone.
        stepping: what makes its steps; None is `alone`.
        note: what else is to be said when it starts.
    """
    ranks = ranks or Ranks()  # its own: it holds `should_stop`, and several runs may train in one process
    open_run(folder)  # before a lock file appears in a folder that is no run
    with ExitStack() as held:
        with ranks.together():
            if ranks.rank == 0:
                held.enter_context(locked(folder))
            run = open_run(folder)
            ranks.check(run.config)
            store = run.store()
        machine.keep_memory()
        torch.set_num_threads(ranks.threads(run.config.train.threads or machine.cores()))
        state, size, warnings = _restore(run, ranks)
        step = stepping(run.config, store, state) if stepping else alone(run.config, store, state, ranks)
        ranks.listen(should_stop)
        with ranks.together():
            log = held.enter_context(_open_log(run.folder / METRICS, size) if ranks.rank == 0 else _no_log())
        note = "; ".join(filter(None, (warnings, note, _uncompiled(run.config))))
        for event in _train(run, store, state, step, ranks, write_sample, note, log, new=size == 0):
            with saving(run.folder / METRICS):
                write_all(log.fileno(), to_line(event).encode())
            yield event
            if isinstance(event, Stopped) and event.reason == "diverged":
                raise NumericsError(event.message)


def _train(
    run: Run,
    store: TokenStore,
    state: State,
    step: Callable[[], Step],
    ranks: Ranks,
    write_sample: WriteSample | None,
    note: str,
    log: FileIO,
    new: bool,
) -> Iterator[Event]:
    train = run.config.train
    yield _started(run, state, ranks, note)
    if new:
        yield from _look(run, store, state, ranks, write_sample)
        if train.steps == 0:
            yield _save(run, state, ranks, log)
    while state.step < train.steps:
        if ranks.should_stop():
            yield _save(run, state, ranks, log)
            yield Stopped(state.step, "interrupted", f"resume with: windtunnel resume {run.folder}")
            return
        try:
            yield step()
        except NumericsError as error:
            # One more is kept: the loss of these weights may be past mending, that of those saved before is not.
            yield _save(run, state, ranks, log, train.keep + 1)
            yield Stopped(state.step, "diverged", _advice(error, state.step, run.config))
            return
        last = state.step == train.steps
        if state.step % train.eval_every == 0 or last:
            yield from _look(run, store, state, ranks, write_sample)
        if state.step % train.save_every == 0 or last:
            yield _save(run, state, ranks, log)
    yield Stopped(state.step, "finished")


def alone(config: RunConfig, store: TokenStore, state: State, ranks: Ranks = ALONE) -> Callable[[], Step]:
    """What makes the steps of a run that no other trains together with."""
    batch_of, loss = batches(config, store), loss_function(ranks.forward(state.model), config, ranks.size)
    return lambda: advance(config, state, batch_of, loss, ranks)


def advance(config: RunConfig, state: State, batch_of: BatchOf, loss_of: LossOf, ranks: Ranks = ALONE) -> Step:
    """One step: batch, gradient, guard, update."""
    train, begin = config.train, time.perf_counter()
    rows = batch_of(state.step).to(state.model.embedding.weight.device)
    loss = gradients(loss_of, rows, train.grad_accumulation, config.seed, state.step, ranks)
    first = state.first_loss if state.first_loss is not None else loss
    guard(loss, train.explode * max(first, math.log(config.model.vocab_size)))
    lr = learning_rate(state.step, train.steps, config.optimizer.lr, config.schedule)
    norm = update(state.model, state.optimizer, lr, train.clip, ranks)
    state.step, state.first_loss = state.step + 1, first
    return Step(state.step, loss, lr, norm, rows.n_targets, time.perf_counter() - begin)


def _look(
    run: Run, store: TokenStore, state: State, ranks: Ranks, write_sample: WriteSample | None
) -> Iterator[Evaluation | Sample]:
    """The dev loss, and a text from the model.

    Of the last weights the loss is computed in float32, as by `windtunnel evaluate`; on the way there in the run's own
    precision, which is faster.
    """
    train, model = run.config.train, run.config.model
    if len(store.splits["dev"].ids) > 0:
        precision = "fp32" if state.step == train.steps else train.precision
        yield evaluate(
            state.model, store, "dev", model.context_length, state.step, train.eval_tokens, model.last_only, ranks,
            precision,
        )  # fmt: skip
    if write_sample is not None and train.sample_tokens and state.step:
        yield Sample(state.step, write_sample(state.model, run))


def _save(run: Run, state: State, ranks: Ranks, log: FileIO, keep: int | None = None) -> Saved:
    """Save the state together with how long the log was, so that a resume can cut the log back to here.

    Only the newest `keep` checkpoints stay; None is as many as the config says.
    """
    weights, optimizer = ranks.gather(state.model, state.optimizer)
    facts = {
        "first_loss": state.first_loss,
        "metrics_size": log.tell(),
        "config_sha256": run.record["config_sha256"],
        "threads": run.config.train.threads,
        "precision": run.config.train.precision,
        "random": run.record["random"],
        "ranks": ranks.size,
        "parallel": ranks.mode,
    }
    with ranks.together():
        if ranks.rank == 0:
            with saving(run.folder / METRICS):
                os.fsync(log.fileno())
            save_checkpoint(run.folder, state.step, weights, optimizer, facts)
            prune(run.folder, keep or run.config.train.keep)
    return Saved(state.step, f"step-{state.step}")


def _restore(run: Run, ranks: Ranks) -> tuple[State, int, str]:
    """The state to go on from, how much of the log belongs to it, and what is to be said about it."""
    with ranks.together():
        checkpoint = newest_checkpoint(run.folder)
        # A run that has saved needs the one that it started from no more.
        model = run.config.model.create() if checkpoint else initial_model(run.config)
        if checkpoint:
            load_weights(model, checkpoint.weights)
    ranks.agree({f"the newest checkpoint in {run.folder}": checkpoint and checkpoint.step})
    prepare_blocks(model, in_blocks(run.config, ranks.size), run.config.train.recompute)
    ranks.place(model).train()
    optimizer = build_optimizer(model, run.config.optimizer)
    if checkpoint is None:
        return State(model, optimizer, 0, None), 0, ""
    restore_optimizer(optimizer, model, checkpoint.optimizer, ranks.shard)
    for step, folder in checkpoints(run.folder) if ranks.rank == 0 else ():
        if step > checkpoint.step:
            with saving(folder):
                discard(folder)
    state = State(model, optimizer, checkpoint.step, checkpoint.facts["first_loss"])
    return state, checkpoint.facts["metrics_size"], "; ".join(checkpoint.warnings)


def _open_log(path: Path, size: int) -> FileIO:
    """The log cut back to the first `size` bytes, ready to be appended to."""
    with saving(path), ExitStack() as unless_whole:
        # Unbuffered: no event waits in memory for a kill, and closing cannot fail on a full disk.
        log = FileIO(open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+b")
        unless_whole.callback(log.close)
        _check_log(path, os.pread(log.fileno(), size, 0), size)
        os.truncate(log.fileno(), size)
        log.seek(size)
        unless_whole.pop_all()
        return log


def _check_log(path: Path, kept: bytes, size: int) -> None:
    """Raises ArtifactError when what is kept of the log is not `size` bytes of whole events."""
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


def _no_log() -> FileIO:
    return Path(os.devnull).open("ab", buffering=0)


def loss_function(model: Callable[..., Tensor], config: RunConfig, n_ranks: int = 1) -> LossOf:
    """batch -> summed loss, in the run's precision."""
    whole = compiles(config) and not in_blocks(config, n_ranks)

    def total(batch: Batch) -> Tensor:
        with machine.autocast(config.train.precision):
            logits = model(**batch.inputs)
        return (loss_sum if whole else training_loss_sum)(logits, batch.targets)

    if not whole:
        return total
    if not in_one_graph(config, n_ranks):  # DDP and FSDP sum and gather in the backward pass of autograd
        return compile_for_training(total)
    assert isinstance(model, nn.Module)
    return one_graph(total, model)


def _uncompiled(config: RunConfig) -> str:
    """What to say where a run is slower for want of a compiler."""
    if machine.has_compiler() or not (config.train.compile or compiling_pays(config)):
        return ""
    return "not compiled, because no C++ compiler (c++, g++ or clang++) was found; with one a step is faster"


def _started(run: Run, state: State, ranks: Ranks, note: str) -> Started:
    model, train = run.config.model, run.config.train
    assert train.precision != "auto"
    return Started(
        step=state.step,
        steps=train.steps,
        n_parameters=sum(p.numel() for p in state.model.parameters()),
        flops_per_token=training_flops_per_token(model, model.targets_per_example),
        peak_flops=machine.peak_flops(train.precision, torch.get_num_threads()) * ranks.size,
        note="; ".join(said for said in (note, ranks.description) if said),
    )


def _advice(error: NumericsError, step: int, config: RunConfig) -> str:
    return (
        f"training diverged at step {step + 1}: {error}. The weights before that step are saved. Try a lower "
        f"learning rate (--set optimizer.lr={config.optimizer.lr / 3:.2g}), a longer warm-up (--set schedule.warmup="
        f"{max(100, 2 * config.schedule.warmup)}), or clipping (--set train.clip=1)"
    )

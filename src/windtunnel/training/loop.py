"""The training loop: one generator of events for every task."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch

from windtunnel.errors import ArtifactError, ConfigError, NumericsError
from windtunnel.files import discard, open_regular, write_all
from windtunnel.models import Classifier, Model
from windtunnel.models.clip import CLIP
from windtunnel.models.lora import adapt, trained_note
from windtunnel.tasks import Classification, Contrastive, Task
from windtunnel.text.store import TokenStore
from windtunnel.training import machine
from windtunnel.training.change import Change, Named, Setup, change_for, set_up, users_code
from windtunnel.training.checkpoint import checkpoints, load_weights, newest_checkpoint, prune, save_checkpoint
from windtunnel.training.compiling import compiling_note, prepare_blocks
from windtunnel.training.data import open_store, open_task, train_texts
from windtunnel.training.disk import locked, saving
from windtunnel.training.distributed import Ranks
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
from windtunnel.training.frozen import freeze, is_solved, solve_head, solve_towers
from windtunnel.training.optimizer import build_optimizer, rates_note, restore_optimizer
from windtunnel.training.run import (
    METRICS,
    Run,
    best_step,
    create_run,
    initial_model,
    open_run,
)
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate
from windtunnel.training.step_cost import changed_cost, step_cost
from windtunnel.training.trainer import State, Trainer
from windtunnel.training.trial import resolve_changed

WriteSample = Callable[[Model, Run], str]

Stepping = Callable[[RunConfig, Task, State], Callable[[], Step]]
"""(config, task, state) -> what takes the state one step further; it may raise NumericsError instead."""


USUAL_UPDATE = 0.01
"""How long an update is beside the weights where training begins quickly and does not diverge."""


def fit(config: RunConfig, folder: Path, change: Named | None = None) -> Iterator[Event]:
    """Train a config in a folder; continues where the folder's run stands if it is the same run.

    Args:
        change: a function of the user's own that alters what is trained with, or `FILE:FUNCTION`; see
            `windtunnel.training.change`.

    Raises:
        ConfigError: when the folder holds a run with another config, or the change fails.
        NumericsError: when training diverges; the weights before that step are saved.
        SaveError: when the disk refuses; the checkpoint before is intact.
    """
    store = open_store(config)
    resolved, trial = resolve_changed(config, store, change)
    return resume(create_run(folder, resolved, store, trial).folder, change=trial.change if trial else None)


def resume(
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    write_sample: WriteSample | None = None,
    ranks: Ranks | None = None,
    stepping: Stepping | None = None,
    note: str = "",
    change: Named | None = None,
) -> Iterator[Event]:
    """Train the run in a folder from its newest verified checkpoint to its last step.

    Args:
        should_stop: asked before every step; when it says yes the state is saved and the run can be resumed.
        write_sample: writes the text of the Sample events; None writes none.
        ranks: the processes that train this run together, each of which calls this; rank 0 alone writes the folder.
            None is this process alone.
        stepping: what makes its steps; None is a `Trainer`.
        note: what else is to be said when it starts.
        change: what the run was begun with; it needs it again.
    """
    ranks = ranks or Ranks()  # its own: it holds `should_stop`, and several runs may train in one process
    open_run(folder)  # before a lock file appears in a folder that is no run
    with ExitStack() as held:
        with ranks.barrier():
            if ranks.rank == 0:
                held.enter_context(locked(folder))
            run = open_run(folder)
            ranks.check(run.config)
            store = run.store()
            task = open_task(run.config, store)
            own = change_for(run.config, folder, change)
            if own and ranks.mode is not None:
                raise ConfigError(f"{own.name} changes a run, and such a run trains in one process; omit --parallel")
        machine.keep_memory()
        torch.set_num_threads(ranks.threads(run.config.train.threads or machine.cores()))
        state, size, warnings, setup = _restore(run, task, ranks, own)
        batch_of, loss = (setup.batch_of, setup.loss) if setup else (None, None)
        if stepping:
            step = stepping(run.config, task, state)
        else:
            step = Trainer(run.config, task, state, ranks, batch_of, loss).step
        ranks.listen(should_stop)
        with ranks.barrier():
            log = held.enter_context(_open_log(run.folder / METRICS, size) if ranks.rank == 0 else _no_log())
            changed = f"changed by {own.name}" if own else trained_note(state.model, run.config.lora)
            rates = rates_note(state.model, state.optimizer, run.config.optimizer.lr)
            note = "; ".join(filter(None, (warnings, note, changed, rates, compiling_note(run.config))))
        held.enter_context(users_code(own))
        session = _Session(run, store, task, state, ranks, log, write_sample)
        for event in session.events(step, note, new=size == 0):
            with saving(run.folder / METRICS):
                write_all(log.fileno(), to_line(event).encode())
            yield event
            if isinstance(event, Stopped) and event.reason == "diverged":
                raise NumericsError(event.message)


@dataclass(frozen=True)
class _Session:
    """A run while it trains. `log` is metrics.jsonl; the other ranks than 0 have none, and write nothing."""

    run: Run
    store: TokenStore
    task: Task
    state: State
    ranks: Ranks
    log: FileIO
    write_sample: WriteSample | None

    def events(self, step: Callable[[], Step], note: str, new: bool) -> Iterator[Event]:
        """Take the steps that are left, and say what happens."""
        run, state, train = self.run, self.state, self.run.config.train
        tokens, flops = changed_cost(step_cost(run.config, self.store, self.task), run.record.get("change"))
        a_token = flops / tokens if math.isfinite(flops / tokens) else 0.0
        yield _started(run, state, a_token, self.ranks, note)
        if new:
            yield from self._evaluate_and_sample()
            if train.steps == 0 or train.choose == "best":
                yield self._save()
        while state.step < train.steps:
            if self.ranks.should_stop():
                yield self._save()
                yield Stopped(state.step, "interrupted", f"resume with: windtunnel resume {run.folder}")
                return
            try:
                yield step()
            except NumericsError as error:
                # Keep one extra checkpoint: these weights may already be ruined, the ones before them are not.
                yield self._save(train.keep + 1)
                yield Stopped(state.step, "diverged", _advice(error, state.step, run.config))
                return
            last = state.step == train.steps
            evaluated = state.step % train.eval_every == 0 or last
            if evaluated:
                yield from self._evaluate_and_sample()
            if state.step % train.save_every == 0 or last or (evaluated and train.choose == "best"):
                yield self._save()
        yield Stopped(state.step, "finished")

    def _evaluate_and_sample(self) -> Iterator[Evaluation | Sample]:
        """The metrics on the dev split, and a text from the model.

        Of the last weights they are computed in float32, as by `windtunnel evaluate`; on the way there in the run's
        own precision, which is faster.
        """
        state, train = self.state, self.run.config.train
        if self.task.totals("dev")["targets"] > 0:
            precision = "fp32" if state.step == train.steps else train.precision
            yield evaluate(state.model, self.task, "dev", state.step, train.eval_tokens, self.ranks, precision)
        if self.write_sample is not None and train.sample_tokens and state.step:
            yield Sample(state.step, self.write_sample(state.model, self.run))

    def _save(self, keep: int | None = None) -> Saved:
        """Save the state together with how long the log was, so that a resume can cut the log back to here.

        Only the newest `keep` checkpoints stay; None is as many as the config says.
        """
        run, state, ranks, train = self.run, self.state, self.ranks, self.run.config.train
        weights, optimizer = ranks.gather(state.model, state.optimizer)
        facts = {
            "first_loss": state.first_loss,
            "metrics_size": self.log.tell(),
            "config_sha256": run.record["config_sha256"],
            "threads": train.threads,
            "precision": train.precision,
            "random": run.record["random"],
            "ranks": ranks.size,
            "parallel": ranks.mode,
        }
        with ranks.barrier():
            if ranks.rank == 0:
                with saving(run.folder / METRICS):
                    os.fsync(self.log.fileno())
                save_checkpoint(run.folder, state.step, weights, optimizer, facts)
                prune(run.folder, keep or train.keep, best_step(run))
        return Saved(state.step, f"step-{state.step}")


def _restore(run: Run, task: Task, ranks: Ranks, change: Change | None) -> tuple[State, int, str, Setup | None]:
    """The state to go on from, how much of the log belongs to it, what is to be said about it, and what the change made
    of the run."""
    with ranks.barrier():
        checkpoint = newest_checkpoint(run.folder)
        # A run that has saved needs the one that it started from no more.
        if checkpoint and not change:
            model = adapt(run.config.model.create(), run.config.lora, run.config.seed)
        else:
            model = initial_model(run.config)
        solved = ""
        if checkpoint is None and run.config.train.freeze == "all":
            assert isinstance(model, Classifier)
            assert isinstance(task, Classification)
            solved = solve_head(model, task, train_texts(run.config, task))
        elif checkpoint is None and is_solved(model) and run.config.start is None:
            assert isinstance(model, CLIP)
            assert isinstance(task, Contrastive)
            solved = solve_towers(model, task, train_texts(run.config, task))
        freeze(model, run.config.train.freeze)
        setup = set_up(change, run.config, task, model) if change else None
        model = setup.model if setup else model
        if checkpoint:
            load_weights(model, checkpoint.weights)
    ranks.agree({f"the newest checkpoint in {run.folder}": checkpoint and checkpoint.step})
    prepare_blocks(model, run.config, ranks.size)
    ranks.place(model).train()
    optimizer = setup.optimizer if setup else build_optimizer(model, run.config.optimizer)
    if checkpoint is None:
        return State(model, optimizer, 0, None), 0, solved, setup
    restore_optimizer(optimizer, model, checkpoint.optimizer, ranks.shard, known=setup is None)
    for step, folder in checkpoints(run.folder) if ranks.rank == 0 else ():
        if step > checkpoint.step:
            with saving(folder):
                discard(folder)
    state = State(model, optimizer, checkpoint.step, checkpoint.facts["first_loss"])
    return state, checkpoint.facts["metrics_size"], "; ".join(checkpoint.warnings), setup


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


def _started(run: Run, state: State, flops_per_token: float, ranks: Ranks, note: str) -> Started:
    train = run.config.train
    assert train.precision != "auto"
    return Started(
        step=state.step,
        steps=train.steps,
        n_parameters=sum(p.numel() for p in state.model.parameters()),
        flops_per_token=flops_per_token,
        peak_flops=machine.peak_flops(train.precision, torch.get_num_threads()) * ranks.size,
        note="; ".join(said for said in (note, ranks.description) if said),
        noun=run.config.task.noun,
    )


def _advice(error: NumericsError, step: int, config: RunConfig) -> str:
    said = f"training diverged at step {step + 1}: {error}. The weights before that step are saved."
    return f"{said} {_cure(error.update_ratio, step, config)}"


def _cure(update_ratio: float | None, step: int, config: RunConfig) -> str:
    """What to try, by what happened: an update too long, a first step that went wrong, or later ones."""
    peak, train = config.optimizer.lr, config.train
    if update_ratio is not None:
        fitting = learning_rate(step, train.steps, peak, config.schedule) / update_ratio * USUAL_UPDATE
        return (
            f"The learning rate is far too high: updates a hundredth as long as the weights need "
            f"--set optimizer.lr={fitting:.1g}"
        )
    if step == 0:
        precise = "" if train.precision == "fp32" else ", or --set train.precision=fp32"
        return (
            "Nothing had been learned yet, so the learning rate is not the cause: look at the weights that it begins "
            f"with and at the texts{precise}"
        )
    cures = [f"a lower learning rate (--set optimizer.lr={peak / 3:.2g})"]
    if (longer := max(100, 2 * config.schedule.warmup)) < train.steps:
        cures.append(f"a longer warm-up (--set schedule.warmup={longer})")
    if train.clip is None or train.clip > 1:
        cures.append("clipping (--set train.clip=1)")
    return f"Try {', or '.join(cures)}"

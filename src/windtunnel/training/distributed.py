"""The processes that train one run together: the only file that knows of ranks and torch.distributed.

The loop is given one object and asks it. `Ranks` is a process alone, and its answers cost nothing; `Replicated` keeps
the whole model on every rank (DDP, Li et al. 2020, arXiv 2006.15704), `Sharded` a part of every weight, gradient and
optimizer state (FSDP2, Zhao et al. 2023, arXiv 2304.11277). Every rank computes the whole batch's ids, since they are a
function of (seed, step), and takes its share of the rows; gradients are summed, not averaged, because the loss is
already divided by the targets of the whole batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import windtunnel
from windtunnel.errors import ConfigError, LostRank, WindtunnelError
from windtunnel.nn.blocks import blocks_of
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.training import machine
from windtunnel.training.optimizer import optimizer_tensors
from windtunnel.training.run_config import RunConfig

TIMEOUT, PATIENCE = timedelta(minutes=5), timedelta(hours=1)
"""How long a rank waits for the others' gradients, and for what only rank 0 does, such as writing a checkpoint. A rank
that dies is noticed at once, by its connections; these are for one that hangs."""
LOST = "another rank of this run is gone, or does not answer; what was saved is intact, resume with the same command"
GRACE = 20.0
"""Seconds after SIGTERM in which a rank must come back from waiting for others; torchrun kills it after 30."""


class Ranks:
    """One process alone; and what the loop may ask of several."""

    mode: str | None = None
    rank, size = 0, 1
    should_stop: Callable[[], bool] = staticmethod(lambda: False)

    def listen(self, should_stop: Callable[[], bool]) -> None:
        """From now on `self.should_stop()` says whether this was asked of any rank, and the same on all of them."""
        self.should_stop = should_stop

    def check(self, config: RunConfig) -> None:
        """Raises ConfigError for a run that this number of ranks cannot share."""
        train = config.train
        if self.size > 1 and config.model.needs_whole_batch:
            raise ConfigError(
                "batch norm takes its statistics over all rows of a batch, and each rank has some of them; train in "
                "one process, or without it: --set model.batch_norm=false"
            )
        if self.size > 1 and config.task.coupled:
            raise ConfigError(
                f"a {config.task.kind} loss compares all rows of a batch with each other, and {self.size} ranks would "
                "each have some of them; train in one process, without --parallel"
            )
        if self.size > max(1, train.batch_size // train.grad_accumulation):
            raise ConfigError(
                f"{self.size} ranks cannot share micro-batches of {train.batch_size // train.grad_accumulation} rows "
                f"(train.batch_size {train.batch_size} / train.grad_accumulation {train.grad_accumulation}); start at "
                "most as many ranks as a micro-batch has rows"
            )

    def threads(self, of_run: int) -> int:
        """How many of the run's CPU threads this rank takes."""
        return of_run

    def place(self, model: nn.Module) -> nn.Module:
        """Put a model, which is the same on all ranks, where it is trained; its parameters may be shards after that."""
        return model.to(machine.device())

    def forward(self, model: nn.Module) -> Callable[..., Tensor]:
        """What to call in place of a placed model where gradients are wanted."""
        return model

    def share(self, batch: Batch) -> Batch:
        """This rank's rows of a batch."""
        return batch if self.size == 1 else batch.split(self.size)[self.rank]

    @property
    def labels(self) -> tuple[int, ...]:
        """What is added to the labels of a random stream that must differ between ranks."""
        return () if self.size == 1 else (self.rank,)

    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        """Around the forward and backward pass of a micro-batch: gradients are summed over ranks only in the last."""
        return nullcontext()

    def loss(self, own: float) -> float:
        """The sum of the ranks' losses. Asks also whether any rank is to stop."""
        return own

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sums over all ranks, in float64."""
        return values

    def deal(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """This rank's batches of a sweep; as many for each rank, so some may have nothing to predict."""
        batches = iter(batches)
        while turn := list(islice(batches, self.size)):
            some = turn[min(self.rank, len(turn) - 1)]
            yield some if self.rank < len(turn) else some._replace(targets=torch.full_like(some.targets, IGNORED))

    def full(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which each rank may hold a shard."""
        return tensor

    def shard(self, whole: Tensor, parameter: Tensor) -> Tensor:
        """A copy of this rank's part of a tensor that is to lie as a parameter does."""
        return whole.to(parameter.device, copy=True)

    def gather(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Whole weights and optimizer state by name, on rank 0 at least."""
        return model.state_dict(), optimizer_tensors(optimizer, model)

    def barrier(self) -> AbstractContextManager[object]:
        """Around what each rank does for itself: all wait for all, and an error of one is raised on every rank."""
        return nullcontext()

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Raises ConfigError on every rank when these facts are not the same on all."""

    def from_first(self, text: str) -> str:
        """The text that rank 0 gives."""
        return text

    @property
    def description(self) -> str:
        """For people; nothing of a process alone."""
        return f"{self.mode} on {self.size} ranks" if self.mode else ""


ALONE = Ranks()


class _Several(Ranks):
    """What both ways to share a run have in common: small messages over a gloo group of their own."""

    def __init__(self, control: dist.ProcessGroup) -> None:
        self.rank, self.size, self.control = dist.get_rank(), dist.get_world_size(), control
        self.asked_here = self.should_stop

    def listen(self, should_stop: Callable[[], bool]) -> None:
        self.asked_here = should_stop
        self.loss(0.0)
        _end_in_time(should_stop)

    def threads(self, of_run: int) -> int:
        return max(1, of_run // int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def loss(self, own: float) -> float:
        total, asked = self.sum(own, self.asked_here())
        self.should_stop = lambda: asked > 0
        return total

    def sum(self, *values: float) -> tuple[float, ...]:
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        return tuple(sums.tolist())

    @contextmanager
    def barrier(self) -> Iterator[None]:
        error: WindtunnelError | None = None
        try:
            yield
        except WindtunnelError as raised:
            error = raised
        said = self._say(f"{error.exit_code} {error}" if error else "")
        if error:
            raise error
        for rank, code, message in ((rank, *each.partition(" ")[::2]) for rank, each in enumerate(said) if each):
            error = WindtunnelError(f"rank {rank}: {message}")
            error.exit_code = int(code)
            raise error

    def agree(self, facts: Mapping[str, Any]) -> None:
        first, *others = (json.loads(each) for each in self._say(json.dumps(facts)))
        for rank, other in enumerate(others, start=1):
            names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
            if names:
                listed = ", ".join(f"{name} is {other.get(name)!r}, not {first.get(name)!r}" for name in names[:3])
                raise ConfigError(
                    f"rank {rank} does not train what rank 0 trains: {listed}{', ...' * (len(names) > 3)}; "
                    "give all ranks the same command, files and windtunnel"
                )

    def from_first(self, text: str) -> str:
        return self._say(text)[0]

    def _say(self, text: str) -> list[str]:
        """What all ranks say."""
        own = torch.frombuffer(bytearray(text.encode() + b"\n"), dtype=torch.uint8)
        length = torch.tensor(len(own))
        dist.all_reduce(length, dist.ReduceOp.MAX, group=self.control)
        own = torch.cat([own, own.new_zeros(int(length) - len(own))])
        said = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(said, own, group=self.control)
        return [bytes(each.tolist()).rstrip(b"\0").decode()[:-1] for each in said]


class Replicated(_Several):
    """DDP: every rank holds the whole model; while the last micro-batch goes backward its gradients are summed."""

    mode = "ddp"

    def place(self, model: nn.Module) -> nn.Module:
        super().place(model)
        # find_unused_parameters keeps the buckets as they are made: rebuilt after the first step, as they are without
        # it, they would sum in another order, and a resumed run would not equal the uninterrupted one bit for bit.
        self.ddp = DistributedDataParallel(model, gradient_as_bucket_view=True, find_unused_parameters=True)
        self.ddp.register_comm_hook(None, lambda _, bucket: _summed(bucket.buffer()))
        return model

    def forward(self, model: nn.Module) -> Callable[..., Tensor]:
        assert self.ddp.module is model
        return self.ddp

    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self.ddp.no_sync()


class Sharded(_Several):
    """FSDP2: a rank holds 1/size of each parameter, gradient and optimizer state; a block is whole while it runs."""

    mode = "fsdp"

    def check(self, config: RunConfig) -> None:
        super().check(config)
        if config.optimizer.name == "muon":
            raise ConfigError(
                "muon needs whole matrices, and --parallel fsdp leaves each rank a part of them; use --parallel ddp, "
                "or a recipe with AdamW, such as --recipe small"
            )

    def place(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(machine.device().type, (self.size,))
        for part in (*blocks_of(model), model):  # moves each to the device only as it is sharded
            sharded = fully_shard(part, mesh=mesh)
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        self.root = sharded
        return model

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.root.set_requires_gradient_sync(last)
        yield

    def full(self, tensor: Tensor) -> Tensor:
        return getattr(tensor, "full_tensor", lambda: tensor)()

    def shard(self, whole: Tensor, parameter: Any) -> Tensor:
        from torch.distributed.tensor import distribute_tensor

        if whole.dim() == 0:
            return super().shard(whole, parameter)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None).clone()

    def gather(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        self.root.reshard()  # an evaluation leaves what belongs to no block whole
        weights, state = super().gather(model, optimizer)
        return self._gather(weights), self._gather(state)

    def _gather(self, shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One tensor after another, so that only rank 0 ever holds more than one; by name, as a file's order varies."""
        kept = {}
        for name in sorted(shards):
            whole = self.full(shards[name])
            if self.rank == 0:
                kept[name] = whole.cpu()
        return kept


MODES: dict[str, type[_Several]] = {"ddp": Replicated, "fsdp": Sharded}


@contextmanager
def open_ranks(mode: str) -> Iterator[Ranks]:
    """The processes that torchrun started, this one among them.

    Raises:
        ConfigError: for an unknown mode, and where there is no torchrun.
        LostRank: when another rank is gone; inside, errors of the collectives are turned into it.
    """
    if mode not in MODES:
        raise ConfigError(f"there is no --parallel {mode}; known are {' and '.join(MODES)}")
    if not is_rank():
        raise ConfigError(
            f"--parallel {mode} shares a run among the processes that torchrun starts; begin with: "
            f"torchrun --nproc-per-node 2 -m windtunnel train CORPUS --parallel {mode}"
        )
    if machine.device().type != "cpu":
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    device = machine.device().type
    backends = {"cpu": "gloo", device: dist.get_default_backend_for_device(device)}
    try:
        dist.init_process_group(",".join(f"{on}:{name}" for on, name in backends.items()), timeout=TIMEOUT)
        try:
            yield MODES[mode](dist.new_group(backend="gloo", timeout=PATIENCE))
        except WindtunnelError:  # of all ranks: a thread of gloo that lasts into Python's end aborts the process
            dist.destroy_process_group()
            raise
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):
            raise
        raise LostRank(LOST) from error


def is_rank() -> bool:
    """Whether torchrun, or what stands for it, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def code_sha256() -> str:
    """SHA-256 of the package's own source."""
    root = Path(windtunnel.__file__).parent
    files = ((str(path.relative_to(root)), path.read_bytes()) for path in sorted(root.rglob("*.py")))
    return hashlib.sha256(b"".join(name.encode() + hashlib.sha256(data).digest() for name, data in files)).hexdigest()


def _summed(gradients: Tensor) -> torch.futures.Future[Tensor]:
    """Their sum over all ranks, when it is there: DDP's communication without its averaging."""
    work = dist.all_reduce(gradients, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def _end_in_time(asked: Callable[[], bool]) -> None:
    """From now on end this process when it is told to stop and cannot hear it: it waits for a rank that is gone.

    A signal is written to the pipe when it arrives; Python hears of it only when the main thread leaves its wait.
    """
    arrives, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(arrives, 1)[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        time.sleep(GRACE)
        if not asked():
            print(f"windtunnel: {LOST}", file=sys.stderr, flush=True)
            os._exit(LostRank.exit_code)

    threading.Thread(target=watch, daemon=True).start()

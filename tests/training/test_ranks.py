"""N processes train what one does: DDP and FSDP with real gloo processes against one process."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import safetensors.torch
from rank_processes import on_ranks
from tiny_runs import config_of, final_hashes, losses, names_file, store_of
from torch.utils._python_dispatch import TorchDispatchMode

from windtunnel.config import override
from windtunnel.text.batches import batch
from windtunnel.training import distributed, machine
from windtunnel.training.compiling import loss_function
from windtunnel.training.data import open_task
from windtunnel.training.events import Evaluation, Started, Step
from windtunnel.training.loop import _restore, resume
from windtunnel.training.recipes import recipe
from windtunnel.training.run import create_run, load, open_run, resolve
from windtunnel.training.step import gradients, update

STEPS, STOPS = 20, {4: 7, 2: 13}
MODES, SIZES = ("ddp", "fsdp"), (4, 2)
EACH = pytest.mark.parametrize(("mode", "size"), list(product(MODES, SIZES)))


class Reductions(TorchDispatchMode):
    """Counts the sums over ranks, of gradients and of anything else."""

    n = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        self.n += any(name in str(operation) for name in ("allreduce", "reduce_scatter"))
        return operation(*arguments, **(named or {}))


def work_on_ranks(work: Path, size: int) -> dict[str, object]:
    """All that ranks do here, once for each number of them; gives what only a rank can see."""
    with distributed.open_ranks("ddp") as ddp:
        seen = {}
        for ranks in (ddp, distributed.Sharded(ddp.control)):
            at = work / f"{ranks.mode}-{size}"
            train(at / "plain", ranks)
            train(at / "whole", ranks)
            train(at / "parts", ranks, stop_on_rank_1_at=3)
            train(at / "parts", ranks)
            train(work / f"{ranks.mode}-moving", ranks, stop_on_rank_1_at=STOPS[size])
            seen[ranks.mode] = held(at / "plain", ranks)
        return seen


def train(folder: Path, ranks: distributed.Ranks, stop_on_rank_1_at: int | None = None) -> None:
    done = [0]

    def asked() -> bool:
        return ranks.rank == 1 and done[0] + 1 == stop_on_rank_1_at  # the step that is under way

    for event in resume(folder, asked, ranks=ranks):
        done[0] = event.step


def held(folder: Path, ranks: distributed.Ranks) -> dict[str, object]:
    """How many numbers a rank holds after a step, and how often gradients are summed in it."""
    run = open_run(folder)
    task = open_task(run.config, run.store())
    state = _restore(run, task, ranks, None)[0]
    loss = loss_function(ranks.forward(state.model), task, run.config)
    rows = batch(task.examples("train"), 20, 0, 0)
    counts = []
    for parts in (1, 4):
        with Reductions() as reductions:
            gradients(loss, rows, parts, 0, 0, ranks)
        counts.append(reductions.n)
    update(state.model, state.optimizer, 1e-3, 1.0, ranks)
    gradients(loss, rows, 1, 0, 0, ranks)

    def numbers(tensors):
        return sum(getattr(t, "to_local", lambda t=t: t)().numel() for t in tensors)

    return {
        "weights": numbers(state.model.parameters()),
        "gradients": numbers(p.grad for p in state.model.parameters()),
        "averages": numbers(s["exp_avg"] for s in state.optimizer.state.values()),
        "reductions": counts,
        "targets": ranks.share(rows).n_targets,
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Every run of these tests, trained.

    No biases: the gradient of a key's bias is zero but for rounding, and Adam makes whole steps of such noise. Only
    `whole` and `parts` have dropout, whose draws depend on the number of ranks.
    """
    work = tmp_path_factory.mktemp("ranks")
    changes = [f"train.steps={STEPS}", "train.grad_accumulation=2", "model.bias=false", "train.eval_tokens=400"]
    dropout = config_of(names_file(work), *changes)
    plain = override(dropout, ["model.dropout=0"])
    store = store_of(plain)

    def make(name, config):
        return create_run(work / name, resolve(config, store), store).folder

    list(resume(make("alone", plain)))
    for mode in MODES:
        make(f"{mode}-moving", plain)
        for size in SIZES:
            make(f"{mode}-{size}/plain", plain)
            make(f"{mode}-{size}/whole", override(dropout, ["train.steps=6"]))
            make(f"{mode}-{size}/parts", override(dropout, ["train.steps=6"]))
    seen = {size: on_ranks(size, work_on_ranks, work, size) for size in SIZES}
    for mode in MODES:
        list(resume(work / f"{mode}-moving"))
    (work / "seen.json").write_text(json.dumps(seen))
    return work


def tensors(folder: Path) -> dict[str, object]:
    newest = max(folder.glob("step-*"), key=lambda path: int(path.name[5:]))
    return {
        f"{file.name}/{name}": tensor
        for file in sorted(newest.glob("*.safetensors"))
        for name, tensor in safetensors.torch.load_file(file).items()
    }


def assert_same_run(one: Path, other: Path) -> None:
    """Losses, dev losses, weights and optimizer state within 1e-6, and the same tokens in each step."""
    assert losses(one) == pytest.approx(losses(other), rel=0, abs=1e-6)
    ours, theirs = ([e for e in open_run(folder).events() if isinstance(e, Step)] for folder in (one, other))
    assert [step.n_tokens for step in ours] == [step.n_tokens for step in theirs]
    assert [s.grad_norm for s in ours] == pytest.approx([s.grad_norm for s in theirs], rel=1e-5)
    ours, theirs = ([e for e in open_run(folder).events() if isinstance(e, Evaluation)] for folder in (one, other))
    assert [e.n_tokens for e in ours] == [e.n_tokens for e in theirs]
    assert [e.loss for e in ours] == pytest.approx([e.loss for e in theirs], rel=0, abs=1e-6)
    assert tensors(one).keys() == tensors(other).keys()
    for name, tensor in tensors(one).items():
        assert (tensor - tensors(other)[name]).abs().max() <= 1e-6, name


@EACH
def test_losses_and_weights_are_those_of_one_process(work, mode, size):
    assert_same_run(work / f"{mode}-{size}" / "plain", work / "alone")


@EACH
def test_the_checkpoint_is_the_same_folder(work, mode, size):
    ours, alone = work / f"{mode}-{size}" / "plain" / f"step-{STEPS}", work / "alone" / f"step-{STEPS}"
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in alone.iterdir())
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (ours, alone)]
    assert [(m["ranks"], m["parallel"]) for m in manifests] == [(size, mode), (1, None)]
    assert manifests[0].keys() == manifests[1].keys()
    assert manifests[0]["config_sha256"] == manifests[1]["config_sha256"]
    assert load(ours.parent).warnings == ()
    started = next(e for e in open_run(ours.parent).events() if isinstance(e, Started))
    assert started.note == f"{mode} on {size} ranks"


@EACH
def test_resumed_equals_uninterrupted_bit_for_bit(work, mode, size):
    whole, parts = (work / f"{mode}-{size}" / name for name in ("whole", "parts"))
    assert len(losses(whole)) == 6
    assert [e.step for e in open_run(parts).events() if isinstance(e, Started)] == [0, 3]
    assert losses(parts) == losses(whole)
    assert final_hashes(parts) == final_hashes(whole)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_moves_from_four_ranks_to_two_and_to_one_process(work, mode):
    moving = work / f"{mode}-moving"
    assert [(e.step, e.note) for e in open_run(moving).events() if isinstance(e, Started)] == [
        (0, f"{mode} on 4 ranks"),
        (STOPS[4], f"{mode} on 2 ranks"),
        (STOPS[2], ""),
    ]
    assert_same_run(moving, work / "alone")


@EACH
def test_what_a_rank_holds(work, mode, size):
    seen = [rank[mode] for rank in json.loads((work / "seen.json").read_text())[str(size)]]
    n = sum(t.numel() for name, t in tensors(work / "alone").items() if name.startswith("model"))
    assert len({rank["targets"] for rank in seen}) > 1  # the ranks' names are not equally long
    for kind in ("weights", "gradients", "averages"):
        each = [rank[kind] for rank in seen]
        assert (sum(each), max(each)) == ((n, pytest.approx(n / size, rel=0.15)) if mode == "fsdp" else (n * size, n))


def compiled_mlps(work: Path) -> None:
    with distributed.open_ranks("ddp") as ddp:
        for ranks in (ddp, distributed.Sharded(ddp.control)):
            list(resume(work / str(ranks.mode), ranks=ranks))


@pytest.mark.slow
@pytest.mark.skipif(not machine.has_compiler(), reason="needs a C++ compiler")
def test_a_compiled_mlp_trains_on_two_ranks_as_in_one_process(tmp_path):
    """Its loss alone is compiled then: with the gradient in the same graph nothing would be summed or gathered."""
    text = recipe("mlp", str(names_file(tmp_path)))
    changes = ["model.batch_norm=false", "train.compile=true", "train.steps=3", "train.precision=fp32"]
    config = override(text, [*changes, "train.eval_tokens=400"])
    store = store_of(config)
    for name in ("alone", *MODES):
        create_run(tmp_path / name, resolve(config, store), store)
    list(resume(tmp_path / "alone"))
    on_ranks(2, compiled_mlps, tmp_path)
    for mode in MODES:
        assert_same_run(tmp_path / mode, tmp_path / "alone")


@EACH
def test_gradients_are_summed_once_a_step(work, mode, size):
    for rank in json.loads((work / "seen.json").read_text())[str(size)]:
        once, accumulated = rank[mode]["reductions"]
        assert accumulated == once > 1  # one of the loss

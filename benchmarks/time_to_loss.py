"""Claim: `quick` reaches nanoGPT's loss on tinyshakespeare, 1.88 on the whole dev split, in 0.22 of nanoGPT's time.

    python -m benchmarks.time_to_loss PATH/TO/tinyshakespeare.txt [--nanogpt PATH/TO/model.py] [--threads N] [--seeds N]

Both have at most 0.8M parameters, context 64 and nanoGPT's split (90 % train, 10 % dev). Counted are training steps;
evaluations and, with --compile, the first step, which compiles, are given beside them. nanoGPT's recipe for a CPU is
2,000 steps of 12 windows with 4 layers x 128: our `small` with learned positions, and, where its own model.py is given,
that, in float32 as the recipe has it and in bfloat16. Their steps and those of `quick` take turns in one process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.config import override
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TokenStore, prepare
from windtunnel.training.data import batches, open_task
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.loop import fit
from windtunnel.training.recipes import quick, small
from windtunnel.training.run import resolve
from windtunnel.training.run_config import RunConfig
from windtunnel.training.trainer import Trainer

CLAIM = "quick reaches dev loss 1.88 in at most 0.22 of the time of nanoGPT's 2,000 steps"
LOSS, STEPS, SHARE = 1.88, 2000, 0.22
SPLIT = ["text.dev_fraction=0.1", "text.test_fraction=0"]
IN_ONE_TURN = 5
OURS, SMALL = "quick", "windtunnel small, learned positions"


def time_to_loss(config: RunConfig) -> dict[str, Any]:
    """Train one seed in an empty folder; its seconds of steps up to the first evaluation at `LOSS` or below."""
    steps: list[float] = []
    curve: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        for event in fit(config, Path(folder) / "run"):
            if isinstance(event, Step):
                steps.append(event.seconds)
            elif isinstance(event, Evaluation):
                curve.append((event.step, event.loss, time.perf_counter() - before))
            before = time.perf_counter()
    first = steps[0] if config.train.compile is True else 0.0
    reached = next((step for step, loss, _ in curve if loss <= LOSS), None)
    return {
        "seed": config.seed,
        "steps_to_loss": reached,
        "seconds_to_loss": None if reached is None else sum(steps[:reached]) - first,
        "last_loss": curve[-1][1],
        "seconds_of_all_steps": sum(steps) - first,
        "seconds_of_evaluations": sum(seconds for _, _, seconds in curve),
        "seconds_of_first_step": steps[0],
        "curve": [(step, loss) for step, loss, _ in curve],
    }


def stepping(config: RunConfig, store: TokenStore) -> Callable[[], object]:
    """Some real steps of a run, the next ones at each call."""
    trainer = Trainer.begin(config, open_task(config, store), config.model.create())
    return lambda: [trainer.step() for _ in range(IN_ONE_TURN)]


def nanogpt_stepping(given: ModuleType, config: RunConfig, store: TokenStore, bf16: bool) -> Callable[[], object]:
    """The same for nanoGPT's own model and optimizer, with its train.py's step and its recipe's settings for a CPU."""
    shape = config.model
    sizes = {"n_layer": shape.n_layers, "n_head": shape.n_heads, "n_embd": shape.d_model}
    sizes |= {"block_size": shape.context_length, "vocab_size": shape.vocab_size}
    with redirect_stdout(sys.stderr):  # it says what it makes
        model = given.GPT(given.GPTConfig(bias=False, dropout=0.0, **sizes))
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    draw, done = batches(config, open_task(config, store)), [0]

    def step() -> None:
        rows = draw(done[0])
        done[0] += 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            _, loss = model(rows.ids, rows.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return lambda: [step() for _ in range(IN_ONE_TURN)]


def rivals(ours: RunConfig, nanogpt: Path | None) -> dict[str, Callable[[], object]]:
    """What takes turns: our recipe, nanoGPT's recipe here, and nanoGPT itself."""
    theirs = override(small(ours.corpus), [*SPLIT, "model.position=learned", "train.compile=false"])
    store = prepare(open_corpus(ours.corpus), ours.text)
    theirs = resolve(theirs, store)
    found = {OURS: stepping(resolve(ours, store), store), SMALL: stepping(theirs, store)}
    if nanogpt is not None:
        spec = importlib.util.spec_from_file_location("nanogpt_model", nanogpt)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found["nanoGPT, fp32"] = nanogpt_stepping(module, theirs, store, bf16=False)
        found["nanoGPT, bf16"] = nanogpt_stepping(module, theirs, store, bf16=True)
    return found


def compare(ours: RunConfig, nanogpt: Path | None, seeds: int, repeats: int) -> dict[str, Any]:
    """Steps in turns, then whole runs; of each rival what share of its 2,000 steps `quick` needs."""
    seconds = alternate(rivals(ours, nanogpt), repeats)
    runs = [time_to_loss(ours.replace(seed=seed)) for seed in range(seeds)]
    reached = [run["steps_to_loss"] for run in runs]
    steps = None if None in reached else statistics.fmean(reached)
    ratios = [ratio(seconds, OURS, name) for name in seconds if name != OURS]
    shares = {r.to: None if steps is None else r.estimate * steps / STEPS for r in ratios}
    per_step = {name: statistics.median(values) / IN_ONE_TURN for name, values in seconds.items()}
    return {
        "runs": runs,
        "steps_in_one_call": IN_ONE_TURN,
        "seconds_of_2000_steps": {name: STEPS * value for name, value in per_step.items() if name != OURS},
        "share_of_their_time": shares,
        "n_parameters": sum(p.numel() for p in resolved_model(ours).create().parameters()),
        **as_dict(seconds, *ratios),
    }


def resolved_model(config: RunConfig) -> Any:
    """The model's config with the corpus's vocabulary."""
    return resolve(config, prepare(open_corpus(config.corpus), config.text)).model


def table(result: dict[str, Any]) -> Table:
    shown = Table("", "steps to 1.88", "seconds of steps", "last dev loss", "evaluations, s")
    for run in result["runs"]:
        to_loss = "-" if run["seconds_to_loss"] is None else f"{run['seconds_to_loss']:.1f}"
        cells = (str(run["steps_to_loss"]), to_loss, f"{run['last_loss']:.4f}", f"{run['seconds_of_evaluations']:.1f}")
        shown.add_row(f"quick, seed {run['seed']}", *cells)
    for name, seconds in result["seconds_of_2000_steps"].items():
        share = result["share_of_their_time"][name]
        text = "" if share is None else f"; quick needs {share:.3f} of it"
        shown.add_row(name, "(2,000)", f"{seconds:.1f}{text}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="tinyshakespeare.txt")
    parser.add_argument("--nanogpt", type=Path, help="nanoGPT's model.py")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="compile the steps of quick")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings = [*SPLIT, "train.eval_every=25", "train.sample_tokens=0", f"train.threads={given.threads}"]
    ours = override(quick(given.corpus), [*settings, f"train.compile={str(given.compile).lower()}"])
    result = compare(ours, given.nanogpt, given.seeds, given.repeats)
    Console(file=sys.stderr).print(table(result))
    document = report(CLAIM, [result], given.repeats)
    shares = result["share_of_their_time"]
    measured = shares.get("nanoGPT, fp32", shares[SMALL])
    document["holds"] = measured is not None and measured <= SHARE
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()

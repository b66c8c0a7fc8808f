"""The smallest runs that have everything: made-up names, 2 layers x 16, context 8, AdamW, dropout, accumulation."""

from __future__ import annotations

import hashlib
import itertools
import random
from pathlib import Path

from windtunnel.config import override
from windtunnel.models import TransformerConfig
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, TokenStore, prepare
from windtunnel.training.events import Step
from windtunnel.training.loop import fit, resume
from windtunnel.training.run import open_run
from windtunnel.training.run_config import RunConfig, TrainConfig


def names_file(folder: Path) -> Path:
    """300 made-up names of 2 to 12 letters, one a line: some longer than the context of 8."""
    draw, path = random.Random(0), folder / "names.txt"
    names = ("".join(draw.choices("abcdefghij", k=draw.randint(2, 12))) for _ in range(300))
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def config_of(corpus: Path, *changes: str) -> RunConfig:
    """30 steps, saved every 5; an epoch is about 17 batches, so epochs end inside a batch and inside the run."""
    config = RunConfig(
        corpus=str(corpus),
        text=TextConfig(unit="line"),
        model=TransformerConfig(context_length=8, n_layers=2, n_heads=2, d_model=16, dropout=0.1),
        train=TrainConfig(
            steps=30, batch_size=20, grad_accumulation=4, save_every=5, eval_every=10, threads=1, sample_tokens=0
        ),
    )
    return override(config, ["train.compile=false", "train.precision=fp32", "schedule.warmup=5", *changes])


def store_of(config: RunConfig) -> TokenStore:
    return prepare(open_corpus(config.corpus, config.text.unit), config.text)


def finish(config: RunConfig, folder: Path) -> list[float]:
    """Train from where the folder stands to the end; the losses of all steps of the run, from its log."""
    for _ in fit(config, folder):
        pass
    return losses(folder)


def stop_after(config: RunConfig, folder: Path, step: int) -> None:
    """Train until `step` steps are done, then stop as SIGTERM does."""
    list(itertools.islice(fit(config, folder), 1))  # makes the folder
    done = [0]
    for event in resume(folder, should_stop=lambda: done[0] >= step):
        done[0] = event.step


def losses(folder: Path) -> list[float]:
    """The losses of all steps, which must be numbered 1, 2, 3, ..."""
    steps = [event for event in open_run(folder).events() if isinstance(event, Step)]
    assert [event.step for event in steps] == list(range(1, len(steps) + 1))
    return [event.loss for event in steps]


def final_hashes(folder: Path) -> list[str]:
    """SHA-256 of the weights and the optimizer state of the newest checkpoint."""
    newest = max(folder.glob("step-*"), key=lambda path: int(path.name[5:]))
    names = ("model.safetensors", "optimizer.safetensors")
    return [hashlib.sha256((newest / name).read_bytes()).hexdigest() for name in (names)]

"""JoeyNMT's side of benchmarks/joeynmt.py, run by a python that has JoeyNMT and needs no windtunnel.

    PYTHON -m benchmarks.joeynmt_rival FOLDER

FOLDER holds the pairs, the tokens, the first weights and `settings.json`. A step is what the body of JoeyNMT's own
training loop does, without its log, with learning rates given; translating is its own `predict`, with what it reports
of progress turned off.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from itertools import count
from pathlib import Path
from typing import Any

import torch
from joeynmt.batch import Batch
from joeynmt.config import parse_global_args
from joeynmt.prediction import predict, prepare
from joeynmt.training import TrainManager

from benchmarks.timing import serve


def config(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """JoeyNMT's config of the same model, without dropout, and the same optimizer, without weight decay."""
    half = {
        "type": "transformer",
        "num_layers": settings["n_layers"],
        "num_heads": settings["n_heads"],
        "hidden_size": settings["d_model"],
        "ff_size": settings["d_ff"],
        "embeddings": {"embedding_dim": settings["d_model"], "scale": False, "dropout": 0.0},
        "dropout": 0.0,
        "layer_norm": "pre",
        "activation": "relu",
    }
    side = {"level": "char", "voc_file": str(folder / "tokens.txt")}
    return {
        "name": "benchmark",
        "model_dir": str(folder / "joeynmt"),
        "use_cuda": False,
        "data": {
            "train": str(folder / "train"),
            "dev": str(folder / "dev"),
            "src": {"lang": "source", **side},
            "trg": {"lang": "target", **side},
        },
        "model": {"tied_embeddings": False, "tied_softmax": False, "encoder": half, "decoder": half},
        "training": {
            "optimizer": "adam",
            "adam_betas": settings["betas"],
            "scheduling": "noam",  # it must have one; the learning rates are given
            "normalization": "tokens",
            "clip_grad_norm": settings["clip"],
            "batch_size": settings["batch_size"],
        },
        "testing": {
            "beam_size": settings["beam"],
            "beam_alpha": settings["length_penalty"],
            "max_output_length": settings["context_length"],
        },
    }


class Rival:
    """A model of JoeyNMT with its trainer and data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step = folder, 0
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.rates = settings["rates"]
        (folder / "joeynmt").mkdir()
        self.args = parse_global_args(config(folder, settings))
        self.model, self.pairs, self.held_out, _ = prepare(self.args, rank=0, mode="train")
        self.load("initial")
        self.manager = TrainManager(
            0, self.model, self.args.model_dir, self.args.device, autocast=self.args.autocast,
            train_args=self.args.train, dev_args=self.args.test,
        )  # fmt: skip
        self.batches = self.endless()

    def load(self, name: str) -> None:
        """Take weights; only the positions, which are no weights, may be absent."""
        absent, unknown = self.model.load_state_dict(torch.load(self.folder / f"{name}.pt"), strict=False)
        if unknown or set(absent) != {"encoder.pe.pe", "decoder.pe.pe"}:
            raise RuntimeError(f"the weights do not fit: JoeyNMT lacks {absent} and does not know {unknown}")

    def endless(self) -> Iterator[Batch]:
        size, seed = self.args.train.batch_size, self.args.seed
        batches = self.pairs.make_iter(size, "sentence", seed, shuffle=True, **self.marks)
        for epoch in count():
            batches.batch_sampler.set_seed(seed + epoch)
            yield from batches

    @property
    def marks(self) -> dict[str, int]:
        return {"pad_index": self.model.pad_index, "eos_index": self.model.eos_index}

    def train(self, n_steps: int) -> int:
        """So many steps; how many targets they had."""
        n_targets, optimizer = 0, self.manager.optimizer
        for _ in range(n_steps):
            batch = next(self.batches)
            for group in optimizer.param_groups:
                group["lr"] = self.rates[self.step]
            self.manager._train_step(batch)
            self.manager.clip_grad_fun(parameters=self.model.parameters())
            optimizer.step()
            self.model.zero_grad()
            self.step, n_targets = self.step + 1, n_targets + batch.ntokens
        return n_targets

    def loss(self) -> float:
        """Nats a target of the held-out pairs."""
        self.model.eval()
        total, n_targets = 0.0, 0
        for batch in self.held_out.make_iter(100, **self.marks):
            with torch.no_grad():
                total += self.model(return_type="loss", **vars(batch))[0].item()
            n_targets += batch.ntokens
        return total / n_targets

    def translate(self, batch_size: int) -> list[str]:
        """The targets that it writes of the held-out sources, so many at a time."""
        test = self.args.test._replace(batch_size=batch_size)
        settings = {"n_gpu": 0, "args": test, "autocast": self.args.autocast}
        with redirect_stderr(io.StringIO()):  # its progress bar
            return predict(self.model, self.held_out, self.args.device, **settings)[2]

    def answer(self, wish: str) -> object:
        """What the benchmark wishes: a word, and for some a number or a name."""
        what, _, how = wish.partition(" ")
        return {
            "train": lambda: self.train(int(how)),
            "load": lambda: self.load(how),
            "loss": self.loss,
            "translate": lambda: self.translate(int(how)),
        }[what]()


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rival = Rival(Path(sys.argv[1]))
    serve(sum(p.numel() for p in rival.model.parameters()), rival.answer)


if __name__ == "__main__":
    main()

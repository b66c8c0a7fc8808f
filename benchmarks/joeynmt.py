"""Claim: an encoder-decoder trains and translates at least twice as fast as JoeyNMT's, at equal chrF.

    python -m benchmarks.joeynmt PATH/TO/PYTHON [--shapes 2x64 3x128] [--steps N] [--repeats N] [--compile auto]

PATH/TO/PYTHON has JoeyNMT: python -m venv FOLDER && FOLDER/bin/pip install joeynmt importlib_metadata

Pig Latin letter by letter, in float32 on one thread, without dropout. Both have the same model and begin with the same
weights (sinusoidal positions, pre-norm, ReLU, tables and head apart), in batches of 128 pairs, and the same AdamW,
clipping and learning rates, each with batches in its own order. A turn is N steps with their batches, counted in
1,000 targets. Then both translate 1,000 held-out words with a beam of 4, the same length penalty and the same longest
target: each with the weights that it trained, which gives its chrF, then, by the clock, with ours, whose loss must be
the same in both. JoeyNMT's batch is the fastest of some sizes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from benchmarks.timing import Apart, alternate, as_dict, ratio, report, serve
from windtunnel.config import override
from windtunnel.generation.beam import Beam
from windtunnel.generation.translate import translate_all
from windtunnel.models import Translator
from windtunnel.text.store import TokenStore
from windtunnel.training import machine
from windtunnel.training.data import open_store, open_task
from windtunnel.training.recipes import translate
from windtunnel.training.run import TrainedModel, create_run, initial_model, open_run, resolve
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import learning_rate
from windtunnel.training.trainer import Trainer

CLAIM = "training and beam search take at most half the time of JoeyNMT's, at equal chrF"
OURS, THEIRS = "windtunnel", "JoeyNMT"
GOAL, SAME_CHRF, SAME_LOSS = 2.0, 1.0, 1e-3
"""How many times as long JoeyNMT is to take; the points of chrF, and the share of a loss, that count as equal."""
HELD_OUT, BEAM = 1000, 4
BATCHES = (64, 250, 1000)
"""How many sources JoeyNMT translates at a time; 64 is its default."""
UNUSED = 2
"""Rows of our tables that are no tokens, as JoeyNMT marks begin, end, padding and unknown, and we a turn and an end."""


@dataclass(frozen=True)
class Case:
    """A shape of both halves of the model."""

    n_layers: int
    d_model: int
    n_heads: int

    def __str__(self) -> str:
        return f"{self.n_layers} + {self.n_layers} layers x {self.d_model}, 128 pairs"


CASES = {"2x64": Case(2, 64, 4), "3x128": Case(3, 128, 4)}


def run_config(case: Case, steps: int, compile: str) -> RunConfig:
    """What ours trains; JoeyNMT's is made of it."""
    changes = [
        "model.family=translator", "model.context_length=48", "model.position=sinusoidal", "model.activation=relu",
        "model.norm_epsilon=1e-6", "model.bias=true", "model.tie_embeddings=false", f"model.n_layers={case.n_layers}",
        f"model.encoder.n_layers={case.n_layers}", f"model.d_ff={4 * case.d_model}",
        f"model.n_heads={case.n_heads}", f"model.d_model={case.d_model}", "text.dev_fraction=0.1",
        "optimizer.weight_decay=0", "schedule.curve=linear", "schedule.final_fraction=0", "train.batch_size=128",
        "train.threads=1", "train.precision=fp32", f"train.compile={compile}", f"train.steps={steps}",
    ]  # fmt: skip
    config = override(translate("pig-latin"), changes)
    n_tokens = open_store(config).tokenizer.vocab_size
    return config.replace(model=config.model.replace(vocab_size=n_tokens + UNUSED))


def pairs(store: TokenStore, split: str) -> list[list[str]]:
    """Source and target of every pair of a split."""
    return [document.split("\t") for document in store.documents(split)]


def write_for_both(folder: Path, config: RunConfig) -> list[list[str]]:
    """Our run, and what JoeyNMT needs for the same; the held-out pairs."""
    store = open_store(config)
    run = create_run(folder / "run", resolve(config, store), store)
    config, held_out = run.config, pairs(store, "dev")[:HELD_OUT]
    for name, some in (("train", pairs(store, "train")), ("dev", held_out)):
        for place, side in enumerate(("source", "target")):
            (folder / f"{name}.{side}").write_text("".join(f"{pair[place]}\n" for pair in some), encoding="utf-8")
    tokens = [store.tokenizer.decode([id]) for id in range(2, store.tokenizer.vocab_size)]
    (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    train, optimizer, model = config.train, config.optimizer, config.model
    settings = {name: getattr(model, name) for name in ("n_layers", "n_heads", "d_model", "context_length")}
    settings |= {"d_ff": model.ff_width, "batch_size": train.batch_size, "clip": train.clip, "beam": BEAM}
    settings |= {"betas": (optimizer.beta_1, optimizer.beta_2), "length_penalty": Beam.length_penalty}
    settings["rates"] = [learning_rate(i, train.steps, optimizer.lr, config.schedule) for i in range(train.steps)]
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return held_out


def their_weights(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights by JoeyNMT's names; its ids 0 to 3 are unknown, padding, begin and end, then come the letters."""
    n_tokens = len(ours["decoder.embedding.weight"])
    end, turn, first, last = 0, 1, 2, n_tokens - UNUSED
    letters, unused = list(range(first, last)), list(range(last, n_tokens))
    reads = [turn, unused[0], end, end, *letters]  # a target begins and a source ends with our one mark
    writes = [turn, *unused, end, *letters]
    theirs = {
        "src_embed.lut.weight": ours["encoder.embedding.weight"][reads],
        "trg_embed.lut.weight": ours["decoder.embedding.weight"][reads],
        "decoder.output_layer.weight": ours["decoder.head.weight"][writes],
    }
    for name, value in ours.items():
        half, _, rest = name.partition(".")
        if rest.startswith("norm."):
            theirs[f"{half}.layer_norm.{rest.removeprefix('norm.')}"] = value
        elif rest.startswith("blocks."):
            _, layer, inside = rest.split(".", 2)
            named = NAMES[half][inside.rpartition(".")[0]]
            for part, piece in zip(named, value.chunk(len(named)), strict=True):
                theirs[f"{half}.layers.{layer}.{part}.{inside.rpartition('.')[2]}"] = piece.clone()
    return theirs


def _names(norm: str, attention: str) -> dict[str, list[str]]:
    return {
        "norm_1": [norm],
        "attention.qkv": [f"{attention}.{part}_layer" for part in "qkv"],
        "attention.out": [f"{attention}.output_layer"],
        "norm_2": ["feed_forward.layer_norm"],
        "feed_forward.widen": ["feed_forward.pwff_layer.0"],
        "feed_forward.narrow": ["feed_forward.pwff_layer.3"],
    }


NAMES = {
    "encoder": _names("layer_norm", "src_src_att"),
    "decoder": _names("x_layer_norm", "trg_trg_att")
    | {
        "cross_norm": ["dec_layer_norm"],
        "cross_attention.q": ["src_trg_att.q_layer"],
        "cross_attention.kv": ["src_trg_att.k_layer", "src_trg_att.v_layer"],
        "cross_attention.out": ["src_trg_att.output_layer"],
    },
}
"""Module of our block -> JoeyNMT's modules, whose matrices are packed into ours."""


class Ours:
    """Our model with its trainer and data, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        machine.keep_memory()
        self.folder, self.run = folder, open_run(folder / "run")
        config = self.run.config
        self.task = open_task(config, self.run.store())
        self.trainer = Trainer.begin(config, self.task, initial_model(config))
        self.sources = (folder / "dev.source").read_text(encoding="utf-8").split()
        self.save("initial")

    def trained(self) -> Translator:
        """The model as it is now, to be used."""
        model = self.run.config.model.create()
        model.load_state_dict(self.trainer.state.model.state_dict())
        return model.eval()

    def save(self, name: str) -> None:
        """Its weights, for JoeyNMT to load."""
        torch.save(their_weights(self.trained().state_dict()), self.folder / f"{name}.pt")

    def loss(self) -> float:
        """Nats a target of the held-out pairs."""
        batch = self.task.examples("dev").take(np.arange(HELD_OUT), 0)
        with torch.no_grad():
            total = self.task.loss_sum(self.trained()(**batch.inputs), batch.targets)
        return total.item() / batch.n_targets

    def translate(self) -> list[str]:
        """The targets that it writes of the held-out sources."""
        trained = TrainedModel(self.run, self.trained(), self.run.tokenizer, self.trainer.state.step, ())
        return [one.target for one in translate_all(trained, self.sources, beam=BEAM)]

    def answer(self, wish: str) -> object:
        """What the benchmark wishes: a word, and for some a number or a name."""
        what, _, how = wish.partition(" ")
        return {
            "train": lambda: sum(self.trainer.step().n_tokens for _ in range(int(how))),
            "save": lambda: self.save(how),
            "loss": self.loss,
            "translate": self.translate,
        }[what]()


def timed_training(processes: dict[str, Apart], steps: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of 1,000 targets in each turn; what a first turn compiles does not count."""
    n_targets: dict[str, list[int]] = {name: [] for name in processes}

    def train(name: str) -> None:
        n_targets[name].append(processes[name](f"train {steps}"))

    seconds = alternate({name: partial(train, name) for name in processes}, repeats, warmup=1)
    return {
        name: [1e3 * value / n for value, n in zip(values, n_targets[name][1:], strict=True)]
        for name, values in seconds.items()
    }


def best_batch(rival: Apart) -> int:
    """How many sources at a time JoeyNMT translates fastest."""
    ways: dict[str, Callable[[], object]] = {str(size): partial(rival, f"translate {size}") for size in BATCHES}
    seconds = alternate(ways, repeats=2, warmup=0)
    return min(BATCHES, key=lambda size: min(seconds[str(size)]))


def compare(name: str, python: str, steps: int, repeats: int, compile: str) -> dict[str, Any]:
    case, chrf = CASES[name], CHRF()
    with tempfile.TemporaryDirectory() as given, ExitStack() as running:
        folder = Path(given)
        held_out = write_for_both(folder, run_config(case, steps * (repeats + 1), compile))
        ours = running.enter_context(Apart("joeynmt", python, "--serve", given))
        theirs = running.enter_context(Apart("joeynmt_rival", given, python=python))
        if ours.greeting != theirs.greeting:
            raise RuntimeError(f"the models differ: {ours.greeting:,} and {theirs.greeting:,} parameters")
        training = timed_training({OURS: ours, THEIRS: theirs}, steps, repeats)
        losses = {OURS: ours("loss"), THEIRS: theirs("loss")}
        written = {f"{OURS}, own weights": ours("translate"), f"{THEIRS}, own weights": theirs("translate 250")}
        ours("save trained")
        theirs("load trained")
        carried = theirs("loss")
        if abs(carried - losses[OURS]) > SAME_LOSS * losses[OURS]:
            raise RuntimeError(f"the models do not compute the same: losses {losses[OURS]} and {carried}")
        wish = f"translate {best_batch(theirs)}"
        translating = alternate({OURS: partial(ours, "translate"), THEIRS: partial(theirs, wish)}, repeats, warmup=1)
        written[f"{THEIRS}, weights of {OURS}"] = theirs(wish)
    references = [[target for _, target in held_out]]
    seconds = {f"{of}, 1,000 targets trained": values for of, values in training.items()}
    seconds |= {f"{of}, 1,000 sources translated": values for of, values in translating.items()}
    same = zip(written[f"{OURS}, own weights"], written[f"{THEIRS}, weights of {OURS}"], strict=True)
    (trained, their_trained, translated, their_translated) = seconds
    return {
        "case": str(case),
        "steps": steps * (repeats + 1),
        "n_parameters": ours.greeting,
        "losses": losses | {f"{THEIRS}, weights of {OURS}": carried},
        "chrf": {of: chrf.corpus_score(targets, references).score for of, targets in written.items()},
        "same_targets": sum(a == b for a, b in same) / HELD_OUT,
        "how_they_translate": wish,
        **as_dict(seconds, ratio(seconds, their_trained, trained), ratio(seconds, their_translated, translated)),
    }


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table("case", "what", "a second", "times as long [95 %]", title=f"{THEIRS} over {OURS}, one thread")
    for result in results:
        for r in result["ratios"]:
            rates = [f"{1e6 / result['milliseconds'][of]['median']:,.0f}" for of in (r["to"], r["of"])]
            interval = f"{r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
            shown.add_row(result["case"], r["of"].partition(", ")[2], " / ".join(rates), interval)
        for of, score in result["chrf"].items():
            shown.add_row(result["case"], f"chrF of {of}", "", f"{score:.2f}")
    return shown


def holds(result: dict[str, Any]) -> bool:
    scores = result["chrf"].values()
    return all(r["low"] >= GOAL for r in result["ratios"]) and max(scores) - min(scores) <= SAME_CHRF


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="the python of an environment that has JoeyNMT")
    parser.add_argument("--shapes", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--steps", type=int, default=200, help="training steps in a turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", choices=["auto", "true", "false"], default="auto", help="our train.compile")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.serve:
        process = Ours(given.serve)
        serve(sum(p.numel() for p in process.trained().parameters()), process.answer)
        return
    results = [compare(name, given.python, given.steps, given.repeats, given.compile) for name in given.shapes]
    Console(file=sys.stderr).print(table(results))
    document = report(CLAIM, results, given.repeats)
    document["holds"] = all(map(holds, results))
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()

"""Train a tiny model on the pets grammar, and compare its beliefs with the truth."""

import tempfile
from pathlib import Path

from windtunnel.config import override
from windtunnel.generation.request import Request
from windtunnel.generation.trace import corpus_truth, trace
from windtunnel.training.events import Evaluation
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load

config = override(recipe("tiny", "pets"), ["train.steps=100", "train.eval_every=50"])
with tempfile.TemporaryDirectory() as folder:
    for event in fit(config, Path(folder) / "run"):
        if isinstance(event, Evaluation):
            print(f"step {event.step}: dev loss {event.loss:.3f} nats a token")
    trained = load(Path(folder) / "run")
    for token in trace(trained, Request("He and I", n_tokens=4), corpus_truth(trained)).tokens:
        print(f"{token.text:10} {token.probability_1:.3f}  true {token.true_probability:.3f}")

"""Claim: weights rounded to bfloat16 or int8, and evaluation in bfloat16, change the dev loss by less than 0.001 nats.

    python -m benchmarks.rounded_weights [--corpus NAME_OR_PATH] [--recipe NAME] [--seeds 5]

Each seed is trained once and evaluated on the whole dev split: as it is, with its matrices rounded as `generate
--weights` stores them and turned back to float32, and with products in bfloat16. Paired differences over seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import report
from windtunnel.generation.weights import Weights, store
from windtunnel.stats.intervals import mean_interval
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.run import TrainedModel, load

CLAIM = "weights in bf16 or int8, and evaluation in bf16, change the dev loss by less than 0.001 nats per token"
SMALL = 0.001


def rounded(trained: TrainedModel, kind: Weights) -> nn.Module:
    """The model with every matrix, the embedding among them, rounded as `kind` and turned back to float32."""
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                stored, scale = store(parameter, kind)
                parameter.copy_(stored.float() if scale is None else stored.float() * scale[:, None])
    return model


def dev_loss(trained: TrainedModel, model: nn.Module, precision: str = "fp32") -> float:
    task = open_task(trained.run.config, trained.run.store())
    return evaluate(model, task, "dev", step=0, precision=precision).loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="names")
    parser.add_argument("--recipe", help="the default is that of the corpus")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    changes: dict[str, list[float]] = {"bf16 weights": [], "int8 weights": [], "bf16 evaluation": []}
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", given.corpus, "--seeds", str(given.seeds), "--out", f"{folder}/runs"]
        words += ["--recipe", given.recipe] if given.recipe else []
        subprocess.run([sys.executable, "-m", "windtunnel", *words], stdout=sys.stderr, check=True)
        for path in sorted(Path(folder).glob("**/seed-*")):
            trained = load(path)
            plain = dev_loss(trained, trained.model)
            changes["bf16 weights"].append(dev_loss(trained, rounded(trained, "bf16")) - plain)
            changes["int8 weights"].append(dev_loss(trained, rounded(trained, "int8")) - plain)
            changes["bf16 evaluation"].append(dev_loss(trained, trained.model, precision="bf16") - plain)
    results = []
    for what, differences in changes.items():
        mean = mean_interval(differences)
        results.append({"what": f"{given.corpus}, {what}", "change_of_dev_loss": mean.estimate, "low": mean.low,
                        "high": mean.high, "seeds": len(differences)})  # fmt: skip
    document = report(CLAIM, results, given.seeds)
    document["holds"] = all(abs(result[end]) < SMALL for result in results for end in ("low", "high"))
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()

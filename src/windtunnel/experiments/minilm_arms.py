"""Arms of `verbal-arithmetic` that have the shape of MiniLM: pretrained, at random, and read by another's ids."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from windtunnel.config import override
from windtunnel.experiments.frame import Setting
from windtunnel.experiments.training import FIELDS
from windtunnel.files import write_text
from windtunnel.models.pretrained.catalogue import MINILM
from windtunnel.runs.arms import Arm
from windtunnel.runs.seeds import find_start
from windtunnel.training.disk import saving
from windtunnel.training.imports import continue_from, import_run
from windtunnel.training.run import is_run
from windtunnel.training.run_config import RunConfig

RATE = 3e-4
"""Peak learning rate. On a quarter of the 448, held out, it was better than 1e-4 and 1e-3 (docs/classification.md)."""
STEPS, BATCH = 112, 32
"""8 epochs of 448 expressions."""
UNTRAINED, SOLVED, LAST_TWO, WHOLE, MISREAD = (
    f"MiniLM, {how}" for how in ("random weights", "frozen", "last two layers", "full", "wrong tokenizer")
)


def minilm_arms(at: Setting, corpus: Path) -> list[Arm]:
    """The arms; the first is the baseline of their comparison. A full run keeps 8 GB of weights and optimizers.

    Raises:
        DataError: when MiniLM is not on this machine; it says how to get it.
    """
    folder = find_start(MINILM.name, at.out / "runs")
    other = _with_wrong_ids(MINILM.path, at.out)
    whole = _settled(at, folder, corpus)
    return [
        Arm(UNTRAINED, whole.replace(start=None)),
        Arm(SOLVED, override(whole, ["train.freeze=all"])),
        Arm(LAST_TWO, override(whole, ["train.freeze=4"])),
        Arm(WHOLE, whole),
        Arm(MISREAD, _settled(at, other, corpus)),
    ]


def _settled(at: Setting, run: Path, corpus: Path) -> RunConfig:
    steps = at.size(STEPS, quick=2)
    base = continue_from(run, str(corpus), columns=FIELDS)
    return base.replace(
        optimizer=base.optimizer.replace(lr=RATE),
        schedule=base.schedule.replace(warmup=steps // 10),
        train=base.train.replace(
            steps=steps, batch_size=BATCH, eval_every=10**9, save_every=10**9, choose="last", threads=1
        ),
        seed=at.seed,
    )


def _with_wrong_ids(source: Path, out: Path) -> Path:
    """A run of the encoder in `source` with a tokenizer that is `shuffled`."""
    folder, run = out / "minilm-wrong-ids", out / "runs" / "import-minilm-wrong-ids" / "seed-0"
    if is_run(run):
        return run
    with saving(folder):
        shutil.copytree(source, folder, dirs_exist_ok=True)
        write_text(folder / "tokenizer.json", shuffled((source / "tokenizer.json").read_text(encoding="utf-8")))
    import_run(folder, run, proof=False)
    with saving(folder):
        shutil.rmtree(folder)
    return run


def shuffled(tokenizer: str) -> str:
    """A tokenizer.json with the ids of all pieces exchanged at random; its marks, as [CLS], keep theirs."""
    data = json.loads(tokenizer)
    vocabulary = data["model"]["vocab"]
    pieces = [piece for piece in vocabulary if not piece.startswith("[")]
    ids = [vocabulary[piece] for piece in pieces]
    random.Random(0).shuffle(ids)
    data["model"]["vocab"] = vocabulary | dict(zip(pieces, ids, strict=True))
    return json.dumps(data, ensure_ascii=False)

"""Whether a change of the code left every number as it was: trains one run of each kind with two checkouts.

    python scripts/same_numbers.py OTHER_CHECKOUT [KIND ...]

Both checkouts train the same commands for 50 steps on the same machine. Equal are the loss and gradient norm of every
step, every evaluation, the SHA-256 of the final weights, and the fingerprint of the config. Exits 1 where one differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.numpy

HERE = Path(__file__).resolve().parents[1]
TINY = ["--set", "model.n_layers=2", "--set", "model.d_model=32", "--set", "model.n_heads=4"]
LOOKS = ["--steps", "50", "--set", "train.eval_every=25", "--set", "train.sample_tokens=8"]
TEXT = str(HERE / "docs" / "verdicts.md")

KINDS: dict[str, list[str]] = {
    "names": ["names", "--recipe", "tiny"],
    "pets": ["pets", "--recipe", "tiny"],
    "text": [TEXT, "--recipe", "quick", *TINY],
    "replay": ["names", "--recipe", "makemore"],
    "bf16": ["names", "--recipe", "tiny", "--set", "train.precision=bf16"],
    "ranks": ["names", "--recipe", "tiny", "--parallel", "ddp"],
    "shards": ["names", "--recipe", "tiny", "--parallel", "fsdp"],
    "stacked": ["names", "--recipe", "mlp", "--seeds", "4"],
    "accumulation": ["names", "--recipe", "tiny", "--set", "model.dropout=.1", "--set", "train.grad_accumulation=4"],
    "compiled": [TEXT, "--recipe", "small", *TINY, "--set", "train.compile=true"],
    "one graph": ["names", "--recipe", "mlp", "--set", "train.compile=true", "--set", "train.grad_accumulation=2"],
    "windows": [TEXT, "--recipe", "small", *TINY, "--set", "model.window=16", "--set", "model.position=alibi"],
    "grouped": [TEXT, "--recipe", "llama", *TINY, "--set", "model.n_kv_heads=2", "--set", "model.context_length=64",
                "--set", "model.d_ff=64", "--set", "train.batch_size=4", "--set", "text.tokenizer=bytes"],
    "recomputed": ["names", "--recipe", "tiny", "--set", "train.recompute=true"],
}  # fmt: skip


def numbers(checkout: Path, arguments: list[str]) -> dict[str, Any]:
    """Train once with the code of a checkout; what the run folders hold, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        start = [sys.executable, "-m"]
        if "--parallel" in arguments:
            start += ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
        command = [*start, "windtunnel", "train", *arguments, *LOOKS, "--json"]
        where = {**os.environ, "PYTHONPATH": str(checkout / "src"), "WINDTUNNEL_RUNS": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{checkout}: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return {str(p.parent.name): _of_run(p.parent) for p in sorted(Path(folder).rglob("config.json"))}


def _of_run(folder: Path) -> dict[str, Any]:
    weights = max(folder.glob("step-*/model.safetensors"), key=lambda p: int(p.parent.name[5:]))
    found: dict[str, Any] = {"config": json.loads((folder / "record.json").read_text())["config_sha256"]}
    digest = hashlib.sha256()
    for name, tensor in sorted(safetensors.numpy.load_file(weights).items()):
        digest.update(name.encode() + tensor.tobytes())
    found["weights"] = digest.hexdigest()
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        scores = {**event, **event.get("scores", {})}
        if event["event"] in ("step", "evaluation", "sample"):
            kept = ("loss", "grad_norm", "lr", "bits_per_byte", "n_tokens", "whole", "text")
            found[f"{event['event']} {event['step']}"] = {name: scores[name] for name in kept if name in scores}
    return found


def main() -> int:
    """Compare this checkout with another."""
    other, *kinds = sys.argv[1:]
    differ = 0
    for kind in kinds or KINDS:
        before, after = numbers(Path(other).resolve(), KINDS[kind]), numbers(HERE, KINDS[kind])
        wrong = [
            f"{run} {what}"
            for run in {**before, **after}
            for what in {**before.get(run, {}), **after.get(run, {})}
            if before.get(run, {}).get(what) != after.get(run, {}).get(what)
        ]
        print(f"{kind:13} {sum(map(len, after.values())):4} numbers of {len(after)} runs:", wrong[:4] or "equal")
        differ += bool(wrong)
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Alter every file that is read, kill a stacked group, fill the disk; and show that no number changes in silence.

    python scripts/attack.py files --mutations 2000
    python scripts/attack.py kills --kills 25
    python scripts/attack.py disk --levels 12

`files` alters one file at a time (bits, ends, zeros, types in JSON, pipes, links, devices) and has a command read it:
what it says must be as before, or an error of windtunnel's, or name the file. Of files that have no checksum of their
own, since they are the user's (a setting, a corpus, a tokenizer, a model from elsewhere), only that is asked which can
be: no traceback, no hang. `kills` sends SIGKILL to a group of tiny seeds that train in one process and stand at
different steps; `disk` trains on a disk that is full from some byte on. What is resumed afterwards must equal what
nobody disturbed: in every bit, or, of seeds that stood at different steps, to rounding. All print JSON, and exit with 0
only when all of it holds. Each attempt is a forked process, so that torch is imported once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from attack_files import attack_files
from attack_stops import attack_disk, attack_kills


def main() -> int:
    """Parse, attack, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["files", "kills", "disk"])
    parser.add_argument("--mutations", type=int, default=2000, help="altered files (2000)")
    parser.add_argument("--kills", type=int, default=25, help="SIGKILLs (25)")
    parser.add_argument("--levels", type=int, default=12, help="levels of a full disk (12)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begin, draw = time.perf_counter(), random.Random(asked.seed)
    attack, n = {
        "files": (attack_files, asked.mutations),
        "kills": (attack_kills, asked.kills),
        "disk": (attack_disk, asked.levels),
    }[asked.what]
    with tempfile.TemporaryDirectory() as work:
        here = Path.cwd()
        try:
            found = attack(n, draw, Path(work).resolve())
        finally:
            os.chdir(here)
    seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({**found, "seconds": seconds, "good": not found["broken"]}, indent=2))
    return 0 if not found["broken"] else 1


if __name__ == "__main__":
    sys.exit(main())

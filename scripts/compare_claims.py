#!/usr/bin/env python3
"""Do the built-in experiments still say what they said? Runs them with --quick, compares their claims.

    python scripts/compare_claims.py FOLDER [NAME]...            compares with what FOLDER holds
    python scripts/compare_claims.py FOLDER --store [NAME]...    writes FOLDER/NAME.json instead

Claims are compared word for word; numbers in claims that were timed are not. Exits with 1 if any differ.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from windtunnel.experiments import EXPERIMENTS

TIMED = re.compile(r"second|faster|slower|sooner|times as (fast|long)|\btakes\b|\btime\b|\bms\b")
"""A claim whose statement has one of these words was measured with a clock, and its numbers and verdict may move."""
PARTS = ("tables", "rows", "figures")
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


def found_by(name: str) -> dict[str, Any]:
    """The claims of an experiment, and the names of its tables and figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "windtunnel", "experiment", name, "--quick", "--json", "--out", folder]
        outcome = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        )
    names = ("id", "statement", "published", "measured", "verdict")
    return {
        "claims": [{name: claim[name] for name in names} for claim in outcome["claims"]],
        "tables": [table["title"] for table in outcome["tables"]],
        "rows": [len(table["rows"]) for table in outcome["tables"]],
        "figures": sorted(outcome["figures"]),
    }


def comparable(claim: dict[str, str]) -> dict[str, str]:
    """A claim without what a clock said."""
    if not TIMED.search(claim["statement"]):
        return claim
    return {name: NUMBER.sub("#", text) for name, text in claim.items() if name != "verdict"}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The claims, in any order, that one has and the other does not."""
    old, new = ([comparable(claim) for claim in found["claims"]] for found in (before, after))
    said = [f"- {claim}" for claim in old if claim not in new] + [f"+ {claim}" for claim in new if claim not in old]
    return said if said or len(old) == len(new) else [f"{len(old)} claims became {len(new)}"]


def main() -> int:
    """Compare or store, one experiment after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--store", action="store_true")
    asked = parser.parse_intermixed_args()
    names = asked.names or list(EXPERIMENTS)
    asked.folder.mkdir(parents=True, exist_ok=True)
    differing = 0
    for name in names:
        found, path = found_by(name), asked.folder / f"{name}.json"
        if asked.store:
            path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{name}: {len(found['claims'])} claims stored", flush=True)
            continue
        said = differences(json.loads(path.read_text(encoding="utf-8")), found)
        differing += bool(said)
        n_claims = len(found["claims"])
        print(f"{name}: {'differs' if said else f'{n_claims} claims, all the same'}", flush=True)
        before = json.loads(path.read_text(encoding="utf-8"))
        said += [f"note: {part} {before[part]} became {found[part]}" for part in PARTS if before[part] != found[part]]
        print("".join(f"  {line}\n" for line in said), end="", flush=True)
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())

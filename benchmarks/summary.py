"""Write benchmarks/README.md from the JSON in benchmarks/results, which the benchmarks print.

    python -m benchmarks.NAME ... > benchmarks/results/NAME.json
    python -m benchmarks.summary [--check]

Every JSON has the same head (claim, machine, threads, repeats) and a list of results; what a result measures is in its
`milliseconds` and `ratios`, or it is a flat row of numbers. With --check nothing is written, and a README that is not
what the JSON says is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEAD = """# Benchmarks

Written by `python -m benchmarks.summary` from `benchmarks/results/*.json`; do not edit. One file of this folder is one
claim: `python -m benchmarks.NAME` prints a table and the JSON. Rivals take turns in one process, or one run; the ratio
is the median of the turns' own ratios with an interval that covers the median, whatever the distribution.
"""


def section(path: Path) -> str:
    """One benchmark: its claim, what it ran on and its numbers."""
    document = json.loads(path.read_text(encoding="utf-8"))
    on = document["machine"]
    where = f"{on['processor']}, {on['cores']} cores, {on['capability']}; torch {on['torch']}"
    results = document["results"]
    table = ratios(results) if any("ratios" in result for result in results) else rows(results)
    verdict = {True: "Holds here.", False: "**Does not hold here.**"}.get(document.get("holds"), "")
    claim = f"Claim: {document['claim']}. {verdict}".strip()
    return f"## {path.stem}\n\n{claim}\n\n{where}; {document['repeats']} repeats\n\n{table}\n"


def name(result: dict[str, Any]) -> str:
    return ", ".join(str(result[key]) for key in ("case", "shape", "what") if key in result)


def ratios(results: list[dict[str, Any]]) -> str:
    lines = ["| what | time of | over time of | ratio [interval] | median ms |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        for r in result.get("ratios", ()):
            times = [f"{result['milliseconds'][of]['median']:.4g}" for of in (r["of"], r["to"])]
            interval = f"{r['estimate']:.3g} [{r['low']:.3g}, {r['high']:.3g}]"
            lines.append(f"| {name(result)} | {r['of']} | {r['to']} | {interval} | {times[0]}, {times[1]} |")
        if "share_of_peak" in result:
            lines.append(f"| {name(result)} | | | share of the peak FLOP/s | {result['share_of_peak']:.0%} |")
        for of, mebibytes in result.get("peak_mebibytes", {}).items():
            lines.append(f"| {name(result)} | {of} | | peak memory, MiB | {mebibytes:,.0f} |")
        for of, score in result.get("chrf", {}).items():
            lines.append(f"| {name(result)} | {of} | | chrF | {score:.2f} |")
    return "\n".join(lines)


def rows(results: list[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for result in results for key, value in result.items() if _plain(value)))
    lines = [f"| {' | '.join(key.replace('_', ' ') for key in keys)} |", "|" + " --- |" * len(keys)]
    lines += [f"| {' | '.join(_shown(result.get(key, '')) for key in keys)} |" for result in results]
    return "\n".join(lines)


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    text = "\n".join([HEAD, *(section(path) for path in sorted((HERE / "results").glob("*.json")))])
    readme = HERE / "README.md"
    if parser.parse_args().check:
        if readme.read_text(encoding="utf-8") != text:
            sys.exit(f"{readme} is not what the results say; run python -m benchmarks.summary")
    else:
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Claim: many clients at once get the texts that one alone gets, none gets a 5xx or half a stream, and memory stays.

    python -m benchmarks.serving [--clients 200] [--seconds 60] [--shape 4x128]

Serves a model of random weights by `windtunnel serve` in a process of its own, and asks it from this one: first each
request alone, then all clients at once in three equal loads. A client asks again as soon as it has its answer, and
after the time that a 429 says. Requests are greedy and sampled, whole and streamed, of several lengths; none whose text
hangs on two logits or a draw within 1e-5 of each other, for that sharing a pass may change. Memory is the server's,
after each load; it may not grow from the second to the third by more than 1 %.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.store_memory import memory_mb
from benchmarks.timing import report
from windtunnel.generation.decode import decode
from windtunnel.generation.opening import opening
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig, uniform
from windtunnel.models import TransformerConfig, build
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.imports import create_with_weights
from windtunnel.training.run import TrainedModel, load
from windtunnel.training.run_config import RunConfig, TrainConfig

CLAIM = "many clients get what one alone gets: no 5xx, no dropped stream, no other text, no growth of memory"
LOADS, NEAR, GROWTH = 3, 1e-5, 0.01
POOL = 48
"""Different requests."""
PATIENCE = 600.0
"""Seconds that a client waits for an answer; only a hang takes longer."""


def make_model(folder: Path, shape: str) -> TrainedModel:
    """A run of random weights, so large that its texts differ."""
    tokenizer = characters_tokenizer("abcdefghijklmnopqrstuvwxyz ", end=True)
    layers, width = map(int, shape.split("x"))
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 256, "n_layers": layers, "n_heads": 4}
    model = TransformerConfig(**sizes, d_model=width)
    weights = {name: t * (6 if t.dim() > 1 else 1) for name, t in build(model, 0).state_dict().items()}
    text = TextConfig(unit="line", tokenizer="characters")
    config = RunConfig(corpus="", text=text, model=model, train=TrainConfig(steps=0))
    create_with_weights(folder, config, weights, tokenizer, None, {"made": "random"})
    return load(folder)


def requests(trained: TrainedModel) -> Iterator[dict[str, Any]]:
    """Bodies, without those whose text hangs on what is near."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    for number in itertools.count():
        prompt = "".join(draw.choice(letters, int(draw.choice([2, 3, 8, 20]))))
        body = {
            "prompt": prompt, "max_tokens": int(draw.choice([8, 16, 48])), "seed": number,
            "temperature": float(draw.choice([0.0, 0.8])), "stream": bool(draw.integers(2)),
        }  # fmt: skip
        if nearest(trained, body) > NEAR:
            yield body


def nearest(trained: TrainedModel, body: dict[str, Any]) -> float:
    """How near the text is to another: two best logits of a greedy one, a draw and the border to the next token."""
    sampling = SamplingConfig(temperature=body["temperature"])
    ids, least = opening(trained, Request(body["prompt"], 1)).ids, math.inf
    for index, new in enumerate(decode(trained.model, ids, body["max_tokens"], sampling, body["seed"])):
        if not sampling.temperature:
            second, first = np.sort(new.logits_V)[-2:]
            least = min(least, first - second)
        elif new.probabilities_V is not None:
            borders_V = new.probabilities_V.cumsum()
            least = min(least, float(np.abs(borders_V[:-1] - uniform(body["seed"], index)).min()))
    return least


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """The URL of the API and the process id of a server."""
    command = [sys.executable, "-m", "windtunnel", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stdout.readline().split()[1] for _ in range(3)]
            yield said[1], process.pid
        finally:
            process.terminate()
    assert process.returncode == 0, f"the server ended with {process.returncode}"


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, str]:
    """What came of a request (text, 429, 5xx, refused, dropped), and the text or why."""
    try:
        async with client.stream("POST", "completions", json=body) as answer:
            if answer.status_code == 429:
                return "429", answer.headers["retry-after"]
            if answer.status_code != 200:
                return "5xx" if answer.status_code >= 500 else "refused", str(answer.status_code)
            if not body["stream"]:
                return "text", json.loads(await answer.aread())["choices"][0]["text"]
            *parts, last = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]
            text = "".join(json.loads(part)["choices"][0]["text"] for part in parts)
            return ("text", text) if last == "[DONE]" else ("dropped", last)
    except httpx.TransportError as error:
        return "dropped", repr(error)


def client_of(url: str, n: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=n, max_keepalive_connections=n)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits)


async def alone(url: str, bodies: list[dict[str, Any]]) -> list[str]:
    """The text of each request when nothing else is asked."""
    async with client_of(url, 1) as client:
        answers = [await ask(client, body) for body in bodies]
    assert all(kind == "text" for kind, _ in answers), answers
    return [text for _, text in answers]


async def under_load(
    url: str, bodies: list[dict[str, Any]], expected: list[str], n_clients: int, seconds: float
) -> dict[str, Any]:
    """All clients at once for so many seconds, and until each has its last answer."""
    counts, latencies, characters = Counter[str](), [], 0
    begin = time.perf_counter()

    async def go_on(client: httpx.AsyncClient, number: int) -> None:
        nonlocal characters
        for turn in itertools.count(number * 7):
            if time.perf_counter() - begin >= seconds:
                return
            asked, which = time.perf_counter(), turn % len(bodies)
            kind, text = await ask(client, bodies[which])
            if kind == "text":
                latencies.append(time.perf_counter() - asked)
                characters += len(text)
                kind = "text" if text == expected[which] else "other text"
            counts[kind] += 1
            if kind == "429":
                await asyncio.sleep(float(text))

    async with client_of(url, n_clients) as client:
        await asyncio.gather(*(go_on(client, number) for number in range(n_clients)))
    took = time.perf_counter() - begin
    cuts = statistics.quantiles(latencies, n=20)
    return {
        "answers": counts["text"], "told_429": counts["429"], "with_5xx": counts["5xx"] + counts["refused"],
        "dropped": counts["dropped"], "other_texts": counts["other text"], "seconds": took,
        "characters_per_second": characters / took, "median_s": statistics.median(latencies), "p95_s": cuts[18],
    }  # fmt: skip


def measure(n_clients: int, seconds: float, shape: str) -> dict[str, Any]:
    """Three equal loads, and whether the claim holds."""
    with tempfile.TemporaryDirectory() as folder:
        trained = make_model(Path(folder) / "random", shape)
        bodies = list(itertools.islice(requests(trained), POOL))
        rows = []
        with served(Path(folder)) as (url, process):
            expected = asyncio.run(alone(f"{url}/", bodies))
            for number in range(1, LOADS + 1):
                row = asyncio.run(under_load(f"{url}/", bodies, expected, n_clients, seconds))
                what = f"{shape}, {n_clients} clients, load {number}"
                rows.append({"what": what, **row, "memory_mb": memory_mb("VmRSS", process)})
    growth = rows[-1]["memory_mb"] / rows[-2]["memory_mb"] - 1
    harm = ("with_5xx", "dropped", "other_texts")
    holds = growth <= GROWTH and not any(row[name] for row in rows for name in harm)
    return {**report(CLAIM, rows, LOADS), "clients": n_clients, "growth": growth, "holds": holds}


def main() -> None:
    """A table on stderr, JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--shape", default="4x128", help="layers x width")
    asked = parser.parse_args()
    found = measure(asked.clients, asked.seconds, asked.shape)
    table = Table(*(name.replace("_", " ") for name in found["results"][0]))
    for row in found["results"]:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(stderr=True, width=160).print(table)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

"""Claim: decoding on a CPU is faster than transformers, CTranslate2 and llama.cpp, with every probability shown.

    python -m benchmarks.decoding [--shapes 4x128 6x384] [--weights fp32 int8] [--at-once N] [--threads N]
                                 [--repeats N] [--minutes N]

Greedy, 16 + 128 tokens, one sequence and N at once (32; 0 is none), first token included. All have GPT-2's
architecture and the same weights, random ones: the speed does not depend on them. Each has a process of its own for
each form of its weights, and they take turns; CTranslate2 and llama.cpp (packages ctranslate2 and xllamacpp) are timed
where they are installed. The bound is the measured rate at which memory is read, divided by the bytes of the weights: a
small model that stays in the processor's cache may pass it. Within `--minutes` the turns are as many as fit, at most
`--repeats`; on a slow machine fewer tokens are written by a large shape. Compiling comes on top the first time: up to
half a minute for each of our ways, as many at once as there are cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from benchmarks.timing import FEWEST, Apart, alternate, as_dict, fewest_turns, ratio, report, serve, sharing
from benchmarks.training_speed import Case, transformers_model
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import decode, decode_many
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import chunked, describe
from windtunnel.generation.weights import with_weights
from windtunnel.models import build
from windtunnel.models.pretrained.gguf import gguf_files
from windtunnel.text.tokenizers import bytes_tokenizer, characters_tokenizer
from windtunnel.training import machine

CLAIM = "decoding one sequence, with its probabilities and 6 alternatives, is faster than rivals with weights alike"
CASES = {
    "4x128": Case(4, 128, 4, 1, 256, in_one_turn=5),
    "6x384": Case(6, 384, 6, 1, 256, 5000),
    "124M": Case(12, 768, 12, 1, 1024, 50257),
}
PROMPT, NEW, FEWEST_NEW = 16, 128, 16
TURNS_SHARE, PEAK_SHARE = 0.5, 0.3
"""Of a shape's time so much is for turns, and many sequences at once are thought to reach this part of the peak."""
GREEDY = SamplingConfig(temperature=0)
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
ALPHABET = characters_tokenizer("".join(chr(c) for c in range(32, 97)), end=False)
"""Only shows tokens in traces; ids above its own are shown as unused."""
BYTES_TOKENIZER = bytes_tokenizer(end=True)
OURS, TRANSFORMERS = "windtunnel", "transformers"
CTRANSLATE2 = {"fp32": "float32", "int8": "int8"}
"""Its names of our kinds of weights; on a CPU it has no bfloat16."""
Ways = dict[str, Callable[[], object]]
"""What an engine writes in how many ways, by name."""


def read_rate() -> float:
    """Bytes a second that this process reads from memory: the best of several sums over 512 MB."""
    numbers, best = torch.ones(2**27), float("inf")
    for _ in range(7):
        begin = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - begin)
    return numbers.nbytes / best


def transformers_ways(case: Case, prompt: list[int], many: int, new: int) -> Ways:
    """transformers', with its cache, in float32."""
    model: Any = transformers_model(case).eval()
    model.config.use_cache = True
    model.generation_config.eos_token_id = None
    write = partial(transformers_write, model, prompt, new)
    return {TRANSFORMERS: write, f"{TRANSFORMERS}, {many} at once": partial(write, many)}


def transformers_write(model: Any, prompt: list[int], n_tokens: int, copies: int = 1) -> list[int]:
    """The tokens that a model of transformers writes greedily, with its cache, for so many copies of the prompt."""
    ids = torch.tensor([prompt] * copies)
    settings = {"max_new_tokens": n_tokens, "min_new_tokens": n_tokens, "do_sample": False, "use_cache": True}
    with torch.no_grad():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)
    return made[0, len(prompt) :].tolist()


def our_ways(case: Case, prompt: list[int], kind: str, many: int, new: int) -> Ways:
    """Ours with one kind of weights, compiled before the clock starts, in a process that keeps its memory."""
    machine.keep_memory()
    model = build(case.config, seed=0).eval()
    decoder = model if kind == "fp32" else with_weights(model, kind)
    compiled = Steps(decoder, compile=True)

    def write(steps: Steps | None) -> list[int]:
        return [one.id for one in decode(decoder, prompt, new, GREEDY, 0, steps=steps)]

    def traced() -> None:
        for some in chunked(decode(decoder, prompt, new, GREEDY, 0, steps=compiled)):
            list(describe(ALPHABET, some, 6))

    ways: Ways = {kind: partial(write, compiled), f"{kind}, traced": traced}
    if kind == "fp32":
        ways["fp32, eager"] = partial(write, None)

    def at_once() -> None:
        for _ in decode_many(decoder, prompt, new, GREEDY, range(many), steps=compiled):
            pass  # kept, the logits of all tokens would be gigabytes

    ways[f"{kind}, {many} at once"] = at_once
    return ways


def ctranslate2_ways(case: Case, prompt: list[int], kind: str, many: int, new: int, folder: str) -> Ways:
    """CTranslate2's, on the same weights; its tokens are called t0, t1, ..."""
    import ctranslate2

    words = {f"t{i}": i for i in range(case.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="t0"))
    special = {"unk_token": "t0", "bos_token": "t0", "eos_token": "t0"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(f"{folder}/hf")
    transformers_model(case).save_pretrained(f"{folder}/hf")
    ctranslate2.converters.TransformersConverter(f"{folder}/hf").convert(f"{folder}/ct2")
    generator = ctranslate2.Generator(
        f"{folder}/ct2", compute_type=CTRANSLATE2[kind], intra_threads=torch.get_num_threads(), inter_threads=1
    )
    start = [f"t{i}" for i in prompt]

    def write(copies: int) -> None:
        made = generator.generate_batch(
            [start] * copies, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False
        )
        if any(len(result.sequences_ids[0]) != new for result in made):
            raise RuntimeError(f"CTranslate2 wrote {len(made[0].sequences_ids[0])} tokens instead of {new}")

    return {f"CTranslate2 {kind}": partial(write, 1), f"CTranslate2 {kind}, {many} at once": partial(write, many)}


def llama_cpp_ways(case: Case, prompt: list[int], kind: str, new: int, folder: str) -> Ways:
    """llama.cpp's, on the same weights, its matrices stored as `kind` (Q8_0 for int8).

    It needs a tokenizer, and the smallest it takes is one of bytes.
    """
    import xllamacpp
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    stored = {"bf16": GGMLQuantizationType.BF16, "int8": GGMLQuantizationType.Q8_0}
    plain = GGUFWriter.add_tensor

    def add_tensor(self: GGUFWriter, name: str, tensor: Any) -> None:
        if kind in stored and tensor.ndim == 2 and "position" not in name:
            plain(self, name, quants.quantize(tensor, stored[kind]), raw_dtype=stored[kind])
        else:
            plain(self, name, tensor)

    with patch.object(GGUFWriter, "add_tensor", add_tensor):
        files = gguf_files(case.config, build(case.config, seed=0).state_dict(), BYTES_TOKENIZER).files
    path = Path(folder) / f"{kind}.gguf"
    path.write_bytes(files["model.gguf"])
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel, settings.verbosity = str(path), 256, 1, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    wish = {"prompt": prompt, "n_predict": new, "ignore_eos": True, "temperature": 0, "cache_prompt": False}
    server = xllamacpp.Server(settings)

    def write() -> None:
        if (made := server.handle_completions(wish)["usage"]["completion_tokens"]) != new:
            raise RuntimeError(f"llama.cpp wrote {made} tokens instead of {new}")

    return {f"llama.cpp {kind}": write}


def engines(case: Case, kinds: list[str]) -> list[str]:
    """The processes that take part: an engine and a kind of its weights."""
    names = [TRANSFORMERS, *(f"{OURS} {kind}" for kind in kinds)]
    if find_spec("ctranslate2"):
        names += [f"CTranslate2 {kind}" for kind in kinds if kind in CTRANSLATE2]
    if find_spec("xllamacpp") and find_spec("gguf") and case.vocab_size >= BYTES_TOKENIZER.vocab_size:
        names += [f"llama.cpp {kind}" for kind in kinds]
    return names


def serve_ways(case: Case, engine: str, many: int, new: int) -> None:
    """What the process of an engine does: each way once, to warm up, then each as often as told.

    It greets with its ways and what the first of them writes.
    """
    prompt = np.random.default_rng(0).integers(1, case.vocab_size, PROMPT).tolist()
    name, _, kind = engine.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        if name == TRANSFORMERS:
            ways = transformers_ways(case, prompt, many, new)
        elif name == OURS:
            ways = our_ways(case, prompt, kind, many, new)
        elif name == "CTranslate2":
            ways = ctranslate2_ways(case, prompt, kind, many, new, folder)
        else:
            ways = llama_cpp_ways(case, prompt, kind, new, folder)

        def answer(way: str) -> None:
            for _ in range(case.in_one_turn):
                ways[way]()

        ways = {name: way for name, way in ways.items() if many > 0 or "at once" not in name}
        wrote = [way() for way in ways.values()]
        serve({"ways": list(ways), "writes": wrote[0]}, answer)


def start(running: ExitStack, name: str, kinds: list[str], many: int, new: int) -> dict[str, Apart]:
    """The processes of all engines, of which as many get ready at once as there are cores."""
    words = ["--threads", str(torch.get_num_threads()), "--at-once", str(many), "--tokens", str(new), "--serve", name]
    processes, names = {}, engines(CASES[name], kinds)
    for first in range(0, len(names), machine.cores()):
        some = names[first : first + machine.cores()]
        processes |= {engine: running.enter_context(Apart("decoding", *words, engine, wait=False)) for engine in some}
        for engine in some:
            processes[engine].greeting  # noqa: B018
    return processes


def fitting(case: Case, kinds: list[str], rate: float, many: int, seconds: float) -> int:
    """How many tokens are written: 128, halved until the fewest turns are made in this time."""
    n, alone = case.config.n_parameters(), 3 * len(kinds) + len(engines(case, kinds))
    flops = 2 * n * many * (len(kinds) + len(engines(case, kinds)))
    flops_per_second = PEAK_SHARE * machine.peak_flops("fp32", torch.get_num_threads())
    a_token = case.in_one_turn * (alone * n * BYTES["fp32"] / rate + flops / flops_per_second)
    new = NEW
    while new > FEWEST_NEW and (1 + FEWEST) * new * a_token > TURNS_SHARE * seconds:
        new //= 2
    return new


def compare(name: str, kinds: list[str], repeats: int, rate: float, many: int, seconds: float) -> dict[str, object]:
    case, until = CASES[name], time.perf_counter() + seconds
    new = fitting(case, kinds, rate, many, seconds)
    with ExitStack() as running:
        processes = start(running, name, kinds, many, new)
        print(f"{name}: {new} tokens, {until - time.perf_counter():.0f} s are left for turns", file=sys.stderr)
        writes = {engine: process.greeting["writes"] for engine, process in processes.items()}
        if writes.get(f"{OURS} fp32", writes[TRANSFORMERS]) != writes[TRANSFORMERS]:
            raise RuntimeError("the two models do not write the same tokens")
        ways: Ways = {way: partial(process, way) for process in processes.values() for way in process.greeting["ways"]}
        taken = alternate(ways, repeats, warmup=0, until=until)
    return summary(name, kinds, taken, rate, many, new)


def summary(
    name: str, kinds: list[str], seconds: dict[str, list[float]], rate: float, many: int, new: int
) -> dict[str, object]:
    """Tokens a second, their bounds, and our times over the rivals'."""
    case = CASES[name]
    seconds = {way: [value / case.in_one_turn for value in values] for way, values in seconds.items()}
    tokens = {way: new * (many if "at once" in way else 1) / float(np.median(taken)) for way, taken in seconds.items()}
    model = build(case.config, seed=0)
    n_read = sum(p.numel() for n, p in model.named_parameters() if "position" not in n)
    bound = {way: rate / (n_read * BYTES[way[:4]]) for way in tokens if way[:4] in BYTES and "at once" not in way}
    pairs = [(way, rival) for way in tokens for rival in tokens if alike(way, rival)]
    pairs += [(f"{kind}, traced", kind) for kind in kinds]
    return {
        "shape": name,
        "new_tokens": new,
        "tokens_per_second": tokens,
        "bound": bound,
        **as_dict(seconds, *(ratio(seconds, *pair) for pair in pairs)),
    }


def alike(way: str, rival: str) -> bool:
    """Whether our way is to be compared with a rival's: as many sequences, and transformers or weights of one kind."""
    kind = way[:4]
    if kind not in BYTES or rival[:4] in BYTES or "eager" in way:
        return False
    return ("at once" in way) == ("at once" in rival) and (rival.startswith("transformers") or f" {kind}" in rival)


def table(results: list[dict[str, object]]) -> Table:
    shown = Table(
        "shape", "how", "tokens/s", "share of the memory's bound", title="decoding one sequence, and many at once"
    )
    for result in results:
        for way, tokens in result["tokens_per_second"].items():
            share = f"{tokens / result['bound'][way]:.0%}" if way in result["bound"] else ""
            shown.add_row(f"{result['shape']}, {PROMPT} + {result['new_tokens']}", way, f"{tokens:,.0f}", share)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--weights", nargs="+", choices=list(BYTES), default=list(BYTES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--at-once", type=int, default=32, help="sequences at once; 0 is one alone and nothing else")
    parser.add_argument("--minutes", type=float, default=7.0, help="for all shapes together, about")
    parser.add_argument("--tokens", type=int, default=NEW, help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.serve:
        serve_ways(CASES[given.serve[0]], given.serve[1], given.at_once, given.tokens)
        return
    rate = read_rate()
    results = [
        compare(name, given.weights, given.repeats, rate, given.at_once, seconds)
        for name, seconds in sharing(given.shapes, given.minutes)
    ]
    Console(file=sys.stderr).print(table(results))
    document = report(CLAIM, results, fewest_turns(results))
    document["read_bytes_per_second"] = rate
    traced = [found for result in results for found in result["ratios"] if "traced" in found["of"]]
    document["holds"] = all(found["high"] < 1 for found in traced if found["to"] not in BYTES)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()

"""Alter every kind of file that is read, and have a command read it: `python scripts/attack.py files`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attack_forked import Said, forked, small
from stress_kill import result  # beside this script

from windtunnel import cli, files
from windtunnel.comparison import compare as comparing
from windtunnel.comparison.judging import conclude
from windtunnel.comparison.plan import comparison_folder, make_plan
from windtunnel.errors import WindtunnelError
from windtunnel.runs.arms import arm_from_file, resolve_arms, vary
from windtunnel.runs.measure import measure
from windtunnel.runs.seeds import create_seeds
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training import disk, loop
from windtunnel.training.events import Stopped
from windtunnel.training.exports import export_run
from windtunnel.training.imports import import_run

LEARNING_RATES = ["optimizer.lr=1e-3,1e-2"]


def command(*words: str) -> dict[str, Any]:
    """The JSON that a windtunnel command prints; what it says beside it goes on to stderr."""
    out = io.StringIO()
    sys.argv = ["windtunnel", *words, "--json"]
    code: object = 0
    with contextlib.redirect_stdout(out):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    if not out.getvalue():
        raise SystemExit(code)
    found = dict(json.loads(out.getvalue()))
    print(found.get("warnings"), found.get("damaged"), file=sys.stderr)
    return found


def evaluated() -> object:
    """Both seeds on the dev split."""
    return {name: value for name, value in command("evaluate", "out").items() if name in ("loss", "seeds")}


def summarised() -> object:
    """What `resume` says of runs that are finished; in a process of its own it would train those that are not."""
    for seed in (0, 1):
        list(loop.resume(Path(f"runs/out/seed-{seed}")))
    return [result(Path(f"runs/out/seed-{seed}")) for seed in (0, 1)]


def plan_of(root: Path) -> Any:
    """Two arms, three seeds, with a budget of seconds."""
    return make_plan(vary(small(root), LEARNING_RATES), 3, budget=("seconds", 0.02), root=Path("runs"))


def compared() -> object:
    """Losses, verdict and notes of a comparison."""
    found = conclude(plan_of(Path("..")))
    print(found.notes, file=sys.stderr)
    arms = [[(run.seed, run.loss, run.reason) for run in arm.seeds] for arm in found.arms]
    return [arms, [judgement.sentence for judgement in found.judgements]]


def settings_read() -> object:
    """An arm's settings from a file of each kind."""
    base = small(Path(".."))
    return [arm_from_file(base, f"a=settings.{kind}").config.model_dump(mode="json") for kind in ("toml", "json")]


def tokenizer_read() -> object:
    """The ids of a text, by a tokenizer.json and by GPT-2's two files."""
    return [Tokenizer.load(path).encode("abcjihg").tolist() for path in ("given/tokenizer.json", "gpt2")]


def imported() -> object:
    """A model of Hugging Face's as a run."""
    run = import_run(Path("hf"), Path("runs/imported/seed-0")).run
    return run.config.model_dump(mode="json")


READERS: dict[str, tuple[str, tuple[Callable[[], object], ...]]] = {
    "runs of a seed": ("runs/out/**/*", (evaluated, summarised)),
    "runs of arms": ("runs/names-*/**/*", (compared,)),
    "comparison": ("runs/compare-*/*", (compared,)),
    "token store": ("cache/tokens/**/*", (evaluated, summarised, compared)),
    "settings": ("settings.*", (settings_read,)),
    "tokenizers": ("g[ip]*/*", (tokenizer_read,)),
    "model of others": ("hf/*", (imported,)),
    "corpus": ("names.txt", (evaluated,)),
}
"""Kind of file -> where it is, and what reads it."""
UNGUARDED = ("settings", "tokenizers", "model of others")


def make_world(work: Path) -> None:
    """Runs, a comparison, a token store, and what users bring."""
    os.environ["WINDTUNNEL_CACHE"] = str(work / "live/cache")
    (work / "live").mkdir()
    os.chdir(work / "live")
    for folder in create_seeds(small(work), [0, 1], Path("runs/out")):
        list(loop.resume(folder))
        measure(folder)
    arms = resolve_arms(vary(small(work), LEARNING_RATES))
    pace = comparison_folder(arms, Path("runs")) / "pace.json"
    pace.parent.mkdir()
    pace.write_bytes(disk.sealed({"seconds": {arm.key: 0.002 for arm in arms}}))  # or a busy machine had other steps
    plan = plan_of(work)
    with contextlib.closing(comparing.train_arms(plan, InTurn())) as events:  # type: ignore[arg-type]
        list(events)
    comparing.save_comparison(conclude(plan))
    Path("settings.toml").write_text('[optimizer]\nlr = 0.01\n[model]\nposition = "rope"\n')
    Path("settings.json").write_text('{"optimizer": {"lr": 0.01}, "train": {"clip": null}}')
    Path("given").mkdir()
    shutil.copyfile("runs/out/seed-0/tokenizer.json", "given/tokenizer.json")
    Path("gpt2").mkdir()
    letters = {chr(letter): place for place, letter in enumerate(range(33, 127))}
    Path("gpt2/vocab.json").write_text(json.dumps(letters | {"Ġ": 94, "ab": 95, "<|endoftext|>": 96}))
    Path("gpt2/merges.txt").write_text("#version: 0.2\na b\n")
    with contextlib.suppress(WindtunnelError):
        export_run(Path("runs/out/seed-0"), Path("hf"), "hf")


class InTurn:
    """An executor that trains in this process."""

    def submit(self, _: object, folders: list[str], *rest: object) -> Any:
        """One run after the other."""
        from concurrent.futures import Future

        done: Future[list[Stopped]] = Future()
        for folder in map(Path, folders):
            list(loop.resume(folder))
            measure(folder)
        done.set_result([Stopped(0, "finished") for _ in folders])
        return done


def swap_types(data: bytes, draw: random.Random) -> bytes:
    """JSON with another type in the place of one value; of JSON lines, in one line."""
    lines = data.splitlines(keepends=True)
    place = draw.randrange(len(lines)) if lines else 0
    for cut in ((0, len(lines)), (place, place + 1)):
        try:
            tree = json.loads(b"".join(lines[slice(*cut)]))
        except (ValueError, UnicodeDecodeError):
            continue
        node, key = {"": tree}, ""
        while isinstance(node[key], dict | list) and node[key] and draw.random() < 0.9:  # type: ignore[index]
            node = node[key]  # type: ignore[index, assignment]
            key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))  # type: ignore[assignment]
        node[key] = draw.choice([None, True, -1, 1e308, 10**40, "x", [], {}, [[]], "\ud800"])  # type: ignore[index]
        return b"".join([*lines[: cut[0]], json.dumps(tree).encode() + b"\n", *lines[cut[1] :]])
    return bytes(len(data))


def flip(data: bytes, draw: random.Random) -> bytes:
    """One to three flipped bits."""
    altered = bytearray(data or b"\0")
    for _ in range(draw.randint(1, 3)):
        altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
    return bytes(altered)


def replaced(path: Path, put: Callable[[Path], object]) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    put(path)


def linked_copy(path: Path) -> None:
    """Put a link to a copy in the place of a file."""
    copy = Path(shutil.copyfile(path, "../outside"))
    replaced(path, lambda place: place.symlink_to(copy.resolve()))


MUTATIONS: dict[str, Callable[[Path, random.Random], object]] = {
    "bits": lambda path, draw: path.write_bytes(flip(path.read_bytes(), draw)),
    "cut": lambda path, draw: os.truncate(path, draw.randrange(max(1, path.stat().st_size))),
    "zeros": lambda path, draw: path.write_bytes(bytes(path.stat().st_size)),
    "types": lambda path, draw: path.write_bytes(swap_types(path.read_bytes(), draw)),
    "deep": lambda path, draw: path.write_bytes(b"[" * 100_000),
    "longer": lambda path, draw: path.write_bytes(path.read_bytes() + draw.randbytes(draw.randint(1, 40))),
    "empty": lambda path, draw: path.write_bytes(b""),
    "huge": lambda path, draw: os.truncate(path, 40 << 30),
    "missing": lambda path, draw: path.unlink(),
    "folder": lambda path, draw: replaced(path, Path.mkdir),
    "pipe": lambda path, draw: replaced(path, os.mkfifo),
    "zero device": lambda path, draw: replaced(path, lambda place: place.symlink_to("/dev/zero")),
    "lost link": lambda path, draw: replaced(path, lambda place: place.symlink_to(place.name)),
    "link to a copy": lambda path, draw: linked_copy(path),
}
OFTEN = ("bits", "cut", "types", "longer")


def attack_files(mutations: int, draw: random.Random, work: Path) -> dict[str, Any]:
    """Alter a file, have a command read it, and judge what it says."""
    make_world(work)
    for reader in {reader for _, readers in READERS.values() for reader in readers}:
        reader()  # so that all is imported before the forks
    shutil.rmtree("runs/imported")
    shutil.copytree("../live", "../pristine", symlinks=True)
    expected = {reader: forked(reader) for _, readers in READERS.values() for reader in readers}
    broken = [f"{reader.__name__}: {said}" for reader, said in expected.items() if said.how != "value"]
    ends: Counter[str] = Counter()
    for number in range(mutations if not broken else 0):
        kind = list(READERS)[number % len(READERS)]
        pattern, readers = READERS[kind]
        found = sorted(path for path in (Path("..") if kind == "corpus" else Path()).glob(pattern) if path.is_file())
        if not found:
            continue
        path, reader = draw.choice(found), draw.choice(readers)
        how = draw.choice([*MUTATIONS, *OFTEN, *OFTEN])
        original = path.read_bytes() if kind == "corpus" else b""
        MUTATIONS[how](path, draw)
        said = forked(reader)
        word = judged(said, expected[reader], path, kind in UNGUARDED)
        ends[word] += 1
        if number % 100 == 99:
            print(number + 1, dict(ends), file=sys.stderr, flush=True)
        if word.isupper():
            told = f"{said.how} {said.value[-700:]} {said.text[-300:]}"
            broken.append(f"{number}: {how} of {path}, {reader.__name__}: {told}")
        if kind == "corpus":
            files.delete(path)
            path.write_bytes(original)
        os.chdir(work)
        shutil.rmtree("live")
        shutil.copytree("pristine", "live", symlinks=True)
        os.chdir("live")
    return {"mutations": sum(ends.values()), "ends": dict(ends), "broken": broken}


def judged(said: Said, expected: Said, path: Path, unguarded: bool) -> str:
    """A word for what a command said; in capitals when it must not be."""
    if said.how != "value":
        return said.how if said.how == "error" else said.how.upper()
    if said.value == expected.value:
        return "the same, and said" if path.name in said.text else "the same"
    named = any(part in said.text for part in (path.name, "/".join(path.parts[:3])))  # the file, or its run
    return "others, and said" if named else "others" if unguarded else "ANOTHER NUMBER"

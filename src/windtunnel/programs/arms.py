"""What is judged: commands and results by name, how they are measured, and the rule; as a record that TOML can hold."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from windtunnel.comparison.verdict import FEWEST_SEEDS, Correction
from windtunnel.config import Config, parse
from windtunnel.errors import ConfigError
from windtunnel.programs.metrics import MetricSource
from windtunnel.training.disk import read_sealed

ARM = "arm.json"
SOURCES = frozenset(
    [
        ".py",
        ".ipynb",
        ".sh",
        ".bash",
        ".zsh",
        ".pl",
        ".r",
        ".R",
        ".jl",
        ".lua",
        ".js",
        ".ts",
        ".c",
        ".cc",
        ".cpp",
        ".cu",
        ".go",
        ".rs",
        ".java",
        ".toml",
        ".yaml",
        ".yml",
        ".json",
        ".cfg",
        ".ini",
        ".conf",
        ".gin",
    ]
)
"""Endings of files that are a part of an arm when its command names them; others may be what it writes."""


class JudgePlan(Config):
    """Everything that `windtunnel judge` is asked; its options and plan.toml have the same names.

    arms: shell commands by name, with {seed}; {out} is a folder of the run's own, {here} that in which it was asked.
    results: files or folders by name that hold finished runs. pair: what tells their seed.
    metrics: the first decides. seeds: with until_decided, max_seeds takes their place.
    repeat: runs of each arm at each seed, which tell the noise at one seed from that between seeds.
    margin: the share of the baseline's score below which a difference does not matter; margin_in_units overrides it.
    time_limit: seconds a run. output_limit: megabytes of a run's output that are kept.
    own_folder: whether every run works in an empty folder of its own, {out}. track: files whose content is part of an
        arm, beside those that its command names.
    """

    arms: dict[str, str] = Field(default_factory=dict)
    results: dict[str, str] = Field(default_factory=dict)
    metrics: Annotated[tuple[MetricSource, ...], Field(min_length=1)]
    baseline: str | None = None
    baseline_from: str | None = None
    pair: str = "seed"
    seeds: PositiveInt = 6
    first_seed: NonNegativeInt = 0
    until_decided: bool = False
    max_seeds: PositiveInt = 16
    repeat: PositiveInt = 1
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.005
    margin_in_units: Annotated[float, Field(gt=0)] | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    correction: Correction = "holm"
    jobs: PositiveInt = 1
    time_limit: Annotated[float, Field(gt=0)] | None = None
    output_limit: Annotated[float, Field(gt=0)] = 16.0
    own_folder: bool = False
    track: tuple[str, ...] = ()

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds; the most there may be with until_decided."""
        n = self.max_seeds if self.until_decided else self.seeds
        return tuple(range(self.first_seed, self.first_seed + n))

    @property
    def looks(self) -> tuple[int, ...] | None:
        """After which numbers of seeds the verdict may be taken."""
        return tuple(range(FEWEST_SEEDS, self.max_seeds + 1)) if self.until_decided else None


@dataclass(frozen=True)
class ProgramArm:
    """A command that is an arm: its runs lie in `folder`, which its name, command and tracked files decide.

    runs: whether it may be run; those of `--baseline-from` are only read.
    """

    name: str
    command: str
    tracked: Mapping[str, str]
    own_folder: bool
    cwd: str
    folder: Path
    runs: bool = True

    @property
    def key(self) -> str:
        """SHA-256 of what its runs depend on, as far as it is known."""
        return _key(self.command, self.tracked, self.own_folder, self.cwd)

    def facts(self) -> dict[str, Any]:
        """What `arm.json` holds."""
        told = {"name": self.name, "command": self.command, "tracked": dict(self.tracked)}
        return {**told, "own_folder": self.own_folder, "cwd": self.cwd, "key": self.key}

    def place(self, seed: int, repeat: int = 0) -> Path:
        """The folder of a run."""
        return self.folder / (f"seed-{seed}" + (f"-repeat-{repeat}" if repeat else ""))

    def at(self, seed: int, out: Path) -> str:
        """The command of a run."""
        places = {"{seed}": str(seed), "{out}": shlex.quote(str(out.absolute())), "{here}": shlex.quote(self.cwd)}
        return re.sub("{seed}|{out}|{here}", lambda match: places[match.group()], self.command)


def make_plan(data: Mapping[str, Any]) -> JudgePlan:
    """Check what was asked.

    Raises:
        ConfigError: for arms that cannot be compared and for a rule that can decide nothing.
    """
    plan = parse(JudgePlan, data)
    names = [*plan.arms, *plan.results]
    if len(set(names)) < len(names):
        raise ConfigError(f"arms need names of their own, given {', '.join(names)}")
    if len(names) + (plan.baseline_from is not None) < 2:
        raise ConfigError("a comparison needs two arms: --arm NAME=COMMAND or --results NAME=PATH, twice or more")
    for name, command in plan.arms.items():
        if "{seed}" not in command:
            raise ConfigError(
                f"the command of {name} does not contain {{seed}}, so all of its runs would be the same: pass the seed "
                "on, as in `python train.py --seed {seed}` or `SEED={seed} python train.py`"
            )
    if plan.baseline_from and plan.baseline:
        raise ConfigError("--baseline-from gives the baseline, and --baseline names another: leave one of them out")
    if plan.until_decided and plan.max_seeds < FEWEST_SEEDS:
        raise ConfigError(f"--until-decided needs --max-seeds of at least {FEWEST_SEEDS}, given {plan.max_seeds}")
    if plan.until_decided and plan.correction == "dunnett":
        raise ConfigError("Dunnett's correction is for one look at the end; with --until-decided use holm")
    if plan.baseline is not None and plan.baseline not in names:
        raise ConfigError(f"there is no arm {plan.baseline!r} to be the baseline; there are {', '.join(names)}")
    return plan


def program_arms(plan: JudgePlan, root: Path) -> list[ProgramArm]:
    """The commands of a plan, and the baseline of another where it is taken from there."""
    asked = [_arm(name, command, plan, root) for name, command in plan.arms.items()]
    if plan.baseline_from is None:
        return asked
    base = read_arm(Path(plan.baseline_from))
    if base.name in {*plan.arms, *plan.results}:  # as in a loop that calls each change the same
        base = replace(base, name="baseline")
    if base.name in {*plan.arms, *plan.results}:
        raise ConfigError(f"the baseline of {base.folder} needs a name of its own: call the others otherwise")
    if twin := next((arm for arm in asked if arm.key == base.key), None):
        raise ConfigError(f"{twin.name} is the very arm whose runs lie in {base.folder}: there is nothing to compare")
    return [base, *asked]


def _arm(name: str, command: str, plan: JudgePlan, root: Path) -> ProgramArm:
    tracked, cwd = _hashes(command, plan.track), str(Path.cwd())
    key = _key(command, tracked, plan.own_folder, cwd)
    label = "".join(c if c.isalnum() or c in "._=+-" else "-" for c in name).strip(".-") or "arm"
    return ProgramArm(name, command, tracked, plan.own_folder, cwd, root / f"arm-{label[:40]}-{key[:8]}")


def read_arm(folder: Path) -> ProgramArm:
    """The arm whose runs lie in a folder. Raises ConfigError when it is none."""
    try:
        facts = read_sealed(folder / ARM)
    except (FileNotFoundError, NotADirectoryError):
        near = sorted({str(path.parent) for path in folder.glob(f"*/{ARM}")})
        hint = f"; inside it are {', '.join(near)}" if near else ", as `windtunnel judge` leaves one for each arm"
        raise ConfigError(f"{folder} holds no runs of an arm: expected a folder with {ARM}{hint}") from None
    own = {name: facts[name] for name in ("name", "command", "tracked", "own_folder", "cwd")}
    return ProgramArm(**own, folder=folder, runs=False)


def _key(command: str, tracked: Mapping[str, str], own_folder: bool, cwd: str) -> str:
    told = json.dumps([command, sorted(tracked.items()), own_folder, cwd])
    return hashlib.sha256(told.encode()).hexdigest()


def changed_files(arm: ProgramArm) -> tuple[str, ...]:
    """The files that are a part of an arm and are not any more what they were when this command began."""
    there = [name for name in arm.tracked if arm.runs and Path(name).is_file()]
    return tuple(name for name in there if _sha256(Path(name)) != arm.tracked[name])


def _hashes(command: str, track: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the files that the command names, and of those that are tracked."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the command {command!r} cannot be read ({error}): close its quotes") from None
    words = [word.replace("{here}/", "") for word in words]
    named = [Path(word) for word in words if "{" not in word and "\0" not in word and len(word) < 4096]
    found = {str(path): path for path in named if path.suffix in SOURCES and path.is_file()}
    for given in track:
        path = Path(given)
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not path.exists():
            raise ConfigError(f"--track {given}: there is no such file or folder")
        found.update({str(one): one for one in inside})
    return {name: _sha256(path) for name, path in sorted(found.items())}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}), and it is part of an arm") from None


def git_state(cwd: Path) -> str:
    """`3f2a91c40b7d` with `, changed 8ab20c11` when the tree differs from the commit; nothing outside of git."""

    def git(*words: str) -> bytes | None:
        try:
            done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return ""
    changed = git("diff", "HEAD", "--binary") or b""
    known = commit.decode().strip()[:12]
    return f"{known}, changed {hashlib.sha256(changed).hexdigest()[:8]}" if changed else known

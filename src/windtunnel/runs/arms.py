"""The design of a comparison: arms, which are run configs, that share corpus, held-out documents, seeds and budget."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windtunnel.config import differences, fingerprint, lay_over, override, read_settings
from windtunnel.errors import ConfigError, DataError
from windtunnel.models import Model
from windtunnel.tasks import Task
from windtunnel.text.store import TokenStore
from windtunnel.training.change import Change, Named, Trial, read_change, set_up
from windtunnel.training.data import open_store, open_task
from windtunnel.training.run import initial_model
from windtunnel.training.run_config import RunConfig
from windtunnel.training.step_cost import changed_cost, step_cost
from windtunnel.training.trial import resolve_changed

MOST_ARMS = 64


@dataclass(frozen=True)
class Arm:
    """One way to train, with a name.

    change: a function at the top level of a file, or `FILE:FUNCTION`, that alters what is trained with; see
        `windtunnel.training.change`.
    """

    name: str
    config: RunConfig
    change: Named | None = None


@dataclass(frozen=True)
class ResolvedArm:
    """An arm with everything decided, its corpus as tokens, and what was seen when its change was tried."""

    name: str
    config: RunConfig
    store: TokenStore
    trial: Trial | None = None

    @property
    def change(self) -> Change | None:
        """What is altered in Python."""
        return self.trial.change if self.trial else None

    @property
    def n_parameters(self) -> int:
        """Of its model."""
        return self.trial.n_parameters if self.trial else self.config.model.n_parameters()

    def step_cost(self) -> tuple[float, float]:
        """Tokens and FLOPs of a step, as `windtunnel.training.step_cost` counts them; NaN is not known."""
        return changed_cost(step_cost(self.config, self.store, self.task), self.trial.facts() if self.trial else None)

    def first_model(self) -> Model:
        """The model as training with the config's own seed begins."""
        model = initial_model(self.config)
        return set_up(self.change, self.config, self.task, model).model if self.change else model

    @property
    def key(self) -> str:
        """SHA-256 of all that makes it what it is, without the seed."""
        return fingerprint(self.config, exclude=["seed"])

    @property
    def task(self) -> Task:
        """What its runs learn."""
        return open_task(self.config, self.store)


def vary(base: RunConfig, variations: Iterable[str], zipped: bool = False) -> list[Arm]:
    """The arms of variations such as `model.position=learned,rope`: their grid, or one by one in parallel.

    Values that hold a comma stand between semicolons: `corpus=a.txt:0.7,b.txt:0.3;a.txt:0.5,b.txt:0.5`.

    An arm is named by what makes it: `position=rope, lr=0.001`.

    Raises:
        ConfigError: for an unknown setting or a wrong value, lists of different lengths, or too large a grid.
    """
    return grid(base, [_axis(variation) for variation in variations], zipped)


def grid(base: RunConfig, axes: Sequence[tuple[str, Sequence[str]]], zipped: bool = False) -> list[Arm]:
    """The arms of (path, its values as `override` takes them); as `vary`, which reads them from one text each."""
    lengths = [len(values) for _, values in axes]
    if zipped and len(set(lengths)) > 1:
        raise ConfigError(f"--zip needs lists of one length, given {lengths} values")
    size = lengths[0] if zipped and lengths else math.prod(lengths)
    if size > MOST_ARMS:
        raise ConfigError(
            f"the grid has {size:,} arms, {' x '.join(map(str, lengths))}; at most {MOST_ARMS} are compared at once: "
            "vary fewer settings, or use --zip"
        )
    chosen = zip(*(v for _, v in axes), strict=True) if zipped else itertools.product(*(v for _, v in axes))
    paths = [path for path, _ in axes]
    leaves = [path.rsplit(".", 1)[-1] for path in paths]
    short = [leaf if leaves.count(leaf) == 1 else path for leaf, path in zip(leaves, paths, strict=True)]
    return [
        Arm(
            ", ".join(f"{name}={value}" for name, value in zip(short, values, strict=True)),
            override(base, [f"{path}={value}" for path, value in zip(paths, values, strict=True)]),
        )
        for values in chosen
        if values
    ]


def arm_from_file(base: RunConfig, named: str) -> Arm:
    """The arm of `NAME=FILE`, the settings of a .json or .toml file laid over the base, or of `NAME=FILE.py:FUNCTION`.

    Raises:
        ConfigError: when it cannot be read, or says something that is not a setting.
    """
    name, separator, path = named.partition("=")
    if not (name and separator and path):
        raise ConfigError(
            f"--arm {named!r}: expected NAME=FILE, the file with settings in .json or .toml, or NAME=FILE.py:FUNCTION"
        )
    if path.rpartition(":")[0].endswith(".py"):
        return Arm(name, base, read_change(path))
    if path.endswith(".py"):
        raise ConfigError(f"--arm {named!r}: which function of {path}? expected {name}={path}:FUNCTION")
    data = read_settings(Path(path))
    try:
        return Arm(name, lay_over(base, data))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def resolve_grid(arms: Sequence[Arm]) -> list[ResolvedArm]:
    """The arms with everything decided, in their order.

    Raises:
        ConfigError: for no arms or too many, equal names or configs, or a config that cannot be trained.
        DataError: for a corpus that is too small.
    """
    if not 1 <= len(arms) <= MOST_ARMS:
        raise ConfigError(f"from 1 to {MOST_ARMS} arms are trained at once, given {len(arms):,}")
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two arms are named {name!r}; every arm needs a name of its own")
    stores: dict[str, TokenStore] = {}
    resolved = [_resolve(arm, stores) for arm in arms]
    for a, b in itertools.combinations(resolved, 2):
        if a.key == b.key and a.store.sha256 == b.store.sha256:
            raise ConfigError(f"arms {a.name} and {b.name} are the same run: no setting differs between them")
    return resolved


def resolve_arms(arms: Sequence[Arm], baseline: str | None = None) -> list[ResolvedArm]:
    """The arms of a comparison with everything decided, the baseline first.

    Raises:
        ConfigError: for fewer than two arms, an unknown baseline, what `resolve_grid` refuses, or an arm that cannot
            be judged on the same held-out documents as the baseline.
        DataError: when nothing is held out.
    """
    names = [arm.name for arm in arms]
    if len(arms) < 2:
        raise ConfigError(
            f"a comparison needs at least two arms, given {names}; e.g. --vary model.position=learned,rope"
        )
    if baseline is not None and baseline not in names:
        raise ConfigError(f"there is no arm {baseline!r} to be the baseline; the arms are: {'; '.join(names)}")
    resolved = resolve_grid(sorted(arms, key=lambda arm: arm.name != (baseline or names[0])))
    _check(resolved)
    return resolved


def _resolve(arm: Arm, stores: dict[str, TokenStore]) -> ResolvedArm:
    """Side by side with others, so that each run gets one thread unless the config says otherwise."""
    config = arm.config
    key = json.dumps([config.corpus, config.text.model_dump()])
    try:
        if key not in stores:
            stores[key] = open_store(config)
        resolved, trial = resolve_changed(config, stores[key], arm.change, side_by_side=2)
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {error}") from None
    except DataError as error:
        raise DataError(f"arm {arm.name}: {error}") from None
    return ResolvedArm(arm.name, resolved.replace(seed=0), stores[key], trial)


def _check(arms: Sequence[ResolvedArm]) -> None:
    base = arms[0]
    if len(base.store.splits["dev"].ids) == 0:
        raise DataError(
            f"nothing of {base.config.corpus} is held out, so nothing can be judged; give more text, or a larger "
            "--set text.dev_fraction"
        )
    for arm in arms[1:]:
        text = differences(base.config.text, arm.config.text)
        held_out = [path for path in text if path in ("unit", "dev_fraction", "test_fraction")]
        if arm.store.sha256 != base.store.sha256 or held_out:
            what = f"text.{held_out[0]}" if held_out else "the corpus"
            mix = base.store.parts or arm.store.parts
            cure = "; give every arm the same corpora, one that it is not to train on with the weight 0" if mix else ""
            raise ConfigError(
                f"arm {arm.name} cannot be judged on the held-out documents of {base.name}: {what} differs{cure}"
            )


def with_steps(arm: ResolvedArm, steps: int) -> ResolvedArm:
    """The arm with another number of steps; warm-up, evaluations and saves keep their numbers of steps."""
    return replace(arm, config=arm.config.replace(train=arm.config.train.replace(steps=steps)))


def _axis(variation: str) -> tuple[str, list[str]]:
    path, separator, values = variation.partition("=")
    if ";" in values:
        return path, [value.strip() for value in values.split(";")]
    if not separator or not values:
        raise ConfigError(f"--vary {variation!r}: expected PATH=A,B, for example --vary model.position=learned,rope")
    return path, _split(values)


def _split(values: str) -> list[str]:
    """The values between commas; those inside brackets belong to a value: `8,[8,16]` is two."""
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]

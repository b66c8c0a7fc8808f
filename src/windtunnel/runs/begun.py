"""What was measured for a run when it began stays decided: the same command finds it, whatever is measured now."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from windtunnel.config import differences
from windtunnel.errors import ArtifactError
from windtunnel.training import speed
from windtunnel.training.run import is_run, open_run
from windtunnel.training.run_config import RunConfig


def as_begun(asked: RunConfig, resolved: RunConfig, folders: Iterable[Path], side_by_side: int = 1) -> RunConfig:
    """The resolved config as the first of these folders of seeds holds it.

    Args:
        asked: the config before it was resolved. What it leaves to a measurement may differ in the folder, and nothing
            else but the seed; where no folder is such a one, the config stays as it is.
        side_by_side: how many runs share the machine.
    """
    left = speed.left_to_measuring(asked, resolved, side_by_side)
    for folder in folders if left else ():
        for seed in sorted(folder.glob("seed-*")):
            with suppress(ArtifactError, OSError):  # a damaged run says so when it is opened
                begun = open_run(seed).config.replace(seed=resolved.seed) if is_run(seed) else resolved
                if begun != resolved and differences(resolved, begun).keys() <= left:
                    return begun
    return resolved

"""Where windtunnel keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$WINDTUNNEL_CACHE`, else `$XDG_CACHE_HOME/windtunnel`, else `~/.cache/windtunnel`; not yet made."""
    own = os.environ.get("WINDTUNNEL_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and is to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "windtunnel"

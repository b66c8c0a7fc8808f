"""The one thread that owns the models."""

from __future__ import annotations

from pathlib import Path


class Worker:
    """Loads models by name from a folder, and computes for one request after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def close(self) -> None:
        """Finish what was begun, and let the models go."""

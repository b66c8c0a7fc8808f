"""Errors that a user can cause and cure, each with the exit code of the command line.

    WindtunnelError            1   a run failed
    ├── ConfigError            2   a setting is wrong or does not fit the others
    ├── DataError              3   a corpus, a prompt or a tokenizer file cannot be used
    ├── ArtifactError          3   a run folder or a checkpoint is missing, altered or too new
    ├── SaveError              1   the disk refused to keep what we wrote
    ├── BusyError              1   another process is writing this run
    ├── NumericsError          4   training diverged; the weights before it are kept
    ├── LostRank              75   another process that trains the same run is gone; it can be resumed
    └── MissingExtra           1   an optional package is not installed

A message says what happened, what was expected, what was given, and the cure.
"""

from __future__ import annotations


class WindtunnelError(Exception):
    """What every error of windtunnel derives from; `exit_code` is what the command line exits with."""

    exit_code = 1


class ConfigError(WindtunnelError):
    """A setting is unknown, of the wrong type, or does not fit the others."""

    exit_code = 2


class DataError(WindtunnelError):
    """A corpus, a prompt or a tokenizer file cannot be used."""

    exit_code = 3


class ArtifactError(WindtunnelError):
    """A run folder or a checkpoint is missing, altered, truncated or of a newer format."""

    exit_code = 3


class SaveError(WindtunnelError):
    """Writing to disk failed; what had been saved before is intact."""


class BusyError(WindtunnelError):
    """Another process holds the lock of a run folder."""


class NumericsError(WindtunnelError):
    """Training produced a NaN or exploded; the weights were not touched by that step.

    update_ratio: how many times as long as the weights the update would have been, where that was the reason.
    """

    exit_code = 4

    def __init__(self, message: str, update_ratio: float | None = None) -> None:
        super().__init__(message)
        self.update_ratio = update_ratio


class LostRank(WindtunnelError):
    """Another process that trains the same run is gone; what had been saved is intact."""

    exit_code = 75


class MissingExtra(WindtunnelError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}; install it with: pip install {package}")

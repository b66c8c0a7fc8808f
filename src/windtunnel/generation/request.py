"""What is asked of a model: a prompt, how much to add to it, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from windtunnel.errors import ConfigError
from windtunnel.generation.sampling import SamplingConfig


@dataclass(frozen=True)
class Request:
    """One text to write.

    Raises:
        ConfigError: for a negative number of tokens or alternatives, or an empty stop string.
    """

    prompt: str
    n_tokens: int
    """Tokens to add at most; the text ends earlier after an end mark or at a stop string."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0
    """The same seed gives the same text."""
    alternatives: int = 6
    """How many of the most probable tokens are given at each position."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these that is completed after the prompt."""
    chat: bool = False
    """Whether the prompt is a message, to be put into the form of a conversation that came with the model."""

    def __post_init__(self) -> None:
        if self.n_tokens < 0 or self.alternatives < 0:
            given = f"{self.n_tokens} and {self.alternatives}"
            raise ConfigError(f"tokens and alternatives cannot be negative, given {given}")
        if isinstance(self.stop, str) or not all(self.stop):
            raise ConfigError(f"stop must be a tuple of texts of at least one character each, given {self.stop!r}")

"""A mix: several corpora as one, each with a weight, written `a.txt:0.7,b.txt:0.3`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain

from windtunnel.errors import ConfigError
from windtunnel.text.corpora.corpus import Corpus
from windtunnel.text.corpora.paths import exists

WEIGHTED = re.compile(r"(?P<name>.+):(?P<weight>\s*[-+]?(\d|\.\d|nan|inf)[^/:]*)", re.IGNORECASE)
EXAMPLE = "expected two or more with a weight each, e.g. a.txt:0.7,b.txt:0.3"
Parts = tuple[tuple[str, float], ...]
"""(the name or path of a corpus, its share of the mix); the shares sum to 1."""


def parse_mix(text: str) -> Parts | None:
    """The corpora of a mix with their shares, to 10 digits; None where the text names one corpus.

    A path that exists is never a mix, whatever its name looks like.

    Raises:
        ConfigError: for a part without a weight, a weight that is negative or no number, no positive weight, a corpus
            that is given twice, or a single one.
    """
    pieces = [piece.strip() for piece in text.split(",")]
    found = [WEIGHTED.fullmatch(piece) for piece in pieces]
    if not any(found) or exists(text):
        return None
    given: dict[str, float] = {}
    for piece, match in zip(pieces, found, strict=True):
        if match is None:
            raise ConfigError(f"the mix {text!r}: {piece!r} has no weight; {EXAMPLE}")
        name = match["name"].strip()
        if name in given:
            raise ConfigError(f"the mix {text!r} has {name} twice; give it once, with the sum of its weights")
        given[name] = _weight(text, name, match["weight"])
    if len(given) < 2:
        raise ConfigError(
            f"the mix {text!r} is of one corpus; {EXAMPLE}, or leave the weight out (and there is no path of that name)"
        )
    largest = max(given.values())
    if largest == 0:
        raise ConfigError(f"the mix {text!r} has no positive weight; give one of its corpora more than 0")
    parts = math.fsum(weight / largest for weight in given.values())  # the weights themselves may have no finite sum
    # Shares as they are written here must be read as the same shares: their sum is 1 but for what was rounded.
    shares = {name: weight / largest / parts for name, weight in given.items()}
    shares = given if math.isclose(parts * largest, 1, rel_tol=1e-9) else shares
    return tuple((name, float(f"{share:.10g}")) for name, share in shares.items())


def _weight(text: str, name: str, given: str) -> float:
    try:
        weight = float(given)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ConfigError(f"the mix {text!r}: the weight of {name} is {given}; expected a number of at least 0")
    return weight


def mix_text(parts: Parts) -> str:
    """How a mix is written: equal mixes alike, their corpora in the order of the alphabet.

    Raises:
        ConfigError: for a name with a comma, which divides the corpora of a mix.
    """
    for name, _ in parts:
        if "," in name:
            raise ConfigError(f"{name}: a comma divides the corpora of a mix; give it another path")
    return ",".join(f"{name}:{weight:.10g}" for name, weight in sorted(parts))


def corpora_in(text: str) -> tuple[str, ...]:
    """The names and paths that a corpus is made of: several for a mix, one for a path that is gone."""
    parts = None
    with suppress(ConfigError):
        parts = parse_mix(text)
    return tuple(name for name, _ in parts) if parts else (text,)


def mix_corpus(text: str, parts: Parts, opened: Callable[[str], Corpus]) -> Corpus:
    """The corpora of a mix as one. Its unit is theirs; `text` where they differ, and then each keeps its own.

    Raises:
        ConfigError: for a corpus of pairs or of texts with labels.
    """
    corpora = [opened(name) for name, _ in parts]
    for corpus in corpora:
        if len(corpus.fields) > 1:
            raise ConfigError(
                f"the mix {text!r}: {corpus.name} has the fields {', '.join(corpus.fields)}, and a mix is of plain "
                "texts for a language model; leave it out, or name its texts: --column text=NAME"
            )
    units = {corpus.unit for corpus in corpora}
    return Corpus(
        name=" + ".join(names_of(corpora)),
        unit=units.pop() if len(units) == 1 else "text",
        description=f"a mix of {', '.join(f'{100 * weight:.4g} % {name}' for name, weight in parts)}",
        licence="; ".join(dict.fromkeys(corpus.licence for corpus in corpora)),
        origin="; ".join(corpus.origin for corpus in corpora),
        read=lambda: chain.from_iterable(corpus.read() for corpus in corpora),
        parts=tuple(corpora),
        weights=tuple(weight for _, weight in parts),
    )


def names_of(corpora: Sequence[Corpus]) -> list[str]:
    """What tells the corpora of a mix apart: their names, or where they come from for those with one name."""
    names = [corpus.name for corpus in corpora]
    return [corpus.origin if names.count(corpus.name) > 1 else corpus.name for corpus in corpora]

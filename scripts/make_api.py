"""Write docs/api.md out of the docstrings: `python scripts/make_api.py > docs/api.md`.

The names of `import windtunnel as wt`, what they give back (found by their annotations), and `wt.stats`.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import windtunnel as wt

WIDTH = 100
"""Characters of a signature beyond which each parameter has a line of its own."""

NAME = r"[A-Za-z_]\w*(?:, \w+)*: "
"""How a docstring begins what it says of a parameter, a field or an error."""

INSIDE = {"AnyCache", "Examination", "Model", "Run", "RunConfig", "Selectable", "Tokenizer", "TrainedModel"}
"""What names give back that has no section: parts of the inside, and the settings, which are docs/settings.md."""

HEAD = """# The API

`python scripts/make_api.py > docs/api.md` wrote this page out of the docstrings, and a test holds it equal to them.
Tests run every example, in a folder with runs of 20 steps on `names`. The same with more words:
[from Python](library.md). What `**settings` takes: [settings](settings.md). The files
that are written: [files](files.md).
"""


def page() -> str:
    """The whole page."""
    public = {f"wt.{name}": getattr(wt, name) for name in wt.__all__ if name not in ("__version__", "stats")}
    stats = {f"wt.stats.{name}": getattr(wt.stats, name) for name in wt.stats.__all__ if name != "Estimate"}
    given = {kind.__name__: kind for kind in given_back([*public.values(), *stats.values()])}
    parts = [
        HEAD.strip(),
        "## windtunnel",
        *sections(public),
        "## What they give back",
        *sections(dict(sorted(given.items()))),
    ]
    parts += ["## wt.stats", markdown(wt.stats), *sections(stats)]
    return "\n\n".join(parts) + "\n"


def sections(named: dict[str, Any]) -> Iterator[str]:
    """A heading for each name; the members of a class below it."""
    for name, what in named.items():
        yield f"### {name}"
        if not inspect.isclass(what):
            yield from function(what)
            continue
        fields = "\n".join(f"    {name}: {kind}" for name, kind in fields_of(what).items())
        if fields:
            yield fenced(f"class {what.__name__}:\n{fields}", "text")
        yield markdown(what)
        for own, member in vars(what).items():
            if isinstance(member, property) and not own.startswith("_"):
                yield f"**`.{own}`**: `{member.fget.__annotations__['return']}`. {markdown(member)}"
            elif inspect.isroutine(member) and not own.startswith("_"):
                yield f"#### {what.__name__}.{own}"
                yield from function(getattr(what, own))


def fields_of(kind: type) -> dict[str, str]:
    """The type of each field of a record."""
    own = inspect.get_annotations(kind)
    return {name: getattr(text, "__forward_arg__", text) for name, text in own.items() if not name.startswith("_")}


def function(what: Callable[..., Any]) -> Iterator[str]:
    """Signature and docstring."""
    yield fenced(signature(what), "text")
    yield markdown(what)


class Words(str):
    """What a signature shows as it is written here."""

    def __repr__(self) -> str:
        return str(self)


def signature(what: Callable[..., Any]) -> str:
    """`name(parameter: type = default) -> type`, with a parameter a line where it is long."""
    found = inspect.signature(what)
    shown = [shown_parameter(one) for one in found.parameters.values() if one.name != "self"]
    line = f"{what.__name__}{inspect.Signature(shown)} -> {found.return_annotation}"
    if len(line) <= WIDTH:
        return line
    words = [str(inspect.Signature([one]))[1:-1].removeprefix("*, ") for one in shown]
    keyword_only = [at for at, one in enumerate(shown) if one.kind is one.KEYWORD_ONLY]
    for first in keyword_only[:1]:
        words.insert(first, "*")
    return f"{what.__name__}(\n" + "".join(f"    {word},\n" for word in words) + f") -> {found.return_annotation}"


def shown_parameter(one: inspect.Parameter) -> inspect.Parameter:
    """With its annotation as it was written, and a default that is a function by its name."""
    default = one.default
    if inspect.isroutine(default):
        default = Words(f"{default.__module__}.{default.__name__}")
    return one.replace(annotation=Words(one.annotation), default=default)


def fenced(code: str, kind: str) -> str:
    """A block of code."""
    return f"```{kind}\n{code.rstrip()}\n```"


def markdown(what: Any) -> str:
    """A docstring: what it lists by name as a list, the example as a block."""
    text, *example = re.split(r"^(?=>>> )", inspect.getdoc(what) or "", maxsplit=1, flags=re.MULTILINE)
    if not text:
        raise SystemExit(f"{what} has no docstring")
    parts = []
    for part in text.strip().split("\n\n"):
        head, _, rest = part.partition("\n")
        if head in ("Args:", "Raises:"):
            parts += [head, entries(textwrap.dedent(rest))]
        else:
            prose, *listed = re.split(rf"^(?=[a-z_])(?={NAME})", part, maxsplit=1, flags=re.MULTILINE)
            parts += [*([prose.strip()] if prose else []), *map(entries, listed)]
    return "\n\n".join([*parts, *(fenced(code, "pycon") for code in example)])


def entries(text: str) -> str:
    """`name: meaning` lines as a list: other lines go on with the one before; `a: ... . b: ...` are two."""
    lines = re.sub(rf"\n(?!{NAME}) *", " ", text)
    lines = re.sub(rf"(?<=\.) (?={NAME})", "\n", lines)
    return "\n".join(f"- `{name}`: {meaning}" for name, meaning in (line.split(": ", 1) for line in lines.splitlines()))


def given_back(public: list[Any]) -> set[type]:
    """The classes of windtunnel that functions, methods, properties and fields give, and those that these give."""
    found: set[type] = set()
    left = list(public)
    while left:
        new = {kind for kind in annotated(left.pop()) if kind.__name__ not in INSIDE and kind not in public}
        left += new - found
        found |= new
    return found


def annotated(what: Any) -> Iterator[type]:
    """The classes of windtunnel in what is given by a function, or by a class's members."""
    members = (
        [getattr(one, "fget", one) for one in vars(what).values()] if inspect.isclass(what) else [inspect.unwrap(what)]
    )
    texts = [str(one.__annotations__.get("return", "")) for one in members if inspect.isfunction(one)]
    texts += fields_of(what).values() if inspect.isclass(what) else []
    for name in re.findall(r"\w+", " ".join(texts)):
        kind = vars(sys.modules[what.__module__]).get(name)
        if inspect.isclass(kind) and kind.__module__.startswith("windtunnel"):
            yield kind


if __name__ == "__main__":
    print(page(), end="")

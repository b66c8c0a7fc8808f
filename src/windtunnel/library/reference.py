"""What every setting is: its type, its default, and its meaning, which is the docstring behind the field."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from windtunnel.config import Config, Tagged, kinds_of, nearest
from windtunnel.errors import ConfigError
from windtunnel.training.run_config import RunConfig

WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "none", dict: "object"}
BOUNDS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}"}


@dataclass(frozen=True)
class Setting:
    """One setting, or one that several kinds of model or task share with the same type, default and meaning.

    path: as `--set` names it.
    of: the kinds that have it, by their tags; empty where it is not of one of several kinds.
    type: in words.
    default: as `--set` takes it; None where it has to be given.
    """

    path: str
    of: tuple[str, ...]
    type: str
    default: str | None
    meaning: str


def settings_reference(prefix: str = "") -> list[Setting]:
    """The settings whose paths begin with a prefix; those that contain it, where none does.

    A part that is of a kind told elsewhere, as the trunk of a classifier, is one row, unless the prefix begins with it.

    Raises:
        ConfigError: when no path contains it, naming the nearest part.
    """
    found = _merged(_walk(RunConfig, "", (), prefix))
    begun = [setting for setting in found if setting.path.startswith(prefix)]
    chosen = begun or [setting for setting in found if prefix in setting.path]
    if not chosen:
        parts = dict.fromkeys(setting.path.partition(".")[0] for setting in found)
        raise ConfigError(f"no setting contains {prefix!r}{nearest(prefix, parts)}")
    return chosen


def as_markdown() -> str:
    """The page docs/settings.md."""
    parts: dict[str, list[Setting]] = {}
    for setting in settings_reference():
        parts.setdefault(setting.path.partition(".")[0] if "." in setting.path else "run", []).append(setting)
    text = [
        "# Settings",
        "",
        "Every setting of a run, as `--set PATH=VALUE` takes it. `windtunnel settings --markdown` wrote this page; "
        "`windtunnel settings optimizer` shows a part of it.",
    ]
    for part, settings in parts.items():
        several = any(setting.of for setting in settings)
        text += ["", f"## {part}", "", f"| setting |{' of |' * several} type | default | meaning |"]
        text += ["| --- |" + " --- |" * (3 + several)]
        for one in settings:
            default = "" if one.default is None else f"`{one.default}`"
            cells = [f"`{one.path}`", *([", ".join(one.of)] * several), one.type, default, one.meaning]
            text.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(text) + "\n"


def _merged(rows: Iterator[Setting]) -> list[Setting]:
    """Equal rows of several kinds as one; the paths in their first order."""
    kinds: dict[Setting, tuple[str, ...]] = {}
    for row in rows:
        key = replace(row, of=())
        kinds[key] = tuple(dict.fromkeys((*kinds.get(key, ()), *row.of)))
    merged = [replace(row, of=of) for row, of in kinds.items()]
    paths = list(dict.fromkeys(row.path for row in merged))
    return sorted(merged, key=lambda row: paths.index(row.path))


def _walk(kind: type[Config], before: str, of: tuple[str, ...], prefix: str) -> Iterator[Setting]:
    meanings = _meanings(kind)
    for name, field in kind.model_fields.items():
        path, kinds = before + name, kinds_of(field.annotation)
        told_elsewhere = len(kinds) == 1 and issubclass(kinds[0], Tagged)
        if of and issubclass(kind, Tagged) and name == kind.tag:
            continue  # told once for all kinds, before them
        if not kinds or (told_elsewhere and not prefix.startswith(path)):
            yield Setting(path, of, _type(field), _default(field), " ".join(meanings[name].split()))
            continue
        if len(kinds) > 1:
            yield replace(_tag(path, kinds), of=of)
        for inner in kinds:
            tags = of
            if len(kinds) > 1 and issubclass(inner, Tagged):  # of a part of a part: "clip with vit"
                tags = tuple(f"{one} with {_tag_of(inner)}" for one in of) or (_tag_of(inner),)
            yield from _walk(inner, f"{path}.", tags, prefix)


def _tag(path: str, kinds: Sequence[type[Config]]) -> Setting:
    """The setting that chooses among kinds; the first is its default."""
    tagged = [kind for kind in kinds if issubclass(kind, Tagged)]
    tags, name = [_tag_of(kind) for kind in tagged], tagged[0].tag
    return Setting(f"{path}.{name}", (), ", ".join(tags), tags[0], _meanings(tagged[0])[name])


def _tag_of(kind: type[Tagged]) -> str:
    return str(kind.model_fields[kind.tag].default)


@cache
def _meanings(kind: type[Config]) -> dict[str, str]:
    """The docstrings behind the fields of a config, those of its bases where it has none of its own."""
    found = {}
    for one in reversed(kind.__mro__):
        if not issubclass(one, Config) or one is Config:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                match text:
                    case ast.Expr(value=ast.Constant(value=str(said))):
                        found[field.target.id] = said
    return found


def _default(field: FieldInfo) -> str | None:
    if field.default is PydanticUndefined:
        return None
    value = field.default
    if isinstance(value, Config):
        value = value.model_dump(mode="json", exclude_unset=True)
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _type(field: FieldInfo) -> str:
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _words(inner, more)
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, arguments))
    if get_origin(annotation) in (Union, UnionType):
        plain = [one for one in arguments if one is not NoneType]
        words = " or ".join(_words(one, metadata) for one in plain)
        return words if NoneType not in arguments or words.endswith("none") else f"{words} or none"
    if get_origin(annotation) is tuple:
        return f"list of {_words(arguments[0])}"
    kind = get_origin(annotation) or annotation
    word = WORDS.get(kind) or ("settings" if issubclass(kind, Config) else kind.__name__)
    return " ".join([word, ", ".join(_bounds(metadata))]).rstrip()


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    """`> 0`, `< 1` and the like, of a field's annotations."""
    for one in metadata:
        inner = one.metadata if isinstance(one, FieldInfo) else [one]
        for bound in inner:
            yield from (said.format(f"{getattr(bound, key):g}") for key, said in BOUNDS.items() if hasattr(bound, key))


def as_dicts(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(setting) for setting in settings]

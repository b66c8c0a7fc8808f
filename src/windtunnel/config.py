"""Config is data: frozen, typed, and the same thing as a dict, a JSON file or a list of `a.b=c` overrides.

A component's config is a subclass of `Config` that stands beside the component. Nothing in a config is
executable; an unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, ValidationError, model_validator
from pydantic.fields import FieldInfo

from windtunnel.errors import ConfigError
from windtunnel.files import read_given

LARGEST = 1 << 20
"""Bytes of a file of settings."""

TYPES = ("bool", "int", "float", "str")
"""What pydantic puts behind the name of a setting that may be one of several types, and what is none of its name."""

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """A frozen, keyword-only record of settings; unknown keys are refused, and so are infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    added: ClassVar[frozenset[str]] = frozenset()
    """Settings that came later: at their defaults they do not change the fingerprint, so older runs keep theirs."""

    @model_validator(mode="before")
    @classmethod
    def _none_in_words(cls, data: Any) -> Any:
        """TOML has no null: the word none is one, where a setting may be None and has no choice of that name."""
        if not isinstance(data, dict):
            return data
        return {name: _nothing(value, cls.model_fields.get(name)) for name, value in data.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like a new one; explicitly set fields stay marked."""
        return parse(type(self), {**self.model_dump(exclude_unset=True), **changes})


class Tagged(Config):
    """One of several kinds of record, told apart by a setting that states the kind as its default."""

    tag: ClassVar[str]
    """The name of that setting."""

    @model_validator(mode="before")
    @classmethod
    def _say_the_tag(cls, data: Any) -> Any:
        """Always among the settings that were given, since it tells which kind the others belong to."""
        return {cls.tag: cls.model_fields[cls.tag].default, **data} if isinstance(data, dict) else data


def any_of(kinds: Mapping[str, type[Tagged]]) -> Any:
    """The type of a setting that is one of these kinds; the first where its tag is not given."""
    first = next(iter(kinds))
    tag = kinds[first].tag

    def kind_of(data: Any) -> str:
        return str(data.get(tag, first) if isinstance(data, dict) else getattr(data, tag, first))

    tagged = (Annotated[kind, Tag(name)] for name, kind in kinds.items())
    return Annotated[reduce(or_, tagged), Discriminator(kind_of)]


def parse(kind: type[C], data: Mapping[str, Any]) -> C:
    """Build a config of the given kind from nested dicts.

    Raises:
        ConfigError: for an unknown key (the nearest known one is offered), a wrong type or a value out of range.
    """
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError("; ".join(_sentences(kind, [dict(item) for item in error.errors()]))) from None


def to_json(config: Config) -> str:
    """The config as indented JSON with a final newline."""
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def to_toml(config: Config) -> str:
    """The config as TOML, from which `parse` makes an equal one; a setting that is None as by default is left out."""
    return "\n".join(_toml(_without_none(config), ())) + "\n"


def _without_none(config: Config) -> dict[str, Any]:
    """As for JSON; a None that is not the default is the word."""
    dumped, fields = config.model_dump(mode="json"), type(config).model_fields
    data = {name: _without_none(value) if isinstance(value, Config) else dumped[name] for name, value in config}
    return {
        name: "none" if value is None else value
        for name, value in data.items()
        if value is not None or fields[name].default is not None
    }


def _toml(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    if path:
        yield f"\n[{'.'.join(path)}]"
    for name, value in data.items():
        if not isinstance(value, dict):
            yield f"{_key(name)} = {_toml_value(value)}"
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _toml(value, (*path, _key(name)))


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else _toml_value(name)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps("none" if value is None else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def lay_over(config: C, data: Mapping[str, Any]) -> C:
    """The config with the nested settings of a file in place of its own; a part of another kind as in `override`.

    Raises:
        ConfigError: for an unknown setting or a wrong value.
    """
    tags = {path: value for path, value in _flatten(data).items() if isinstance(value, str)}
    return parse(type(config), _laid_over(_of_kinds(config, tags).model_dump(exclude_unset=True), data))


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def says_all(config: Config) -> bool:
    """Whether every setting was given, but for those that came later and those whose default is None."""
    fields = type(config).model_fields
    later = config.added | {name for name, field in fields.items() if field.default is None}
    parts = (value for name, value in config if isinstance(value, Config) and name in config.model_fields_set)
    return set(fields) <= config.model_fields_set | later and all(map(says_all, parts))


def fingerprint(config: Config, exclude: Iterable[str] = ()) -> str:
    """SHA-256 of the config's canonical JSON, without the named top-level settings and without unused later ones."""
    data = _without_unused({name: value for name, value in config if name not in set(exclude)}, config)
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _without_unused(values: Mapping[str, Any], config: Config) -> dict[str, Any]:
    dumped, fields = config.model_dump(mode="json"), type(config).model_fields
    return {
        name: _without_unused(dict(value), value) if isinstance(value, Config) else dumped[name]
        for name, value in values.items()
        if name not in config.added or value != fields[name].default
    }


def flatten(config: Config) -> dict[str, Any]:
    """Every setting by its dotted path, as `--set` names it: {'model.n_layers': 4, ...}."""
    return _flatten(config.model_dump(mode="json"))


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ: dotted path -> (value in a, value in b)."""
    left, right = flatten(a), flatten(b)
    return {path: (left.get(path), right.get(path)) for path in {**left, **right} if left.get(path) != right.get(path)}


def override(config: C, assignments: Iterable[str]) -> C:
    """Apply overrides such as `model.n_layers=6`; values are read as JSON where they are JSON, else as text.

    A part that becomes another kind, as by `model.family=rnn`, keeps the settings that both kinds have, by name, and
    loses the others.

    Raises:
        ConfigError: for an assignment without `=`, an unknown path (the nearest one is offered) or a wrong value.
    """
    pairs = [_assigned(assignment, config) for assignment in assignments]
    config = _of_kinds(config, dict(pairs))
    data = config.model_dump(exclude_unset=True)
    known = _paths(type(config), config)
    for path, text in pairs:
        if path not in known:
            raise ConfigError(f"--set {path}: there is no such setting{nearest(path, known)}")
        *parents, leaf = path.split(".")
        node = data
        part: Any = config
        for parent in parents:  # one that was not given keeps what its default says of itself
            part = getattr(part, parent, None)
            node = node.setdefault(parent, part.model_dump(exclude_unset=True) if isinstance(part, Config) else {})
        node[leaf] = _value(text, known[path])
    return parse(type(config), data)


def _assigned(assignment: str, config: Config) -> tuple[str, str]:
    """The path and the text of PATH=VALUE."""
    path, separator, text = assignment.partition("=")
    if not separator:
        example = next(iter(_paths(type(config), config)))
        raise ConfigError(f"--set {assignment!r}: expected PATH=VALUE, for example --set {example}=...")
    return path, text


def _of_kinds(config: C, given: Mapping[str, str], prefix: str = "") -> C:
    """The config with each part of the kind whose tag is given by its path, unchecked: other settings are to come."""
    parts: dict[str, Config] = {}
    for name, field in type(config).model_fields.items():
        part = getattr(config, name)
        tag = f"{prefix}{name}.{part.tag}" if isinstance(part, Tagged) else ""
        kind = _kind_named(field.annotation, given.get(tag))
        if kind and not isinstance(part, kind):
            shared = {setting for setting in part.model_fields_set if _is_in_both(setting, type(part), kind)}
            chosen = {**{setting: getattr(part, setting) for setting in shared}, part.tag: given[tag]}
            parts[name] = kind.model_construct(set(chosen), **chosen)
        if isinstance(part, Config):
            below = parts.get(name, part)
            inner = _of_kinds(below, given, f"{prefix}{name}.")
            parts |= {} if inner is below else {name: inner}
    return config.model_copy(update=parts) if parts else config


def _is_in_both(setting: str, a: type[Tagged], b: type[Tagged]) -> bool:
    """Whether two kinds have a setting of this name, in both a value or in both a part; their tags are none."""
    if setting == a.tag or setting not in b.model_fields:
        return False
    return bool(kinds_of(a.model_fields[setting].annotation)) == bool(kinds_of(b.model_fields[setting].annotation))


def _kind_named(annotation: Any, name: str | None) -> type[Tagged] | None:
    """The kind of a part that has this name as its tag."""
    tagged = [kind for kind in kinds_of(annotation) if issubclass(kind, Tagged)]
    return next((kind for kind in tagged if kind.model_fields[kind.tag].default == name), None)


def read_settings(path: Path) -> dict[str, Any]:
    """The nested settings of a `.json` or `.toml` file. Raises ConfigError when it cannot be read as such."""
    try:
        text = read_given(path, LARGEST)
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable config ({error}); expected a .json or .toml file") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected settings by name, given {type(data).__name__}")
    return data


def plain(value: Any) -> Any:
    """Dataclasses, also inside dicts and lists, as plain data for JSON; NaN and infinity, which it lacks, as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _value(text: str, annotation: Any) -> Any:
    """What a person means by a text: JSON where it is JSON; `none` is no value, unless it is one of the choices."""
    try:
        return json.loads(text)
    except ValueError:
        words = {"true": True, "false": False, **({} if "none" in _choices(annotation) else {"none": None})}
        return words.get(text.lower(), text)


def _choices(annotation: Any) -> list[Any]:
    """The words, types and None that an annotation names, also inside others."""
    return [found for one in get_args(annotation) for found in _choices(one)] or [annotation]


def _nothing(value: Any, field: FieldInfo | None) -> Any:
    """The value, None for the word where the field may be None; in a list, too."""
    if field is None or not (value == "none" or (isinstance(value, list) and "none" in value)):
        return value
    choices = _choices(field.annotation)
    if "none" in choices or NoneType not in choices:
        return value
    return [None if one == "none" else one for one in value] if isinstance(value, list) else None


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _paths(kind: type[Config], config: Config | None = None, prefix: str = "") -> dict[str, Any]:
    """Every setting's dotted path with its type; where a part is one of several kinds, that of `config`, or of all."""
    paths: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        value = getattr(config, name, None)
        kinds = kinds_of(field.annotation)
        for inner in [kind for kind in kinds if isinstance(value, kind)] or kinds:
            paths.update(_paths(inner, value, f"{prefix}{name}."))
        if not kinds:
            paths[prefix + name] = field.annotation
    return paths


def kinds_of(annotation: Any) -> list[type[Config]]:
    """The kinds of config that a part may be; none for a plain setting, and for a part that may be missing."""
    inner = [get_args(one)[0] if hasattr(one, "__metadata__") else one for one in get_args(annotation) or [annotation]]
    return inner if all(isinstance(one, type) and issubclass(one, Config) for one in inner) else []


def nearest(path: str, known: Collection[str]) -> str:
    by_leaf = [k for k in known if k.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    close = by_leaf or difflib.get_close_matches(path, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _sentences(kind: type[Config], items: Iterable[dict[str, Any]]) -> list[str]:
    """What is wrong with each setting; where it may be one of several types, pydantic says it once for each."""
    of_setting: dict[str, list[dict[str, Any]]] = {}
    known = {}
    for item in items:
        path, known[path] = _located(kind, item["loc"])
        of_setting.setdefault(path, []).append(item)
    return [_sentence(path, some, known[path]) for path, some in of_setting.items()]


def _located(kind: type[Config], loc: tuple[Any, ...]) -> tuple[str, dict[str, Any]]:
    """The dotted path of an error, and the settings that there are."""
    known, names, rest, inside = _paths(kind), list[str](), list(loc), [kind]
    while rest and str(rest[0]).isidentifier() and rest[0] not in TYPES:
        names.append(str(rest.pop(0)))
        field = inside[0].model_fields.get(names[-1]) if inside else None
        inside = kinds_of(field.annotation) if field else []
        if field and len(inside) > 1 and rest:  # pydantic names the kind, too, which is no part of a path
            part = _kind_named(field.annotation, str(rest.pop(0)))
            known = _paths(part, prefix=f"{'.'.join(names)}.") if part else known
            inside = [part] if part else []
    return ".".join(names), known


def _sentence(path: str, items: list[dict[str, Any]], known: Collection[str]) -> str:
    item = min(items, key=lambda one: len(one["loc"]))
    if item["type"] == "extra_forbidden":
        return f"there is no setting {path}{nearest(path, known)}"
    if item["type"] == "union_tag_invalid":
        return f"{path} is not of a known kind, given {item['ctx']['tag']!r}; known are {item['ctx']['expected_tags']}"
    message = item["msg"].removeprefix("Value error, ")
    if not path:
        return message
    if len(items) > 1:
        message = _any_of(str(one["msg"]) for one in items)
    given = "" if item["type"] == "value_error" else f", given {item['input']!r}"
    return f"{path}: {message[0].lower()}{message[1:].replace('valid tuple', 'list')}{given}"


def _any_of(messages: Iterable[str]) -> str:
    """Input should be a valid integer or a list."""
    wanted = dict.fromkeys(message.removeprefix("Input should be ").partition(", ")[0] for message in messages)
    return f"Input should be {' or '.join(wanted)}"

"""Packages whose names are imported when they are used (PEP 562), so that the package itself costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def modules_of(package: str, names: Mapping[str, str]) -> dict[str, str]:
    """The module of each name, given the names of each of a package's modules in one text."""
    return {name: f"{package}.{module}" for module, own in names.items() for name in own.split()}


def importing(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`; an unknown name is told those that there are."""

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(modules))}")
        return getattr(import_module(modules[name]), name)

    return attribute

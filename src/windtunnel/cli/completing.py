"""What a shell completes, once `--install-completion` was typed: known names, and what runs and files there are.

A shell waits for it at every press of TAB, so nothing here imports more than the standard library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from windtunnel.cli import words


def recipes(incomplete: str) -> list[str]:
    """Of `--recipe`."""
    return _beginning(words.RECIPES.split(), incomplete)


def corpora(incomplete: str) -> list[str]:
    """Of CORPUS: a name, or a file or folder."""
    return [*_beginning(words.CORPORA.split(), incomplete), *_paths(incomplete)]


def fetched(incomplete: str) -> list[str]:
    """Of `corpora get`."""
    return _beginning(words.FETCHED.split(), incomplete)


def experiments(incomplete: str) -> list[str]:
    """Of `experiment`: a name, or a row."""
    return _beginning([*words.EXPERIMENTS.split(), *words.ROWS.split()], incomplete)


def settings(incomplete: str) -> list[str]:
    """Of `--set` and `--vary`: the path of a setting and the sign after it; its values are not completed."""
    return _beginning((f"{path}=" for path in words.SETTINGS.split()), incomplete)


def setting_names(incomplete: str) -> list[str]:
    """Of `settings`."""
    return _beginning(words.SETTINGS.split(), incomplete)


def runs(incomplete: str) -> list[str]:
    """Of RUN: `last`, a folder of seeds or a run below ./runs, by its name or its path; one seed after the slash."""
    below = "runs/" if incomplete.startswith("runs/") else ""
    names, asked = _runs(), incomplete.removeprefix(below)
    own = [name for name in names if "/" not in name or "/" in asked]
    last = ["last"] if names and not below else []
    return _beginning([*last, *(below + name for name in own)], incomplete)


def recipes_and_runs(incomplete: str) -> list[str]:
    """Of RECIPE|RUN."""
    return [*recipes(incomplete), *runs(incomplete)]


def _beginning(known: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(known) if word.startswith(incomplete)]


def _runs() -> list[str]:
    """The names below ./runs of runs and of folders that hold some."""
    root = Path("runs")
    found = [path.parent.relative_to(root) for pattern in ("*", "*/*") for path in root.glob(f"{pattern}/record.json")]
    visible = [folder for folder in found if not any(part.startswith(".") for part in folder.parts)]
    return sorted({str(name) for folder in visible for name in (folder, *folder.parents) if name != Path()})


def _paths(incomplete: str) -> list[str]:
    """Files and folders whose paths begin so; a folder with the slash after it."""
    head, slash, last = incomplete.rpartition("/")
    try:
        entries = sorted(Path(head + slash).expanduser().iterdir())
    except (OSError, RuntimeError):
        return []
    shown = [path for path in entries if path.name.startswith(last) and (last or not path.name.startswith("."))]
    return [_quoted(f"{head}{slash}{path.name}{'/' if path.is_dir() else ''}") for path in shown]


def _quoted(path: str) -> str:
    """As bash inserts it, which takes it as it is; other shells, and bash inside of a quote, need no backslashes.

    Where one was typed already nothing begins so, and bash completes the file itself.
    """
    typed = os.environ.get("COMP_WORDS", "").rpartition("\n")[2]
    plain = os.environ.get("_WINDTUNNEL_COMPLETE") != "complete_bash" or typed.startswith(("'", '"'))
    return path if plain else re.sub(r"[^\w@%+=:,./~-]", r"\\\g<0>", path)

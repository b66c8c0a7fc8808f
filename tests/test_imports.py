"""Imports point down the list of rooms only, nothing unpickles, and the command line starts without torch."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import windtunnel
from patience import PATIENCE

PACKAGE = Path(windtunnel.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [
    "lazy", "errors", "files", "config", "stats", "text", "nn", "models", "tasks", "training", "generation", "inspect",
    "runs",
    "comparison", "programs", "scaling", "labelling", "report", "experiments", "library", "serve", "cli",
]  # fmt: skip
HEAVY = ["torch", "starlette", "uvicorn", "numpy", "scipy", "matplotlib", "transformers", "safetensors", "tokenizers"]


def room_of(module):
    """The room of `windtunnel.room.…`; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imported(tree, path):
    """Modules that a file imports anywhere, also inside functions, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write it from windtunnel on"
            if node.module == "windtunnel":
                names = [
                    alias.name for alias in node.names if not alias.name.startswith("__")
                ]  # __version__ is no room
                yield from ((f"windtunnel.{name}", node.lineno) for name in names)
            else:
                yield node.module, node.lineno


def upward_imports(path, text):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__main__":
        own = "cli"
    for module, line in imported(ast.parse(text), path):
        room = room_of(module) if module.split(".")[0] == "windtunnel" else None
        if room is None:
            continue
        if own == "__init__":
            continue  # the face names what it takes from the rooms, and imports it when it is used: see test_library
        if room not in ROOMS or ROOMS.index(room) > ROOMS.index(own):
            yield f"{path.relative_to(PACKAGE)}:{line}: {own} imports {module}"


def test_every_file_lies_in_a_room():
    known = {*ROOMS, "__init__", "__main__"}
    assert [p for p in SOURCES if p.relative_to(PACKAGE).parts[0].removesuffix(".py") not in known] == []


def test_imports_point_down_only():
    wrong = [found for path in SOURCES for found in upward_imports(path, path.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "from windtunnel.training.loop import fit",
        "import windtunnel.cli",
        "from windtunnel import report",
        "def f():\n    from windtunnel.generation import sampling",
    ],
)
def test_an_upward_import_is_found(line):
    assert list(upward_imports(PACKAGE / "nn" / "attention.py", line))
    assert not list(upward_imports(PACKAGE / "cli" / "training.py", line))


def pickles(text):
    """Uses of pickle: the word as a name, an argument or a module, and the calls of torch and numpy that read one."""
    for node in ast.walk(ast.parse(text)):
        names = [
            getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "arg", None),
            getattr(node, "name", None), getattr(node, "module", None),
        ]  # fmt: skip
        if any(isinstance(name, str) and "pickle" in name.lower() for name in names):
            yield node
        torch_owned = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch"
        if torch_owned and node.attr in ("load", "save"):
            yield node


def test_nothing_pickles():
    """But for one published file of weights: its SHA-256 is compared first, and torch reads only tensors of it."""
    found = [path for path in SOURCES if list(pickles(path.read_text(encoding="utf-8")))]
    assert [str(path.relative_to(PACKAGE)) for path in found] == ["models/pretrained/efficientnet.py"]
    (reads,) = pickles(found[0].read_text(encoding="utf-8"))
    text = ast.get_source_segment(found[0].read_text(encoding="utf-8"), reads)
    assert text == "torch.load"
    assert "torch.load(io.BytesIO(data), weights_only=True" in found[0].read_text(encoding="utf-8")


def test_pickling_is_found():
    for text in ("import pickle", "from pickle import loads", "np.load(f, allow_pickle=True)", "torch.load(f)"):
        assert list(pickles(text)), text
    assert not list(pickles("safetensors.torch.load(f)"))


def modules_after(code):
    """The top-level packages that are loaded after running some code in a new process."""
    program = f"import sys\n{code}\nimport json\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = f"""
import runpy
sys.argv = ["windtunnel", *{arguments!r}]
try:
    runpy.run_module("windtunnel", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    loaded, printed = modules_after(code)
    assert "windtunnel" in printed
    assert [name for name in HEAVY if name in loaded] == []


def test_importing_the_command_line_loads_nothing_heavy():
    loaded, _ = modules_after("import windtunnel.cli")
    assert "windtunnel" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_training_and_decoding_load_no_compiler_before_they_compile():
    code = """
import windtunnel.cli.looking, windtunnel.cli.training, windtunnel.generation.compiled, windtunnel.training.loop
assert "torch" in sys.modules
print("torch._dynamo" in sys.modules)
"""
    assert modules_after(code)[1].splitlines()[0] == "False"

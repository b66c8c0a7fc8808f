"""The pages are true: links lead somewhere, names are there, and every block runs or says when and where it ran."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from patience import PATIENCE
from windtunnel import cli
from windtunnel.experiments import EXPERIMENTS
from windtunnel.library.reference import settings_reference
from windtunnel.training.distributed import Ranks

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

TEXT = """seq 1 3000 | awk '{ print ($1 % 2 ? "the dog barks" : "a cat purrs") " at " ($1 % 7) }' > CORPUS
command windtunnel train CORPUS --recipe tiny --set text.unit=line --set text.tokenizer=bytes --steps 12 --out RUN
"""
HERE = {
    "tutorial": "",
    "howto": "",
    "classification": TEXT
    + """printf 'text\\ngood fun\\ndull number\\n' > texts.csv
seq 1 400 | awk 'BEGIN { print "review,stars" } { print ($1 % 3 ? "good fun " $1 ",pos" : "dull slow " $1 ",neg") }' \\
    > reviews.csv
""",
    "labelling": """seq 1 400 | awk 'BEGIN { print "id,text,label" }
{ text = ($1 % 2 ? "goal match ball " : "bank rate bond ") $1; print "t" $1 "," text "," ($1 > 300 ? "" : $1 % 2) }' \\
    > stories.csv
""",
    "translation": "",
    "parallel": "",
    "pretrained#LoRA": TEXT,
    "pretrained#Encoders": """python - <<'END'
from transformers import BertConfig, BertModel
sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
BertModel(BertConfig(vocab_size=30, **sizes)).save_pretrained("DIR")
END
""",
    "scaling#How a scaling study is made and fitted, and what it refuses": """python - <<'END' > points.csv
print("n,d,loss,seed")
for c in (1e12, 4e12, 1.6e13, 6.4e13):
    for size in (0.25, 0.5, 1, 2, 4):
        for seed in range(3):
            n = size * (c / 120) ** 0.5
            d = c / 6 / n
            print(n, d, 1 + 50 / n**0.34 + 100 / d**0.28 + 0.003 * (seed - 1) * (1.1 - size % 0.7), seed, sep=",")
END
""",
}
"""What is run here, a page or a section of one, after what has to be there; all but the first two with few steps:"""

SHORT = """windtunnel() {
    case $1 in
        train) command windtunnel "$@" --steps 12 --set train.threads=1 ;;
        compare) command windtunnel "$@" --steps 12 --set train.threads=1 --seeds 2 ;;
        *) command windtunnel "$@" ;;
    esac
}
torchrun() {
    case " $* " in
        *" train "*) steps=$((${steps:-11} + 1)); command torchrun "$@" --steps $steps ;;
        *) command torchrun "$@" ;;
    esac
}
"""
ELSEWHERE = {
    "README#Test": ".ci/run",
    "README#From Python": "tests/test_examples.py",
    "CONTRIBUTING": ".ci/run",
    "api": "tests/test_library.py",
    "architecture": "tests/test_architecture.py",
    "ideas": "tests/cli/test_change_command.py",
    "judge": "tests/test_judge_page.py",
    "library": "tests/test_library.py",
    "serve#Ask it": "tests/serve/test_doc.py",
    "pretrained#lm-eval": "tests/interop/test_lm_eval.py",
}
"""What another file runs."""


def name_of(page):
    return str(page.relative_to(ROOT))


def text_of(page):
    return page.read_text(encoding="utf-8")


def sections(page):
    """(heading, text) of each section of a page; a # in a block is no heading."""
    blank = BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text_of(page)).splitlines()
    lines, starts = text_of(page).splitlines(), [n for n, line in enumerate(blank) if line.startswith("#")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start].lstrip("# "), "\n".join(lines[start:end]) + "\n"


def chosen(name):
    """The blocks of a page, or of a section of it, that a shell or Python runs."""
    name, _, heading = name.partition("#")
    page = next(page for page in PAGES if page.stem == name and page.parent.name != "benchmarks")
    parts = [text for title, text in sections(page) if heading in ("", title)]
    assert parts
    return [block for part in parts for block in BLOCK.findall(part) if block[0] in ("sh", "python")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_readme_is_short_and_the_index_complete():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150
    index = text_of(ROOT / "docs" / "README.md")
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in index] == [
        "README.md"
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_says_when_and_where_it_ran(page):
    """Its section does; an experiment is run by tests/experiments."""
    for heading, text in sections(page):
        for language, code in BLOCK.findall(text):
            what = f"{page.stem}#{heading}: {code}"
            assert language or not re.match("windtunnel|python", code), f"commands are not marked as sh: {what}"
            if language in ("sh", "python", "pycon", "console") and not runs(page, heading, code):
                assert re.search(r"\b20\d\d-\d\d-\d\d\b", text), f"neither run nor dated: {what}"
                assert re.search(r"\bcores?\b|EPYC|Xeon", text), f"no machine is named: {what}"


def runs(page, heading, code):
    names = {page.stem, f"{page.stem}#{heading}"}
    elsewhere = [file for name, file in ELSEWHERE.items() if name in names]
    assert all(page.name in text_of(ROOT / file) or page.stem == "CONTRIBUTING" for file in elsewhere)
    experiments = [re.match(r"windtunnel experiment ([\w-]+)", line) for line in code.splitlines()]
    return bool(elsewhere) or names & set(HERE) or all(one and one[1] in EXPERIMENTS for one in experiments)


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_the_commands_of_a_page_run(name, tmp_path):
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    before = ("" if name in ("tutorial", "howto") else SHORT) + "\n"
    blocks = chosen(name)
    assert blocks
    for kind, code in [("sh", HERE[name]), *blocks]:
        command = ["bash", "-euo", "pipefail", "-c", before + code] if kind == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": bin_first},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def every_command(group, before=""):
    for name, command in group.commands.items():
        yield before + name, command
        if hasattr(command, "commands"):
            yield from every_command(command, f"{before}{name} ")


COMMANDS = dict(every_command(get_command(cli.app)))
SETTINGS = {one.path for prefix in ("", "model.trunk.", "model.encoder.") for one in settings_reference(prefix)}
SETTINGS |= {path.rpartition(".")[0] for path in SETTINGS if path.count(".") > 1}  # parts of a part
NAMES = {name for one in EXPERIMENTS.values() for name in (one.name, *one.rows)} | {
    "NAME",
    "fair-die",
}  # architecture.md
PARTS = "|".join(sorted({path.partition(".")[0] for path in SETTINGS if "." in path} - {"change", "start", "task"}))
NO_SETTINGS = {
    "model.blocks",
    "model.module",
    "model.safetensors",
    "optimizer.safetensors",
    "text.batches",
    "text.tokens",
}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_what_a_page_names_is_there(page):
    """Commands with their options, experiments, settings, benchmarks, files and modules, in blocks and in the text."""
    text = text_of(page)
    spans = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    lines = [line for _, code in BLOCK.findall(text) for line in code.replace("\\\n", " ").splitlines()]
    for said in [" ".join(one.partition("   #")[0].split()) for one in (*spans, *lines)]:
        for command in re.findall(r"(?:^|[;&(] *|-m )windtunnel ((?!COMMAND|-)(?:[^;|&]|\|(?! ))+)", said):
            name = max((one for one in COMMANDS if f"{command} ".startswith(f"{one} ")), key=len, default=None)
            assert name, f"no command: {said}"
            known = {word for one in COMMANDS[name].params for word in (*one.opts, *one.secondary_opts)}
            given = re.sub(r"--arm \"[^\"]*\"", "--arm", command)
            assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", given)) <= known, said
            asked = re.match(r"experiment ([a-zA-Z][\w.-]*)", command)
            assert asked is None or asked[1] in NAMES, said
        paths = set(re.findall(rf"(?<![\w./])(?:{PARTS})\.[a-z_]+\b(?![(/])", said)) - NO_SETTINGS
        assert {path for path in paths if not re.search(r"\.(py|md|csv|jsonl?|txt|toml|png)$", path)} <= SETTINGS, said
        for module in re.findall(r"python -m (benchmarks\.(?!NAME)\w+)", said):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), said
        for file in re.findall(r"(?<![\w/])(?:scripts|tests|benchmarks|examples)/[\w/]+\.\w+", said):
            assert (ROOT / file).exists(), said
        for module in re.findall(r"\bwindtunnel((?:\.[a-z_]+)+)", said):
            if module != ".models.bigram":  # which architecture.md adds
                found(module[1:].split("."))


def found(names):
    """What a dotted name of the package is."""
    thing = importlib.import_module("windtunnel")
    for at, name in enumerate(names, 1):
        if hasattr(thing, "__path__"):
            try:
                thing = importlib.import_module(".".join(["windtunnel", *names[:at]]))
                continue
            except ModuleNotFoundError:
                pass
        thing = getattr(thing, name)
    return thing


def test_what_the_loop_asks_is_what_ranks_answer():
    asked = re.findall(r"^\| `(\w+)\(", text_of(ROOT / "docs" / "parallel.md"), flags=re.MULTILINE)
    assert len(asked) > 8
    assert [name for name in asked if not hasattr(Ranks, name)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """Its cells in their order, as a kernel would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = [cell for cell in json.loads(text_of(path))["cells"] if cell["cell_type"] == "code"]
    names = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert len(cells) > 4
    assert all(cell["execution_count"] for cell in cells)  # what is shown was computed

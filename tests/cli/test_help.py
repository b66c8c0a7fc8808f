"""`--help`: every command stands in a group, no summary is cut short, and its examples are commands that there are."""

import shlex

import pytest
from typer.main import get_command

import windtunnel as wt
from windtunnel import cli
from windtunnel.cli.groups import EXAMPLES, GROUPS


def below(group, before=""):
    """Every command by what is typed for it, those of a subject as "stats mean"."""
    for name, command in group.commands.items():
        yield before + name, command
        if hasattr(command, "commands"):
            yield from below(command, f"{before}{name} ")


TOP = get_command(cli.app)
COMMANDS = dict(below(TOP))
OF_A_RUN = [words for own in EXAMPLES.values() for words in own if " last" in words and words.split()[0] not in (
    "classify", "translate", "resume", "check", "search") and "augmentation" not in words]  # fmt: skip
PLAIN = [
    words for name in EXAMPLES if name.startswith(("stats ", "explain ")) for words in EXAMPLES[name]
    if not {"last", "losses.csv"} & set(words.split())
]  # fmt: skip


def test_every_command_is_in_one_group_and_shown_below_it(windtunnel, command_line):
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(TOP.commands)
    _, out, _ = command_line("--help")
    places = [out.index(f"{heading}:") for heading in GROUPS]
    assert places == sorted(places)
    assert "More:" not in out


def test_every_command_has_examples_and_every_example_is_of_one():
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_examples_whose_options_it_has(name, command_line):
    _, out, _ = command_line(*name.split(), "--help")
    for words in EXAMPLES[name]:
        assert f"  windtunnel {words}\n" in out
        assert words == name or words.startswith(f"{name} ")
        _, of = max((known, found) for known, found in COMMANDS.items() if f"{words} ".startswith(f"{known} "))
        known = {option for parameter in of.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in shlex.split(words) if word.startswith("--")} <= known


@pytest.mark.parametrize("words", PLAIN)
def test_an_example_that_needs_no_run_works(words, windtunnel):
    code, out, err = windtunnel(*shlex.split(words))
    assert (code, err) == (0, "")
    assert out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        wt.train("names", recipe="tiny", steps=20, model__n_layers=1, train__threads=1, progress=False)
    return folder


@pytest.mark.parametrize("words", OF_A_RUN)
def test_an_example_on_the_last_run_works(words, trained, windtunnel, monkeypatch):
    monkeypatch.chdir(trained)
    code, out, err = windtunnel(*shlex.split(words))
    assert code == 0, err
    assert out


@pytest.mark.parametrize("name", ["", *(name for name, command in COMMANDS.items() if hasattr(command, "commands"))])
def test_no_summary_is_cut_short(name, command_line):
    _, out, _ = command_line(*name.split(), "--help")
    assert [line for line in out.splitlines() if line.startswith("  ") and line.endswith("...")] == []

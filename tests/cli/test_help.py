"""`--help`: every command stands in a group, and its examples are commands that there are."""

import shlex

import pytest
from typer.main import get_command

from windtunnel import cli
from windtunnel.cli.groups import EXAMPLES, GROUPS

COMMANDS = get_command(cli.app).commands


def test_every_command_is_in_one_group_and_shown_below_it(windtunnel, command_line):
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(COMMANDS)
    _, out, _ = command_line("--help")
    places = [out.index(f"{heading}:") for heading in GROUPS]
    assert places == sorted(places)
    assert "More:" not in out


@pytest.mark.parametrize("name", [name for name in COMMANDS if not hasattr(COMMANDS[name], "commands")])
def test_a_command_has_examples_whose_options_it_has(name, command_line):
    _, out, _ = command_line(name, "--help")
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    for words in EXAMPLES[name]:
        assert f"  windtunnel {words}\n" in out
        first, *rest = shlex.split(words)
        assert first == name
        assert {word for word in rest if word.startswith("--")} <= known

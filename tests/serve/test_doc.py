"""The blocks of docs/serve.md run against a server."""

import contextlib
import io
import os
import re
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/serve.md"
OWN = "http://127.0.0.1:8000"


def blocks(kind):
    text = PAGE.read_text(encoding="utf-8").split("## Ask it")[1].split("\n## ")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_what_the_page_asks_is_answered(server, root, monkeypatch):
    [asked], [program] = blocks("sh"), blocks("python")
    os.utime(root / "names")  # `last` is the folder that changed last
    server.app.state.worker.names._listed -= 10
    done = subprocess.run(["bash", "-euc", asked.replace(OWN, server.url)], capture_output=True, text=True, check=True)
    assert '"text":"mar' in done.stdout
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(program.replace(OWN, server.url), PAGE.name, "exec"), {})
    text, _, rest = out.getvalue().partition(" [")
    assert rest.endswith(f"]\n{text}")


def test_the_page_names_every_route_and_the_right_number_of_places(server):
    text = PAGE.read_text(encoding="utf-8")
    paths = {route.path.partition("/{")[0] for route in server.app.routes}
    for path in paths:
        assert path == "/" or path.startswith(("/page/", "/static")) or f"`{path}" in text
    assert f"its {server.app.state.worker.places} places" in text


@pytest.mark.parametrize("option", ["--port", "--memory", "--host", "--allow-host", "--root-path", "--token"])
def test_the_page_explains_every_option(option):
    assert f"`{option}" in PAGE.read_text(encoding="utf-8")

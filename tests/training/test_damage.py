"""Whatever is altered in a run folder, loading names the file: as an error, or as a warning when it can do without."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_runs import stop_after

from windtunnel.errors import ArtifactError, NumericsError
from windtunnel.training.disk import MANIFEST, is_locked, manifest_bytes, read_files, read_manifest
from windtunnel.training.events import read_events
from windtunnel.training.loop import resume
from windtunnel.training.run import load, open_run, open_start
from windtunnel.training.run_config import Start

TOP = ["config.json", "tokenizer.json", "record.json", "manifest.json", "metrics.jsonl"]
FILES = [*TOP, *(f"step-{n}/{f}" for n in (4, 5) for f in ("model.safetensors", "optimizer.safetensors", MANIFEST))]


@pytest.fixture(scope="module")
def original(config, tmp_path_factory) -> Path:
    """A run with two checkpoints, step-5 and an older one."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    stop_after(config, folder, 4)
    stop_after(config, folder, 5)
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted([*FILES, "lock"])
    assert load(folder).warnings == ()
    return folder


@pytest.fixture
def run(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def complaint(folder: Path) -> str:
    """What loading says about the folder; empty when it says nothing."""
    try:
        return " ".join(load(folder).warnings)
    except ArtifactError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit(run, name):
    path = run / name
    data, draw = path.read_bytes(), random.Random(name)
    places = {0, len(data) - 1, *draw.sample(range(len(data)), 12)}
    for place, bit in [(place, draw.randrange(8)) for place in places] + [(len(data) - 1, bit) for bit in range(8)]:
        altered = bytearray(data)
        altered[place] ^= 1 << bit
        path.write_bytes(altered)
        assert name in complaint(run), f"byte {place}, bit {bit}"
    path.write_bytes(data)
    assert complaint(run) == ""


@pytest.mark.parametrize("folder", [".", "step-5"])
def test_every_bit_of_a_manifest(run, folder):
    path = run / folder / MANIFEST
    data = path.read_bytes()
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        with pytest.raises(ArtifactError, match=MANIFEST):
            read_manifest(run / folder)


def test_every_byte_of_the_small_files(run):
    manifest = read_manifest(run)
    for name in ("config.json", "record.json", "tokenizer.json"):
        data = (run / name).read_bytes()
        for place in range(len(data)):
            altered = bytearray(data)
            altered[place] ^= 1 << place % 8
            (run / name).write_bytes(altered)
            with pytest.raises(ArtifactError, match=name):
                read_files(run, manifest)
        (run / name).write_bytes(data)


def test_bytes_all_over_the_metrics(run):
    path = run / "metrics.jsonl"
    data = path.read_bytes()
    for place in [*range(0, len(data) - 300, 7), *range(len(data) - 300, len(data))]:
        altered = bytearray(data)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        with pytest.raises(ArtifactError, match="metrics"):
            read_events(path)


@pytest.mark.parametrize("name", FILES)
def test_truncated_emptied_missing_lengthened_replaced(run, name):
    path = run / name
    data = path.read_bytes()
    saved = read_manifest(run / "step-5")["metrics_size"]
    for length in (0, 1, len(data) // 2, (saved if name == "metrics.jsonl" else len(data)) - 1):
        path.write_bytes(data[:length])
        assert name in complaint(run), f"first {length} bytes"
    path.write_bytes(data + b"}\n")
    assert name in complaint(run)
    path.unlink()
    assert name in complaint(run)
    path.mkdir()
    assert name in complaint(run)


@pytest.mark.parametrize("name", [*FILES, "lock"])
def test_only_regular_files_are_read_and_written(run, tmp_path, name):
    """A pipe would be waited for, /dev/zero fills memory, and a link leads out of the run."""
    outside = tmp_path / "outside"
    shutil.copyfile(run / name, outside)
    for put in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(outside)):
        (run / name).unlink()
        put(run / name)
        if name != "lock":
            assert f"{name} is not a regular file" in complaint(run)
        if name in (*TOP, "lock"):
            with pytest.raises(ArtifactError, match=f"{name} is not a regular file"):
                list(resume(run))
    if name == "metrics.jsonl":
        with pytest.raises(ArtifactError, match=f"{name} is not a regular file"):
            open_run(run).events()
    assert is_locked(run) is False


def test_a_log_that_is_a_link_is_not_written_through(run, tmp_path):
    outside = tmp_path / "diary.txt"
    outside.write_text("mine\n" * 10_000)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(outside)
    for folder in run.glob("step-*"):
        shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl is not a regular file"):
        list(resume(run))
    assert outside.read_text() == "mine\n" * 10_000


def test_a_manifest_too_large_to_be_one_is_not_read(run):
    os.truncate(run / MANIFEST, 64 * 2**20 + 1)
    with pytest.raises(ArtifactError, match=r"manifest\.json was altered: 67108865 bytes, expected at most 67108864"):
        read_manifest(run)


def test_a_last_line_cut_short_by_a_kill_is_no_damage(run):
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert complaint(run) == ""
    assert read_events(path)


@pytest.mark.parametrize("damage", ["zeros", "whole lines", "missing"])
def test_a_log_shorter_than_when_it_was_saved_is_not_read_as_that_of_an_unfinished_run(run, damage):
    path = run / "metrics.jsonl"
    assert open_run(run).events()
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    if damage != "missing":
        path.write_bytes(bytes(len(b"".join(lines))) if damage == "zeros" else b"".join(lines[:4]))
    for kinds in ((), ("stopped",)):
        with pytest.raises(ArtifactError, match=r"metrics\.jsonl (was truncated|was altered|cannot be read)"):
            open_run(run).events(*kinds)


def test_a_run_whose_model_is_its_last_checkpoint_is_begun_with_whatever_its_log_says(run):
    (run / "metrics.jsonl").write_bytes(b"gone")
    assert open_start(Start(run=str(run)))[1].step == 5


def test_an_altered_log_stops_a_resume(run):
    path = run / "metrics.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"loss": ', b'"loss": 1', 1))
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl was altered in line"):
        list(resume(run))
    path.write_bytes(data[:200])
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl was"):
        list(resume(run))


def test_older_checkpoint_is_used_aloud_and_none_is_an_error(run):
    (run / "step-5/model.safetensors").write_bytes(b"")
    loaded = load(run)
    assert loaded.step == 4
    assert "step-5/model.safetensors was truncated or altered: 0 bytes" in loaded.warnings[0]
    assert "going back to step 4" in loaded.warnings[0]
    (run / "step-4/optimizer.safetensors").unlink()
    with pytest.raises(
        ArtifactError, match=r"no checkpoint of .*step-5/model\.safet.*step-4/optimizer\.safet.*train again"
    ):
        load(run)


def test_a_checkpoint_replaced_by_a_file_or_renamed_or_unfinished(run):
    shutil.rmtree(run / "step-5")
    (run / "step-5").write_text("")
    assert "step-5" in complaint(run)
    (run / "step-5").unlink()
    shutil.copytree(run / "step-4", run / "step-6")
    assert "step-6/manifest.json is of step 4" in complaint(run)
    shutil.rmtree(run / "step-6")
    (run / ".tmp-step-6-123").mkdir()
    (run / "step-x").mkdir()
    (run / "step-²").mkdir()
    assert complaint(run) == ""


def test_a_run_without_checkpoints(run):
    for folder in run.glob("step-*"):
        shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match="has no checkpoint yet; train it first: windtunnel resume"):
        load(run)


def resigned(folder: Path, drop: str = "", **changes: object) -> None:
    """Change a manifest and give it a valid SHA-256, as another program could."""
    old = read_manifest(folder)
    files = {name: (folder / name).read_bytes() for name in old["files"]}
    facts = {key: value for key, value in {**old, **changes}.items() if key not in {"files", drop}}
    if drop == "files" or "files" in changes:
        body = {**{key: value for key, value in old.items() if key != "files"}, **changes}
        text = lambda data: (json.dumps(data, sort_keys=True, indent=1) + "\n").encode()  # noqa: E731
        (folder / MANIFEST).write_bytes(text({**body, "sha256": hashlib.sha256(text(body)).hexdigest()}))
    else:
        (folder / MANIFEST).write_bytes(manifest_bytes(files, facts))


@pytest.mark.parametrize("folder", [".", "step-5"])
def test_a_newer_format_is_named_and_never_passed_over(run, folder):
    resigned(run / folder, format=2)
    before = sorted(run.rglob("*"))
    for action in (load, lambda run: list(resume(run))):
        with pytest.raises(ArtifactError, match="has format 2, this windtunnel reads up to 1; install a newer"):
            action(run)
    assert sorted(run.rglob("*")) == before


BAD_FILES = [[], {"a": 1}, {"../x": {"size": 1, "sha256": "0" * 64}}, {"a": {"size": -1, "sha256": "0" * 64}}, {}]


@pytest.mark.parametrize("folder", [".", "step-5"])
@pytest.mark.parametrize("files", BAD_FILES, ids=str)
def test_crafted_lists_of_files(run, folder, files):
    resigned(run / folder, files=files)
    assert "manifest.json was not made by windtunnel" in complaint(run)


@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        (".", {"drop": "files"}),
        (".", {"format": "1"}),
        (".", {"format": 0}),
        ("step-5", {"drop": "files"}),
        ("step-5", {"drop": "step"}),
        ("step-5", {"step": "5"}),
        ("step-5", {"drop": "first_loss"}),
        ("step-5", {"first_loss": "low"}),
        ("step-5", {"drop": "metrics_size"}),
        ("step-5", {"metrics_size": -1}),
    ],
    ids=str,
)
def test_crafted_manifests(run, folder, changes):
    resigned(run / folder, **changes)
    assert "manifest.json was not made by windtunnel" in complaint(run)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b'{"corpus": 7}'),
        ("config.json", b"\xff"),
        ("tokenizer.json", b"{}"),
        ("record.json", b"{}"),
        ("record.json", b"null"),
        ("record.json", b"[" * 100_000),
    ],
)
def test_crafted_files_with_valid_checksums(run, name, content):
    (run / name).write_bytes(content)
    resigned(run)
    assert name in complaint(run)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 8 + b"{}"], ids=["empty", "zeros", "huge header"])
def test_crafted_weights_with_valid_checksums(run, content):
    (run / "step-5/model.safetensors").write_bytes(content)
    resigned(run / "step-5")
    assert "step-5/model.safetensors is not a safetensors file" in complaint(run)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(run, number):
    """Nothing that is computed with them means anything; a loss of NaN was told as 0 bits."""
    path = run / "step-5/model.safetensors"
    weights = load_file(path)
    weights["norm.weight"][3] = number
    save_file(weights, path)
    resigned(run / "step-5")
    start = Start(run=str(run))
    for use in (load, lambda folder: open_start(start)):
        with pytest.raises(ArtifactError, match=r"step-5/model\.saf.*: norm\.weight holds .* not finite.*use step-4"):
            use(run)
    with pytest.raises(NumericsError, match="training diverged at step 6: the loss is nan"):  # says so, as before
        list(resume(run))
    shutil.rmtree(run / "step-5")
    assert load(run).step == 4


def test_weights_and_state_of_another_model(run):
    path = run / "step-5/model.safetensors"
    weights = load_file(path)
    weights["extra"] = weights.pop("embedding.weight")[:, :3].contiguous()
    save_file(weights, path)
    resigned(run / "step-5")
    with pytest.raises(ArtifactError, match=r"embedding\.weight: expected .*, given nothing; extra: expected no such"):
        load(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"exp_avg/other": state.pop("exp_avg/embedding.weight")}),
            "belongs to no parameter",
        ),
        (lambda state: state.pop("exp_avg/embedding.weight"), "lacks exp_avg/embedding.weight"),
        (
            lambda state: state.update({"exp_avg/embedding.weight": state["exp_avg/norm.weight"] + 0}),
            "does not fit: expected",
        ),
    ],
)
def test_optimizer_state_of_another_model(run, change, message):
    path = run / "step-5/optimizer.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    resigned(run / "step-5")
    with pytest.raises(ArtifactError, match=message):
        list(resume(run))


def test_altered_lines_are_no_events(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for line in (b"", b"[]", b"7", b'{"event": "step"}', b'{"event": [], "crc": 1}', b"[" * 100_000, b"\xff"):
        path.write_bytes(line + b"\n")
        with pytest.raises(ArtifactError, match=r"metrics\.jsonl was altered in line 1"):
            read_events(path)

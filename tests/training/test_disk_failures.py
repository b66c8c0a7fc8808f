"""A disk that refuses: at each call that writes, an error with its cure, and nothing of what was saved is lost."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_runs import config_of, final_hashes, finish, names_file, stop_after, store_of

from patience import PATIENCE
from windtunnel import files
from windtunnel.errors import BusyError, ConfigError, SaveError
from windtunnel.training import disk, loop
from windtunnel.training.disk import locked, write_folder
from windtunnel.training.loop import resume
from windtunnel.training.run import create_run, is_run, load, resolve

CALLS = ("open", "write", "fsync", "rename", "mkdir", "truncate")
READING = (os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, os.O_RDONLY | os.O_NONBLOCK)
"""How files are opened that are only read: our own, and those that a user names."""
CURES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EACCES: "make the folder writable or choose another with --out",
    errno.EIO: "check the disk",
}


class FailingOs:
    """The module `os`, but the `number`-th call (from 0) of one of CALLS fails, and the later ones too if `forever`."""

    def __init__(self, number: int, code: int, forever: bool = False) -> None:
        self.number, self.code, self.forever, self.count, self.failed = number, code, forever, 0, ""

    def __getattr__(self, name: str):
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args, **named):
            if name == "open" and args[1] in READING:
                return real(*args, **named)
            self.count += 1
            if self.count == self.number + 1 or (self.forever and self.count > self.number):
                self.failed = name
                raise OSError(self.code, os.strerror(self.code), str(args[0]))
            return real(*args, **named)

        return call


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """(config, folder of a run stopped at its first checkpoint, hashes of the whole run): one step and a save to go."""
    work = tmp_path_factory.mktemp("short")
    config = config_of(
        names_file(work), "train.steps=3", "train.save_every=2", "train.keep=1", "train.grad_accumulation=1"
    )
    finish(config, work / "whole")
    stop_after(config, work / "begun", 2)
    return config, work / "begun", final_hashes(work / "whole")


@pytest.mark.parametrize("code", CURES, ids=["ENOSPC", "EACCES", "EIO"])
def test_each_call_of_a_resumed_run(short, tmp_path, monkeypatch, code):
    _, begun, expected = short
    failed: list[str] = []
    for number in range(100):
        folder, failing = tmp_path / f"run-{number}", FailingOs(number, code)
        shutil.copytree(begun, folder)
        message = refused(folder, failing, monkeypatch)
        if not failing.failed:  # there were fewer calls than that
            assert message == ""
            break
        failed.append(failing.failed)
        assert CURES[code] in message
        assert str(folder) in message
        left = load(folder)
        assert left.step in (2, 3)
        assert left.warnings == ()
        assert not list(folder.glob(".tmp-*"))
        if number % 4 == code % 4:  # each call under one of the errors, to save time
            list(resume(folder))
            assert final_hashes(folder) == expected
            assert not list(folder.glob(".tmp-*"))
    # What there is to refuse: the lock, the log's truncation and its events; of a save three files and two folders; the
    # renames of the save and of what pruning deletes.
    assert failed.count("write") >= 6
    assert failed.count("fsync") >= 6
    assert failed.count("rename") >= 2
    assert {"open", "mkdir", "truncate"} <= set(failed)


def patch_os(patch: pytest.MonkeyPatch, failing: FailingOs) -> None:
    """Have all that writes a run go through `failing`."""
    for module in (files, disk, loop):
        patch.setattr(module, "os", failing)


def refused(folder: Path, failing: FailingOs, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message of the SaveError with which resuming ends, empty when it ends well."""
    with monkeypatch.context() as patch:
        patch_os(patch, failing)
        try:
            list(resume(folder))
        except SaveError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("code", CURES, ids=["ENOSPC", "EACCES", "EIO"])
def test_each_call_of_making_a_run(short, tmp_path, monkeypatch, code):
    config = short[0]
    store = store_of(config)
    resolved = resolve(config, store)
    for number in range(100):
        folder, failing = tmp_path / f"run-{number}", FailingOs(number, code)
        with monkeypatch.context() as patch:
            patch_os(patch, failing)
            message = ""
            try:
                create_run(folder, resolved, store)
            except SaveError as error:
                message = str(error)
        if not failing.failed:
            break
        assert CURES[code] in message
        assert not folder.exists() or number > 12  # the very last: it is there, but its name is not yet synced
        assert not list(tmp_path.glob(".tmp-*"))
        assert is_run(create_run(folder, resolved, store).folder)
    assert number > 12


def test_a_disk_that_stays_full(short, tmp_path, monkeypatch):
    """Nothing can be written from some event on, not even at the end: still one SaveError."""
    shutil.copytree(short[1], tmp_path / "run")
    for number in (1, 3, 5, 12):
        assert CURES[errno.ENOSPC] in refused(tmp_path / "run", FailingOs(number, errno.ENOSPC, True), monkeypatch)
        assert load(tmp_path / "run").step == 2
    list(resume(tmp_path / "run"))
    assert final_hashes(tmp_path / "run") == short[2]


def test_a_really_full_disk(short, tmp_path):
    disk_folder = tmp_path / "disk"
    disk_folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(disk_folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        shutil.copytree(short[1], disk_folder / "run")
        filler, size = disk_folder / "filler", os.statvfs(disk_folder)
        filler.write_bytes(bytes(size.f_bavail * size.f_bsize - 24576))
        with pytest.raises(SaveError, match="the disk is full: free some space"):
            list(resume(disk_folder / "run"))
        assert load(disk_folder / "run").step == 2
        filler.unlink()
        list(resume(disk_folder / "run"))
        assert final_hashes(disk_folder / "run") == short[2]
    finally:
        subprocess.run(["umount", str(disk_folder)], check=True)


def test_an_unwritable_place_is_named(short, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = store_of(short[0])
    with pytest.raises(SaveError, match=r"could not write .*file/run"):
        create_run(tmp_path / "file" / "run", resolve(short[0], store), store)


def test_replacing_deletes_the_old_folder_only_when_the_new_one_is_on_disk(tmp_path, monkeypatch):
    write_folder(tmp_path / "step-1", {"a": b"old"}, {})
    for number in range(10):
        with monkeypatch.context() as patch:
            patch_os(patch, FailingOs(number, errno.ENOSPC))
            with pytest.raises(SaveError):
                write_folder(tmp_path / "step-1", {"a": b"new"}, {}, replace=True)
            assert not list(tmp_path.glob(".tmp-*"))
        assert (tmp_path / "step-1/a").read_bytes() == b"old"
    write_folder(tmp_path / "step-1", {"a": b"new"}, {}, replace=True)
    assert (tmp_path / "step-1/a").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_two_writers(short, tmp_path):
    """The second is refused at once; a killed holder leaves no lock behind."""
    shutil.copytree(short[1], tmp_path / "run")
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with locked(tmp_path / "run"):
            held.set()
            context.Event().wait()

    holder = context.Process(target=hold)
    holder.start()
    try:
        assert held.wait(PATIENCE)
        with pytest.raises(BusyError, match=r"run is being written by another process; wait for it, or .*--out"):
            list(resume(tmp_path / "run"))
        assert load(tmp_path / "run").step == 2  # reading is always possible
    finally:
        holder.kill()
        holder.join()
    list(resume(tmp_path / "run"))
    assert final_hashes(tmp_path / "run") == short[2]


def test_who_makes_the_same_run_at_once_gets_it(short, tmp_path):
    """Threads are as processes here: each has a temporary folder of its own, and one rename comes first."""
    config, store = short[0], store_of(short[0])
    resolved = resolve(config, store)
    for number in range(5):
        start, folder = threading.Barrier(8), tmp_path / f"run-{number}"

        def make(start=start, folder=folder):
            start.wait()
            return create_run(folder, resolved, store).config

        with ThreadPoolExecutor(8) as threads:
            made = [threads.submit(make) for _ in range(8)]
        assert [future.result() for future in made] == [resolved] * 8
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        create_run(folder, resolved.replace(seed=1), store)
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("call", range(6))
def test_a_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch, call):
    """Creating, opening, writing, syncing, renaming fail one after the other."""
    path = tmp_path / "comparison.json"
    path.write_text("before")
    with monkeypatch.context() as patch:
        patch_os(patch, FailingOs(call, errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            files.write_text(path, "after")
    assert path.read_text() == ("before" if call < 5 else "after")  # at last its name is not yet synced
    assert [file.name for file in tmp_path.iterdir()] == ["comparison.json"]

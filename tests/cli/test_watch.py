"""`runs --watch`: on a real terminal, as runs come and end; and what it refuses."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

import pytest

from patience import wait_for
from windtunnel.config import override
from windtunnel.runs import watching
from windtunnel.runs.watching import watch_runs
from windtunnel.training.disk import locked
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe

CHANGES = ["model.n_layers=1", "model.n_heads=2", "model.d_model=8", "train.steps=2", "train.threads=1"]


def begin(folder):
    """The events of a run, of which the first has happened."""
    events = fit(override(recipe("tiny", "names"), CHANGES), folder)
    next(events)
    return events


def test_the_list_follows_the_runs_on_a_terminal_and_ctrl_c_leaves_it(tmp_path):
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    shown = bytearray()

    def says(text):
        """Whether a text has been drawn since the last question that was answered."""
        while select.select([ours], [], [], 0)[0]:
            shown.extend(os.read(ours, 65536))
        if text not in shown.decode(errors="replace"):
            return False
        shown.clear()
        return True

    watching = subprocess.Popen(
        [sys.executable, "-m", "windtunnel", "runs", "--watch"], cwd=tmp_path, stdin=its, stdout=its, stderr=its,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    try:
        wait_for(lambda: says("no runs below ./runs yet"))
        events = begin(tmp_path / "runs/some/seed-0")
        wait_for(lambda: says("training"))
        for _ in events:
            pass
        wait_for(lambda: says("2/2"))
        os.write(ours, b"\x03")
        wait_for(lambda: says("\0") or watching.poll() is not None)  # read on: it cannot end before it has drawn
    finally:
        watching.kill()
    assert watching.returncode == 0
    os.close(its)
    os.close(ours)


def test_only_what_may_have_changed_is_read_again(tmp_path, monkeypatch):
    read = []
    whole = watching.describe_all
    monkeypatch.setattr(watching, "describe_all", lambda folders: read.extend(folders) or whole(folders))
    done, open_ = tmp_path / "done", tmp_path / "open"
    for _ in begin(done):
        pass
    begin(open_).close()
    now = [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])

    def pause(seconds):
        now[0] += seconds

    seen = watch_runs(tmp_path, pause)
    assert sorted(one["state"] for one in next(seen)) == ["finished", "interrupted"]
    assert sorted(read) == [done, open_]
    with locked(open_):
        read.clear()
        assert sorted(one["state"] for one in next(seen)) == ["finished", "training"]
        assert read == [open_]
    with (open_ / "metrics.jsonl").open("a"):
        os.utime(open_ / "metrics.jsonl")
    before = now[0]
    next(seen)
    assert now[0] - before == watching.PAUSE  # not after 2 seconds
    for path in sorted(done.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    done.rmdir()
    assert [one["folder"] for one in next(seen)] == [str(open_)]


def test_a_run_that_may_not_be_read_is_damaged_and_hides_no_other(tmp_path):
    for name in ("one/seed-0", "two/seed-0"):
        begin(tmp_path / name).close()
    seen = watch_runs(tmp_path, lambda seconds: None)
    assert [one["state"] for one in next(seen)] == ["interrupted", "interrupted"]
    closed = tmp_path / "one/seed-0"
    closed.chmod(0)
    try:
        if os.access(closed, os.R_OK):
            pytest.skip("root may read everything")
        assert sorted(one["state"] for one in next(seen)) == ["damaged", "interrupted"]
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--watch", "--json"), "nothing else; leave --json out"),
        (("last", "--watch"), "nothing else; leave RUN out"),
        (("--watch", "--figure", "a.png"), "nothing else; leave --figure out"),
        (("--watch",), "stdout is none; leave it out, or give --json instead"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_the_cure(windtunnel, words, said):
    code, out, err = windtunnel("runs", *words)
    assert (code, out) == (2, "")
    assert said in err

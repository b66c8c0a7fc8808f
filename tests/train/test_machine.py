"""What a process says of the machine it runs on."""

import subprocess
import sys

import numpy as np

PEAK = "from windtunnel.train import machine; print(machine.peak_memory())"


def test_the_peak_memory_is_the_processs_own_and_not_its_parents():
    held = np.ones(75_000_000)  # 600 MB
    said = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 50e6 < int(said.stdout) < held.nbytes


def test_the_peak_memory_grows_with_what_is_held():
    program = f"import numpy\n{PEAK}\nheld = numpy.ones(40_000_000)\n{PEAK.partition('; ')[2]}"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(int, said.stdout.split())
    assert 300e6 < after - before < 400e6

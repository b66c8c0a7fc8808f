"""What a run runs on: device, precision, compiler, threads, versions, and how fast the machine multiplies."""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from windtunnel.errors import SaveError
from windtunnel.text.corpora.cache import private_folder

Precision = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""The names of malloc's settings (mallopt(3))."""


def device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_fast_bf16() -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device().type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device().type != "cuda" or torch.cuda.is_bf16_supported()


def autocast(precision: str) -> torch.autocast:
    """While this lasts, matrix products are in the given precision."""
    # Every weight is cast once in a pass, so a cache would only keep the copies of whole blocks that are sharded.
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler for CPU code."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@cache
def prepare_compiler() -> str:
    """Give torch's compiler a folder that nobody else may write to; what a person must know of it, or nothing.

    Its own is `torchinductor_USER` below the system's temporary folder, which another user may have made first; what it
    finds there, it runs. One that the user has set as TORCHINDUCTOR_CACHE_DIR is taken. To be called before anything is
    compiled; the processes that this one starts inherit the folder.
    """
    said, variable = "", "TORCHINDUCTOR_CACHE_DIR"
    # As soon as its compiler is imported, torch makes its own folder and sets the variable to it.
    if os.environ.get(variable, torchs := f"{tempfile.gettempdir()}/torchinductor_").startswith(torchs):
        try:
            os.environ[variable] = str(private_folder("compiler"))
        except SaveError as error:
            said = f"what is compiled is not kept for the next process: {error}"
            os.environ[variable] = tempfile.mkdtemp(prefix="windtunnel-compiler-")
            atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)
    from torch._inductor import codecache

    # Precompiled headers lie below torch's own folder whatever the variable says.
    codecache._HEADER_DIR = f"{os.environ[variable]}/precompiled_headers"
    codecache._HEADER_LOCK_DIR = f"{codecache._HEADER_DIR}/locks"
    return said


def peak_memory() -> int:
    """The most memory, in bytes, that this process has held so far: on the accelerator if there is one, else in RAM."""
    if device().type != "cpu":
        return torch.accelerator.max_memory_allocated()
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss, which on Linux begins with what the process that started this one held.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def keep_memory() -> None:
    """Keep what is freed for the next step, instead of giving it back and having it filled with zeros again.

    Every step of a training allocates the same tensors, and each page given back is a page fault in the next. The
    process holds a few percent more memory for it. Elsewhere than with glibc nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20)):
            libc.mallopt(setting, value)


@cache
def peak_flops(precision: Precision, threads: int) -> float:
    """The machine's measured matrix-multiply rate in FLOP/s: the best of several products of 1024 x 1024 x 4096.

    Takes about a fifth of a second and is measured once a process. Of a square product oneDNN leaves one core of two
    idle (`windtunnel.nn.linear`).
    """
    n = 1024
    a, b = (torch.randn(n, columns, device=device()).to(DTYPES[precision]) for columns in (n, 4 * n))
    best, deadline = float("inf"), time.perf_counter() + 0.2
    while time.perf_counter() < deadline:
        begin = time.perf_counter()
        torch.mm(a, b)[0, 0].item()
        best = min(best, time.perf_counter() - begin)
    return 8 * n**3 / best


def description() -> dict[str, Any]:
    """Machine and versions, for a run's record and for benchmarks."""
    return {
        "windtunnel": version("windtunnel"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "device": str(device()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "compiler": has_compiler(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()

"""A process -> one made ready for many small steps; call it when all is built, before the first step.

- glibc's allocator keeps what a step frees. Left alone it gives large blocks back to the system, which clears and maps
  them anew at each step. The values are those of `man 3 mallopt`; where the C library is another one, nothing happens.
- Python's garbage collector passes over what exists by now, the objects of all libraries: a walk through them takes
  longer than a step.
- torch uses no more threads than a container may use cores: it counts those of the machine.
- Numbers too small for the normal float format are zero: processors are slow with them.
"""

import atexit
import contextlib
import ctypes
import gc
import math
import multiprocessing
import platform
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1  # bytes


def make_ready() -> None:
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_THRESHOLD, NEVER)
    if multiprocessing.parent_process() is None:
        gc.unfreeze()  # what an earlier job left, where a sweep's jobs share a process
    gc.collect()
    freeze()
    torch.set_num_threads(min(torch.get_num_threads(), cores_allowed()))
    torch.set_flush_denormal(True)


def freeze() -> None:
    """What exists by now is passed over, until the process ends: extensions would report it as leaked (triton does)."""
    gc.freeze()
    atexit.register(gc.unfreeze)


def cores_allowed(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The share of the machine's time that this container has, in cores rounded up (cgroup v2: `200000 100000`)."""
    with contextlib.suppress(OSError, ValueError):
        time, period = map(int, quota.read_text().split())
        return max(1, math.ceil(time / period))
    return torch.get_num_threads()

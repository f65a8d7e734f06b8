"""Configures memory, threads, garbage collection and denormal numbers of a process that computes many equal steps."""

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


def prepare_for_training() -> None:
    """Configures the process for training. Call it when everything is built, before the first step."""
    configure_cpu()
    if multiprocessing.parent_process() is None:
        gc.unfreeze()  # objects of an earlier job, if the jobs of a sweep share a process
    gc.collect()
    freeze()
    torch.set_flush_denormal(True)  # processors are slow with denormal numbers


def configure_cpu() -> None:
    """Configures the process for any computation with a network, also in a user's notebook.

    glibc's allocator then keeps the memory that a step frees (`man 3 mallopt`): by default it returns large blocks to
    the system, which clears and maps them again at the next step. Other C libraries stay as they are. torch uses no
    more threads than a container may use cores; by default it counts the cores of the machine.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_THRESHOLD, NEVER)
    torch.set_num_threads(min(torch.get_num_threads(), cores_allowed()))


def freeze() -> None:
    """Excludes all existing objects from garbage collection, because a walk through them takes longer than a step.

    They are included again when the process ends, because extensions (triton) report remaining objects as leaked.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)


def cores_allowed(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Returns the CPU quota of this container in cores, rounded up (cgroup v2: `200000 100000` are two cores).

    Without a quota, this is torch's number of threads.
    """
    with contextlib.suppress(OSError, ValueError):
        time, period = map(int, quota.read_text().split())
        return max(1, math.ceil(time / period))
    return torch.get_num_threads()

"""Prepares a process for many steps of one size: its memory, threads, garbage collector and small numbers."""

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
    """For training. Call it when everything is built, before the first step."""
    set_up_cpu()
    if multiprocessing.parent_process() is None:
        gc.unfreeze()  # objects of an earlier job, where the jobs of a sweep share a process
    gc.collect()
    freeze()
    torch.set_flush_denormal(True)  # processors are slow with numbers below the normal float format


def set_up_cpu() -> None:
    """For anything that computes with a network, also in a user's notebook.

    glibc's allocator keeps the memory that a step frees (`man 3 mallopt`): by default it returns large blocks to the
    system, which clears and maps them again at the next step. Other C libraries are left alone. torch uses no more
    threads than a container may use cores; by default it counts those of the machine.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_THRESHOLD, NEVER)
    torch.set_num_threads(min(torch.get_num_threads(), cores_allowed()))


def freeze() -> None:
    """Exclude the objects of all libraries from garbage collection: a walk through them takes longer than a step.

    They are included again when the process ends, because extensions (triton) report what is left as leaked.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)


def cores_allowed(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The share of the machine's time that this container has, in cores rounded up (cgroup v2: `200000 100000`)."""
    with contextlib.suppress(OSError, ValueError):
        time, period = map(int, quota.read_text().split())
        return max(1, math.ceil(time / period))
    return torch.get_num_threads()

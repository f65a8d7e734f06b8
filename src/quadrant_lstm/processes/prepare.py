"""Configures memory, threads, garbage collection and denormal numbers of a process that repeats a computation often."""

import atexit
import contextlib
import ctypes
import gc
import math
import multiprocessing
import platform
from pathlib import Path

import torch

from quadrant_lstm.signals import signals_deferred

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1  # bytes


def prepare_for_training() -> None:
    """Configures the process for training. Call it when everything is built, before the first training step."""
    configure_cpu()
    if multiprocessing.parent_process() is None:
        gc.unfreeze()  # objects of an earlier job, if the jobs of a sweep share a process
    with signals_deferred():  # Python drops an exception that is raised while it deletes an object
        gc.collect()
    freeze()
    torch.set_flush_denormal(True)  # processors are slow with denormal numbers


def configure_cpu() -> None:
    """Configures the process for any computation with a network, also in a user's notebook.

    glibc's allocator then keeps the memory that a batch frees (`man 3 mallopt`): by default it returns large blocks to
    the system, which clears and maps them again for the next one. Other C libraries stay as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_THRESHOLD, NEVER)
    torch.set_num_threads(num_threads())


def freeze() -> None:
    """Excludes all existing objects from garbage collection: a walk through them takes longer than a training step.

    They are included again when the process ends, because extensions (triton) report remaining objects as leaked.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)


def num_threads(root: Path = Path("/")) -> int:
    """Returns torch's number of threads, or the CPU quota of this process in cores, rounded up, if that is less.

    torch counts the cores of the machine. In cpu.max, `200000 100000` is a quota of two cores.
    """
    cores = [torch.get_num_threads()]
    for group in control_groups(root):
        with contextlib.suppress(OSError, ValueError):  # no such file; "max 100000"
            time, period = map(int, (group / "cpu.max").read_text().split())
            cores.append(max(1, math.ceil(time / period)))
    return min(cores)


def control_groups(root: Path = Path("/")) -> list[Path]:
    """Returns the folder of this process's control group (cgroup v2) and those of its parents; none outside Linux."""
    file, groups = root / "proc/self/cgroup", root / "sys/fs/cgroup"
    lines = file.read_text().splitlines() if file.exists() else []
    own = [groups / line[3:].strip("/") for line in lines if line.startswith("0::")]
    return [folder for group in own for folder in (group, *group.parents) if folder.is_relative_to(groups)]

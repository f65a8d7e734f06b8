"""A function -> a process of its own that starts at once: forked from one that has imported torch, and used none of it.

What ends it (an error, a kill, a lack of memory) ends nothing else. It ends with its parent, whatever ends that one.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from quadrant_lstm.processes.launch import GRACE, end_with
from quadrant_lstm.processes.prepare import freeze

FORK: Any = multiprocessing.get_context("fork")


def start(work: Callable[[], bool], log: Path, environment: dict[str, str], threads: int) -> Any:
    """`work` says whether all went well. What the process prints besides its messages (a crash) goes to `log`."""
    if not gc.get_freeze_count():
        freeze()  # the libraries' objects stay shared: a garbage collection would write to them
    process = FORK.Process(target=run, args=(work, log, environment, threads, os.getpid()))
    process.start()
    return process


def run(work: Callable[[], bool], log: Path, environment: dict[str, str], threads: int, parent: int) -> None:
    import torch

    end_with(parent)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
    os.environ |= environment
    torch.set_num_threads(threads)
    sys.exit(0 if work() else 1)


def stop(processes: Iterable[Any]) -> None:
    """Ask them to end, and after a while make them."""
    deadline = time.monotonic() + GRACE
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()

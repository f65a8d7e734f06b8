"""Runs a function in a process of its own, forked from this one, which has imported torch but not used it.

So the process starts at once. An error, a kill or a lack of memory ends only that process; it ends with its parent.
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


def start(function: Callable[[], bool], log: Path, environment: dict[str, str], threads: int) -> Any:
    """Starts the process and returns it. Its exit code is 0 if the function returns True; its stderr goes to `log`."""
    if not gc.get_freeze_count():
        freeze()  # keeps the memory of the libraries' objects shared: a garbage collection would write to it
    process = FORK.Process(target=run, args=(function, log, environment, threads, os.getpid()))
    process.start()
    return process


def run(function: Callable[[], bool], log: Path, environment: dict[str, str], threads: int, parent: int) -> None:
    import torch

    end_with(parent)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
    os.environ |= environment
    torch.set_num_threads(threads)
    sys.exit(0 if function() else 1)


def terminate(processes: Iterable[Any]) -> None:
    """Sends SIGTERM to the processes, and kills those that have not ended after GRACE seconds."""
    deadline = time.monotonic() + GRACE
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()

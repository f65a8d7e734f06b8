"""Runs functions in processes of their own, forked from this one, which has imported torch but not used it.

So a process starts at once. An error, a kill or a lack of memory ends only that process; on Linux the kernel kills it
when its parent ends.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from quadrant_lstm.processes.prepare import freeze
from quadrant_lstm.signals import end_with_parent

FORK: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
GRACE = 8.0  # seconds that processes have to end


def start_process(
    function: Callable[[], bool], environment: Mapping[str, str], threads: int, log: Path | None = None
) -> Any:
    """Starts a process and returns it. Its exit code is 0 if the function returns True.

    With `log`, what it prints is discarded, and its stderr is appended to that file.
    """
    if not gc.get_freeze_count():
        freeze()  # keeps the memory of the libraries' objects shared: a garbage collection would write to it
    process = FORK.Process(target=child_main, args=(function, environment, threads, log, os.getpid()))
    process.start()
    return process


def child_main(
    function: Callable[[], bool], environment: Mapping[str, str], threads: int, log: Path | None, parent: int
) -> None:
    end_with_parent(parent)
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 2)
    os.environ |= environment
    torch.set_num_threads(threads)
    sys.exit(0 if function() else 1)


def terminate(processes: Sequence[Any], grace: float = GRACE) -> None:
    """Waits a second, in which Ctrl-C may end the processes, then sends SIGTERM; after `grace` seconds kills them."""
    try:
        start = time.monotonic()
        for seconds in (1.0, grace):
            for process in processes:
                process.join(max(0.0, start + seconds - time.monotonic()))
            for process in processes:
                process.terminate()  # does nothing to a process that has ended
    finally:  # also after a second Ctrl-C; a third would leave processes that Python waits for when it exits
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def how_it_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

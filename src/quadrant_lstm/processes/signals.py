"""Lets SIGTERM end a process, defers it and Ctrl-C for a while, and ends processes with their parents.

Imports no torch.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator

SET_PDEATHSIG = 1  # man 2 prctl
TERMINATED = 128 + signal.SIGTERM  # exit status


def exit_at_sigterm() -> None:
    """Lets SIGTERM raise SystemExit. Does nothing in a thread, where Python cannot set handlers."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)


def terminated(*_: object) -> None:
    sys.exit(TERMINATED)


def end_with_parent(parent: int) -> None:
    """On Linux, lets the kernel kill this process when its parent ends. `parent` is the parent's process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # it has already ended


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defers SIGINT (Ctrl-C) and SIGTERM to the end of the block.

    Use it for imports of torch and Lightning, too: some of their modules catch all exceptions, also this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    received: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum in handlers:
        signal.signal(signum, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for number in received[:1]:
        signal.raise_signal(number)

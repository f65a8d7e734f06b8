"""Lets Ctrl-C and SIGTERM end a process, defers them for a while, and ends processes with their parents.

Imports no torch.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from quadrant_lstm.errors import and_contexts

SET_PDEATHSIG = 1  # man 2 prctl
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that end a process
TERMINATED = 128 + signal.SIGTERM  # exit status
SECONDS_FOR_WORKERS = 3.0  # seconds that workers have to finish their batches
DROPPED_FOR = 0.02  # seconds until an exception that Python has dropped is raised again


class Interrupt(SystemExit):
    """Raised at SIGINT (Ctrl-C) and SIGTERM. Its code is a shell's exit status for the signal, 130 or 143.

    It is no KeyboardInterrupt because Lightning answers that with exit status 1.
    """

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signum = signum


@contextlib.contextmanager
def interrupts_first() -> Iterator[None]:
    """Raises the Interrupt that led to another error, such as one of a library that did not finish what it did."""
    try:
        yield
    except Exception as error:
        for cause in and_contexts(error):
            if isinstance(cause, Interrupt):
                raise cause from None
        raise


def exit_at_signals() -> None:
    """Lets SIGINT and SIGTERM raise Interrupt.

    Python drops an exception that is raised while it deletes an object, such as a DataLoader with its processes. Then
    it is raised again a little later, until it ends the process.
    """
    handle_signals(interrupt)
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):  # not on Windows
        sys.unraisablehook = raise_again


def handle_signals(handler: Callable[[int, Any], None]) -> None:
    """Sets the handler of the signals that are not ignored. Does nothing in a thread, where Python cannot set any."""
    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, handler)


def interrupt(signum: int, _: object) -> None:
    raise Interrupt(signum)


def raise_again(unraisable: Any) -> None:
    dropped = unraisable.exc_value
    if not isinstance(dropped, Interrupt):
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(dropped.signum))
    signal.setitimer(signal.ITIMER_REAL, DROPPED_FOR)


def prepare_to_exit() -> None:
    """For a process that has finished its work. While Python exits, it drops exceptions, so signals end it at once; and
    it waits for its workers one after another, so those that still read a batch after a while are terminated.
    """
    handle_signals(lambda signum, _: os._exit(128 + signum))
    reaper = threading.Timer(SECONDS_FOR_WORKERS, terminate_workers)
    reaper.daemon = True
    reaper.start()


def terminate_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.terminate()


def end_with_parent(parent: int) -> None:
    """On Linux, lets the kernel kill this process when its parent ends. `parent` is the parent's process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # it has already ended


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Defers SIGINT (Ctrl-C) and SIGTERM to the end of the block."""
    received: list[int] = []
    with handled_by(lambda number, _: received.append(number)):
        yield
    for number in received[:1]:
        signal.raise_signal(number)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Lets the signals end the process at once while it imports torch and Lightning, which takes seconds.

    Nothing has begun that could be lost, and some of these modules would catch an exception.
    """
    with handled_by(end_at_once):
        yield


@contextlib.contextmanager
def handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    earlier = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handle_signals(handler)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, own in earlier.items():
                signal.signal(signum, own)


def end_at_once(signum: int, _: object) -> None:
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes only the first says it
        os.write(2, b"interrupted\n")
    os._exit(128 + signum)

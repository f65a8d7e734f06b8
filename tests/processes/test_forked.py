"""Tests how forked processes end."""

import os
import signal
import threading
import time

import pytest

from quadrant_lstm.processes.forked import start_process, terminate
from quadrant_lstm.processes.launch import wait_for
from quadrant_lstm.processes.signals import signals_deferred


def sleep_through_sigterm() -> bool:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
    return True


def test_a_process_that_ignores_sigterm_is_killed():
    process = start_process(sleep_through_sigterm, {}, threads=1)
    time.sleep(0.2)
    terminate([process], grace=1.2)
    assert process.exitcode == -signal.SIGKILL


class JustEnding:
    """Stands for a process at a moment that cannot be produced at will: it has closed its files, which ends a wait for
    its sentinel, and the kernel reports its end only when it is asked for the second time."""

    def __init__(self, exitcode: int):
        self.codes = [None, exitcode]
        self.sentinel, writer = os.pipe()
        os.close(writer)

    @property
    def exitcode(self) -> int | None:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]

    def is_alive(self) -> bool:
        return self.exitcode is None


@pytest.mark.parametrize("exitcode", [1, -signal.SIGKILL, 0])
def test_a_process_that_ends_while_it_is_asked_is_noticed(exitcode):
    processes = [JustEnding(0), JustEnding(exitcode)]
    assert wait_for(processes) == (1 if exitcode else None)


def test_ctrl_c_kills_processes_that_are_given_time_to_end(ctrl_c):
    process = start_process(sleep_through_sigterm, {}, threads=1)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        terminate([process], grace=60.0)
    assert time.monotonic() - start < 10
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_waits_for_code_that_catches_all_exceptions(signum, error):
    """As some libraries do while they are imported."""

    def end(*_):
        raise error

    handler, done = signal.signal(signum, end), []
    try:
        with pytest.raises(error), signals_deferred():
            try:
                os.kill(os.getpid(), signum)
                done.append(time.sleep(0.1))
            except BaseException:
                pass
    finally:
        signal.signal(signum, handler)
    assert done

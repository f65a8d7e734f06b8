"""Tests how forked processes end."""

import functools
import os
import signal
import threading
import time

import pytest

from quadrant_lstm.processes.forked import start_process, terminate
from quadrant_lstm.processes.importing import importing


def sleep_through_sigterm() -> bool:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
    return True


def test_a_process_that_ignores_sigterm_is_killed():
    process = start_process(sleep_through_sigterm, {}, threads=1)
    time.sleep(0.2)
    terminate([process], grace=1.2)
    assert process.exitcode == -signal.SIGKILL


def test_a_second_ctrl_c_kills_the_processes_at_once():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    process = start_process(sleep_through_sigterm, {}, threads=1)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        terminate([process], grace=60.0)
    assert time.monotonic() - start < 10
    assert process.exitcode == -signal.SIGKILL


def send_to_itself(signum: int) -> bool:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with importing():
        try:
            os.kill(os.getpid(), signum)
            time.sleep(10)
        except BaseException:  # as some libraries do while they are imported
            pass
    return True


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_that_imports(signum):
    process = start_process(functools.partial(send_to_itself, signum), {}, threads=1)
    process.join(10)
    assert process.exitcode == 128 + signum

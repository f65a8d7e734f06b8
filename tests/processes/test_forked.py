"""Tests how forked processes end."""

import functools
import os
import signal
import threading
import time

import pytest

from quadrant_lstm.processes.launch import FORK, LostProcess, run_rank, start_process, terminate, wait_for
from quadrant_lstm.signals import signals_deferred


def sleep_through_sigterm() -> bool:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
    return True


def test_a_process_that_ignores_sigterm_is_killed():
    process = start_process(sleep_through_sigterm, {}, threads=1)
    time.sleep(0.2)
    terminate([process], grace=1.2)
    assert process.exitcode == -signal.SIGKILL


def get_signal(signum: int) -> bool:
    os.kill(os.getpid(), signum)
    return True


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (lambda: True, None),
        (lambda: False, "process 2 of 2 ended with status 1"),
        (functools.partial(get_signal, signal.SIGKILL), "process 2 of 2 was killed by SIGKILL"),
        (functools.partial(get_signal, signal.SIGSTOP), "process 2 of 2 did not answer within 2 s (trainer.strategy.t"),
    ],
)
def test_the_end_of_a_process_is_told(function, how):
    processes = [start_process(function, {}, threads=1) for function in (lambda: True, function)]
    told = wait_for(processes, [FORK.Pipe()[0] for _ in processes], timeout=2.0)
    assert (told or "").startswith(how or "") and bool(told) == bool(how)
    processes[1].join(10)
    assert processes[1].exitcode is not None


def lose(*_: object) -> None:
    raise LostProcess("another process has ended")


def raise_a_bug(seconds: float) -> None:
    time.sleep(seconds)
    raise ValueError("a bug")


@pytest.mark.parametrize("functions", [(lose, raise_a_bug), (raise_a_bug, raise_a_bug)])
def test_the_traceback_of_an_error_in_the_code_is_printed_once(functions, capfd):
    pipes = [FORK.Pipe(duplex=False) for _ in functions]
    runs = [
        functools.partial(run_rank, functools.partial(function, rank / 2), rank, sender)
        for rank, (function, (_, sender)) in enumerate(zip(functions, pipes, strict=True))
    ]
    processes = [start_process(run, {}, threads=1) for run in runs]
    how = wait_for(processes, [reader for reader, _ in pipes], timeout=60.0)
    for process in processes:
        process.join(60)
    assert how == f"process {functions.index(raise_a_bug) + 1} of 2 failed with ValueError: a bug"
    assert capfd.readouterr().err.count("Traceback (most recent call last):") == 1


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

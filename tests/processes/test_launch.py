"""Tests how a process is prepared for training, and how forked processes end."""

import atexit
import functools
import gc
import os
import platform
import resource
import signal
import threading
import time

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringModel

from quadrant_lstm import load_run
from quadrant_lstm.processes import launch
from quadrant_lstm.signals import interrupt, signals_deferred
from tests.networks import trainer
from tests.scripts import call_unchecked


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, as on a terminal; a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Memory, threads, garbage collection and denormal numbers


@pytest.mark.parametrize(
    ("of_the_job", "of_its_parent", "threads"),
    [(None, None, 64), ("max 100000", None, 64), ("150000 100000", None, 2), ("5000 100000", None, 1),
     ("max 100000", "300000 100000", 3), ("900000 100000", "300000 100000", 3)],
)  # fmt: skip
def test_torch_uses_no_more_threads_than_the_quota_has_cores(of_the_job, of_its_parent, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    job = tmp_path / "sys/fs/cgroup/jobs/7"
    for folder in (job, tmp_path / "proc/self"):
        folder.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/jobs/7\n")
    for folder, quota in ((job, of_the_job), (job.parent, of_its_parent)):
        if quota:
            (folder / "cpu.max").write_text(quota + "\n")
    assert launch.num_threads(tmp_path) == threads


@pytest.fixture
def at_exit(monkeypatch):
    """Returns what prepare_for_training lets Python call when it exits, and calls it at the end."""
    functions = []
    monkeypatch.setattr(atexit, "register", functions.append)
    yield functions
    gc.unfreeze()
    torch.set_flush_denormal(False)


def test_a_process_prepared_twice_flushes_denormals_and_leaves_no_object_frozen(at_exit):
    launch.prepare_for_training()
    launch.prepare_for_training()
    assert (torch.tensor([1e-40]) * 0.5).item() == 0
    assert gc.get_freeze_count() > 10_000
    at_exit[-1]()
    assert gc.get_freeze_count() == 0  # extensions report frozen objects as leaked


def check_page_faults(run) -> None:
    load_run(run)
    convolution, frames = torch.nn.Conv2d(1, 32, 3), torch.rand(2048, 1, 56, 14)
    with torch.inference_mode():
        for batch in range(8):
            if batch == 3:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            convolution(frames)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 20_000  # by default 200,000: the allocator maps the same pages again for each batch


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is configured")
def test_a_loaded_network_keeps_the_memory_it_needs(finished_run):
    call_unchecked(check_page_faults, finished_run)


# Signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_is_handled_after_the_block(signum):
    """Some libraries catch all exceptions."""
    events = []
    handler = signal.signal(signum, lambda *_: events.append("signal"))
    try:
        with signals_deferred():
            signal.raise_signal(signum)
            events.append("block")
    finally:
        signal.signal(signum, handler)
    assert events == ["block", "signal"]


class Handlers(Callback):
    """Records the handler of SIGTERM in each batch."""

    found = ()

    def on_train_batch_start(self, *_):
        self.found += (signal.getsignal(signal.SIGTERM),)

    on_test_batch_start = on_train_batch_start


def check_handlers() -> None:
    handlers, model = Handlers(), BoringModel()
    limits = {"max_epochs": 1, "limit_train_batches": 2, "limit_test_batches": 1}
    training = trainer(strategy=launch.DDP(timeout=20.0), devices=1, callbacks=[handlers], **limits)
    training.fit(model)
    training.test(model)
    assert handlers.found == (interrupt,) * 3


def test_our_handler_of_sigterm_is_set_while_several_processes_train_and_test():
    call_unchecked(check_handlers)  # Lightning leaves MASTER_PORT and others in the environment


# How processes end


def sleep_through_sigterm() -> bool:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
    return True


def test_a_process_that_ignores_sigterm_is_killed():
    process = launch.start_process(sleep_through_sigterm, {}, threads=1)
    time.sleep(0.2)
    launch.terminate([process], grace=0.2)
    assert process.exitcode == -signal.SIGKILL


def test_ctrl_c_kills_processes_that_are_given_time_to_end(ctrl_c):
    process = launch.start_process(sleep_through_sigterm, {}, threads=1)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch.terminate([process], grace=60.0)
    assert time.monotonic() - start < 10
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
        (functools.partial(get_signal, signal.SIGSTOP), "process 2 of 2 did not answer within 1 s (trainer.strategy.t"),
    ],
)
def test_the_end_of_a_process_is_told(function, how):
    processes = [launch.start_process(function, {}, threads=1) for function in (lambda: True, function)]
    told = launch.wait_for(processes, [launch.FORK.Pipe()[0] for _ in processes], timeout=1.0)
    assert (told or "").startswith(how or "") and bool(told) == bool(how)
    processes[1].join(10)
    assert processes[1].exitcode is not None


def lose(*_: object) -> None:
    raise launch.LostProcess("another process has ended")


def raise_a_bug(seconds: float) -> None:
    time.sleep(seconds)
    raise ValueError("a bug")


@pytest.mark.parametrize("functions", [(lose, raise_a_bug), (raise_a_bug, raise_a_bug)])
def test_the_traceback_of_an_error_in_the_code_is_printed_once(functions, capfd):
    pipes = [launch.FORK.Pipe(duplex=False) for _ in functions]
    processes = []
    for rank, (function, (_, sender)) in enumerate(zip(functions, pipes, strict=True)):
        run = functools.partial(launch.run_rank, functools.partial(function, rank / 2), rank, sender)
        processes.append(launch.start_process(run, {}, threads=1))
    how = launch.wait_for(processes, [reader for reader, _ in pipes], timeout=60.0)
    for process in processes:
        process.join(60)
    assert how == f"process {functions.index(raise_a_bug) + 1} of 2 failed with ValueError: a bug"
    assert capfd.readouterr().err.count("Traceback (most recent call last):") == 1

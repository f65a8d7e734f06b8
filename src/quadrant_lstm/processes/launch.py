"""Runs a function in one process per device, and ends all of them when one fails.

Lightning would let the first process start the others by repeating its command line, which in a sweep would start the
whole sweep again. These processes are forked, so this one must not have used CUDA. They find each other through a file
that only this user can read.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import math
import multiprocessing
import os
import platform
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from quadrant_lstm.errors import FILE_ERRNOS, UserError, with_type
from quadrant_lstm.kinds import Positive
from quadrant_lstm.processes.torchrun import Meeting
from quadrant_lstm.run_folder import LAST
from quadrant_lstm.signals import end_with_parent, exit_at_signals, signals_deferred

# Memory, threads, garbage collection and denormal numbers


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

    torch counts the cores of the machine. In the cpu.max of a control group (cgroup v2) or one of its parents,
    `200000 100000` is a quota of two cores.
    """
    cores, file = [torch.get_num_threads()], root / "proc/self/cgroup"  # only on Linux
    path = re.search(r"(?m)^0::/(.*)$", file.read_text()) if file.exists() else None
    group = root / "sys/fs/cgroup" / (path[1] if path else "")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # no such file; "max 100000"
            time, period = map(int, (folder / "cpu.max").read_text().split())
            cores.append(math.ceil(time / period))
    return min(cores)


# Processes forked from this one, which has imported torch but not used it
#
# So a process starts at once. An error, a kill or a lack of memory ends only that process; on Linux the kernel kills it
# when its parent ends.


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


# One process per device


STORE = "QUADRANT_LSTM_STORE"  # environment variable of the processes: the file of torch.distributed.FileStore
Failure = tuple[Exception, str]  # with a traceback, it is an error of the code and not a user's mistake
SECONDS_TO_REPORT = 3.0  # after one process reports a lost connection, in which the others may report theirs


class LostProcess(UserError):
    """Another process of the run has ended, or did not answer: the one that raises this is not the cause."""


def launch(function: Callable[[], object], count: int, folder: Path, timeout: float) -> None:
    """Calls the function in `count` processes and returns when all have finished. Raises UserError if one fails, or
    still runs `timeout` seconds after rank 0 has finished.
    """
    if not hasattr(os, "fork"):
        raise UserError(f"trainer.devices: {count} processes need Linux or macOS; write trainer.devices=1.")
    readers: list[Any] = []
    processes: list[Any] = []
    with tempfile.TemporaryDirectory() as private:
        environment = {STORE: f"{private}/store"}
        if sys.platform == "linux":
            environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        try:
            for rank in range(count):
                reader, sender = FORK.Pipe(duplex=False)
                readers.append(reader)
                run = functools.partial(run_rank, function, rank, sender)
                environment |= {"LOCAL_RANK": str(rank)}
                processes.append(start_process(run, environment, threads=max(1, num_threads() // count)))
                sender.close()
            how = wait_for(processes, readers, timeout)
        finally:
            terminate(processes, GRACE - 2)  # a sweep gives this process GRACE seconds
    if how:
        remedy = f"resume with run={folder}" if (folder / LAST).exists() else "correct the cause and rerun"
        raise UserError(f"{how}, and the others were terminated; {remedy}.")


def run_rank(function: Callable[[], object], rank: int, sender: Any) -> bool:
    """Runs in each process. Sends its failure to the parent, which knows whether another process is the cause."""
    LightningEnvironment().set_global_rank(rank)  # for what Lightning does in the first process only
    try:
        function()
    except Exception as error:
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in FILE_ERRNOS):
            sender.send((error, ""))
        else:
            sender.send((UserError(with_type(error).partition("\n")[0]), traceback.format_exc()))
        return False
    return True


def wait_for(processes: Sequence[Any], readers: Sequence[Any], timeout: float) -> str | None:
    """Returns None when all processes have finished, or how one failed. Raises the mistake that one reports."""
    failures: dict[int, Failure] = {}  # by rank, the first one first
    end = math.inf  # of the time in which the running processes have to end
    while True:
        codes = [process.exitcode for process in processes]  # before the pipes are read, which were written before
        for rank, reader in enumerate(readers):
            with contextlib.suppress(OSError, EOFError):  # it has ended, perhaps while it wrote
                if rank not in failures and reader.poll():
                    failures[rank] = reader.recv()
        if cause := cause_of(failures, codes):
            return f"process {cause[0] + 1} of {len(codes)} {cause[1]}"
        running = [rank for rank, code in enumerate(codes) if code is None]
        if end == math.inf and (failures or codes[0] == 0):
            end = time.monotonic() + (SECONDS_TO_REPORT if failures else timeout)
        if not running or time.monotonic() > end:
            break
        time.sleep(0.05)
    if silent := [rank for rank in running if rank not in failures]:
        for rank in silent:
            processes[rank].kill()  # SIGTERM does not reach a stopped process
        limit = f"{timeout:g} s (trainer.strategy.timeout)"
        return f"process {silent[0] + 1} of {len(codes)} did not answer within {limit}"
    if failures:
        raise next(iter(failures.values()))[0]
    return None


def cause_of(failures: Mapping[int, Failure], codes: Sequence[int | None]) -> tuple[int, str] | None:
    """Returns the rank that failed for a reason of its own, if any, and how. Raises the mistake that one reports."""
    for rank, (error, text) in failures.items():
        if text:
            sys.stderr.write(text)
            return rank, f"failed with {error}"
        if not isinstance(error, LostProcess):
            raise error
    failed = [(code, rank) for rank, code in enumerate(codes) if code and rank not in failures]
    code, rank = min(failed, default=(0, 0))  # a killed one, if any: its code is negative
    return (rank, how_it_ended(code)) if code else None


# The connection of the processes


def connect(strategy: Any, meeting: Meeting | None, timeout: timedelta) -> None:
    """Connects the processes that `launch` or torchrun has started, when all have come this far. Lightning keeps such a
    connection; one that it makes itself listens on a port that other users can reach.
    """
    if meeting:
        meeting.wait_for_all("built", timeout)
        store: Any = meeting.store
    elif STORE in os.environ:
        store = distributed.FileStore(os.environ[STORE], strategy.world_size)
    else:
        return  # Lightning connects the processes that SLURM starts
    store.set_timeout(timeout)
    device = strategy.root_device if strategy.root_device.type == "cuda" else None
    if device:
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group(
            "nccl" if device else "gloo", store=store, rank=strategy.global_rank, world_size=strategy.world_size,
            timeout=timeout, device_id=device,
        )  # fmt: skip
    except RuntimeError as error:  # gloo and FileStore raise no errors of their own
        raise distributed.DistNetworkError(str(error)) from error


class DDP(DDPStrategy):
    """Lightning's strategy, with a timeout in seconds, and without Lightning's handler of SIGTERM. `options` are
    arguments of DDPStrategy and of torch's DistributedDataParallel.

    Lightning 2.6's handler broadcasts a tensor. If SIGTERM finds the processes at different operations, they wait for
    each other: of ten runs under torchrun, five ended only when torchrun killed them after 30 seconds.
    """

    def __init__(self, timeout: Positive, **options: Any):
        super().__init__(timeout=timedelta(seconds=timeout), **options)

    def barrier(self, *arguments: Any, **options: Any) -> None:
        """Lightning calls this first of all after it has set its handler."""
        exit_at_signals()
        super().barrier(*arguments, **options)


def is_connected() -> bool:
    """Tells whether this process can still exchange tensors with all others, or is alone.

    gloo closes a connection when the other process ends, and all of them after a timeout; its errors are RuntimeErrors
    like any other. NCCL's are torch's DistErrors.
    """
    if not distributed.is_initialized() or distributed.get_backend() != "gloo":
        return True
    try:
        for rank in set(range(distributed.get_world_size())) - {distributed.get_rank()}:
            distributed.irecv(torch.empty(1), src=rank)  # does not wait; raises at once if the connection is closed
    except RuntimeError:
        return False
    return True

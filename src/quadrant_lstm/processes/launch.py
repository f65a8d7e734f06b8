"""Runs a function in one process per device, and ends all of them when one fails.

Lightning would let the first process start the others by repeating its command line, which in a sweep would start the
whole sweep again. These processes are forked, so this one must not have used CUDA. They find each other through a file
that only this user can read.
"""

import contextlib
import functools
import math
import multiprocessing.connection
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from quadrant_lstm.errors import DISK_ERRNOS, PATH_ERRNOS, UserError, with_type
from quadrant_lstm.processes.forked import FORK, GRACE, how_it_ended, start_process, terminate
from quadrant_lstm.processes.prepare import num_threads
from quadrant_lstm.run_folder import LAST

STORE = "QUADRANT_LSTM_STORE"  # environment variable of the processes: the file of torch.distributed.FileStore
SECONDS_TO_REPORT = 3.0  # after one process reports a lost connection, in which the others may report theirs


class LostProcess(UserError):
    """Another process of the run has ended, or did not answer: the one that raises this is not the cause."""


class Failure(NamedTuple):
    """What a process sends to its parent. With a traceback, it is an error of the code and not a user's mistake."""

    error: Exception
    traceback: str = ""


def launch(function: Callable[[], object], count: int, folder: Path, timeout: float) -> None:
    """Calls the function in `count` processes and returns when all have finished. Raises UserError if one fails, or
    still runs `timeout` seconds after rank 0 has finished.
    """
    if not hasattr(os, "fork"):
        raise UserError(f"trainer.devices: {count} processes need Linux or macOS; write trainer.devices=1.")
    readers: list[Any] = []
    processes: list[Any] = []
    with tempfile.TemporaryDirectory() as private:
        environment = {STORE: f"{private}/store"} | address()
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
        ended = f"{how}, and the others were terminated"
        if not (folder / LAST).exists():
            raise UserError(f"{ended}, before an epoch was finished; correct the cause and rerun.")
        raise UserError(f"{ended}; resume with run={folder}, from the last finished epoch.")


def address() -> dict[str, str]:
    """Returns environment variables for Lightning's own strategies (trainer.strategy=ddp), which do not read STORE."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def run_rank(function: Callable[[], object], rank: int, sender: Any) -> bool:
    """Runs in each process. Sends its failure to the parent, which knows whether another process is the cause."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    try:
        function()
    except Exception as error:
        is_of_disk = isinstance(error, OSError) and error.errno in (*DISK_ERRNOS, *PATH_ERRNOS)
        if isinstance(error, UserError) or is_of_disk:
            sender.send(Failure(error))
        else:
            sender.send(Failure(UserError(with_type(error).partition("\n")[0]), traceback.format_exc()))
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
        running = [rank for rank, code in enumerate(codes) if code is None]
        if how := cause_of(failures, codes):
            return how
        if end == math.inf and (failures or codes[0] == 0):
            end = time.monotonic() + (SECONDS_TO_REPORT if failures else timeout)
        if not running or time.monotonic() > end:
            break
        reporting = [readers[rank] for rank in running if rank not in failures]
        seconds = None if end == math.inf else max(0.0, end - time.monotonic())
        multiprocessing.connection.wait([*(processes[rank].sentinel for rank in running), *reporting], seconds)
    if silent := [rank for rank in running if rank not in failures]:
        for rank in silent:
            processes[rank].kill()  # SIGTERM does not reach a stopped process
        return f"{name(silent[0], codes)} did not answer within {timeout:g} s (trainer.strategy.timeout)"
    if failures:
        raise next(iter(failures.values())).error
    return None


def cause_of(failures: Mapping[int, Failure], codes: Sequence[int | None]) -> str | None:
    """Returns how a process failed for a reason of its own, if one did. Raises the mistake that one reports."""
    for rank, (error, text) in failures.items():
        if text:
            sys.stderr.write(text)
            return f"{name(rank, codes)} failed with {error}"
        if not isinstance(error, LostProcess):
            raise error
    failed = [(code, rank) for rank, code in enumerate(codes) if code and rank not in failures]
    if not failed:
        return None
    code, rank = min(failed)  # a killed one, if any: its code is negative
    return f"{name(rank, codes)} {how_it_ended(code)}"


def name(rank: int, codes: Sequence[object]) -> str:
    return f"process {rank + 1} of {len(codes)}"

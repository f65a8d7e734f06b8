"""Runs a function in one process per device, and ends all of them when one fails.

Lightning would let the first process start the others by repeating its command line, which in a sweep would start the
whole sweep again. These processes are forked, so this one must not have used CUDA. They find each other through a file
that only this user can read.
"""

import functools
import multiprocessing.connection
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from quadrant_lstm.errors import DISK_ERRNOS, PATH_ERRNOS, UserError
from quadrant_lstm.processes.forked import FORK, GRACE, how_it_ended, start_process, terminate
from quadrant_lstm.processes.prepare import num_threads
from quadrant_lstm.run_folder import LAST

STORE = "QUADRANT_LSTM_STORE"  # environment variable of the processes: the file of torch.distributed.FileStore


def launch(function: Callable[[], object], count: int, folder: Path) -> None:
    """Calls the function in `count` processes and returns when all have finished. Raises UserError if one fails."""
    if not hasattr(os, "fork"):
        raise UserError(f"trainer.devices: {count} processes need Linux or macOS; write trainer.devices=1.")
    errors, sender = FORK.Pipe(duplex=False)
    processes: list[Any] = []
    with tempfile.TemporaryDirectory() as private:
        environment = {STORE: f"{private}/store"} | address()
        if sys.platform == "linux":
            environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        try:
            for rank in range(count):
                run = functools.partial(run_rank, function, rank, sender)
                environment |= {"LOCAL_RANK": str(rank)}
                processes.append(start_process(run, environment, threads=max(1, num_threads() // count)))
            failed = wait_for(processes)
        finally:
            terminate(processes, GRACE - 2)  # a sweep gives this process GRACE seconds
    if errors.poll():
        raise errors.recv()
    if failed is not None:
        how = how_it_ended(processes[failed].exitcode)
        ended = f"process {failed + 1} of {count} {how} and the others were terminated"
        if not (folder / LAST).exists():
            raise UserError(f"{ended}, before an epoch was finished; correct the cause and rerun.")
        raise UserError(f"{ended}; resume with run={folder}, from the last finished epoch.")


def address() -> dict[str, str]:
    """Returns environment variables for Lightning's own strategies (trainer.strategy=ddp), which do not read STORE."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def run_rank(function: Callable[[], object], rank: int, sender: Any) -> bool:
    """Runs in each process. Sends a user's mistake and a disk error to the parent, which raises it."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    try:
        function()
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (*DISK_ERRNOS, *PATH_ERRNOS):
            raise
        sender.send(error)
        return False
    return True


def wait_for(processes: Sequence[Any]) -> int | None:
    """Returns the rank of the first process that fails, or None when all have finished."""
    running = list(processes)
    while running:
        multiprocessing.connection.wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]  # the others have their exit codes now
        if failed := [rank for rank, process in enumerate(processes) if process.exitcode]:
            return min(failed, key=lambda rank: processes[rank].exitcode)  # a killed one, if any: its code is negative
    return None

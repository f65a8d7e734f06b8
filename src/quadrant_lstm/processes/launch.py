"""Starts one process per device for a run, and ends all of them when one fails. Imports no torch.

Lightning would let the first process start the others by repeating its command line, which in a sweep would start the
whole sweep again. Here each process gets the command of this job, with its overrides and folder. The processes find
each other through a file that only this user can read. On Linux the kernel kills them when their parent ends.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, to_absolute_path

from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import quoted

# Environment variables of the processes: the parent's process id, the file descriptor of the pipe for the message of a
# UserError, and the file of torch.distributed.FileStore.
PARENT, ERROR_PIPE, STORE = "QUADRANT_LSTM_PARENT", "QUADRANT_LSTM_ERROR_PIPE", "QUADRANT_LSTM_STORE"
GRACE = 8.0  # seconds in which a process may end by itself
SET_PDEATHSIG = 1  # man 2 prctl

Process = subprocess.Popen[bytes]


def launch(count: int, folder: Path) -> None:
    """Runs `count` processes and returns when all have finished. Raises UserError if one fails."""
    if not hasattr(os, "fork"):
        raise UserError(f"trainer.devices: {count} processes need Linux or macOS; write trainer.devices=1.")
    read_end, write_end = os.pipe()
    private = tempfile.mkdtemp()
    environment = os.environ | {PARENT: str(os.getpid()), ERROR_PIPE: str(write_end), STORE: f"{private}/store"}
    if sys.platform == "linux":
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    command, processes = job_command(folder), []
    try:
        for rank in range(count):
            env = environment | {"LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=env, cwd=get_original_cwd(), pass_fds=[write_end]))
        failed = wait_for(processes)
    finally:
        end_processes(processes)
        shutil.rmtree(private)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            message = pipe.readline()
    if message:
        raise UserError(message)
    if failed is not None:
        raise UserError(
            f"process {failed} of {count} {how_it_ended(processes[failed].returncode)} and the others were terminated; "
            f"resume with run={folder}, from the last finished epoch."
        )


def wait_for(processes: list[Process]) -> int | None:
    """Returns the rank of the first process that fails, or None when all have finished."""
    while True:
        states = [process.poll() for process in processes]
        failed = next((rank for rank, state in enumerate(states) if state), None)
        if failed is not None or None not in states:
            return failed
        time.sleep(0.1)


def end_processes(processes: list[Process]) -> None:
    """Waits a second, in which Ctrl-C or a failed process ends them; then sends SIGINT, and SIGKILL after GRACE."""
    start = time.monotonic()
    for seconds, signum in ((1.0, signal.SIGINT), (GRACE, signal.SIGKILL)):
        while any(process.poll() is None for process in processes) and time.monotonic() < start + seconds:
            time.sleep(0.05)
        for process in processes:
            process.send_signal(signum)  # does nothing to a process that has ended
    for process in processes:
        process.wait()


def how_it_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def job_command(folder: Path) -> list[str]:
    hydra = HydraConfig.get()
    return [
        sys.executable, to_absolute_path(sys.argv[0]), *config_dirs(hydra), f"--config-name={hydra.job.config_name}",
        *hydra.overrides.hydra, *hydra.overrides.task,
        f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null", "hydra.mode=RUN",
    ]  # fmt: skip


def config_dirs(hydra: Any) -> list[str]:
    """Returns the `--config-dir` options of the command whose `hydra` config this is."""
    sources = hydra.runtime.config_sources
    return [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]


# The launched processes call the functions below.


def is_launched() -> bool:
    return PARENT in os.environ


def end_with_parent() -> None:
    """Makes a launched process end with its parent. Called when the process starts."""
    if is_launched():
        end_with(int(os.environ[PARENT]))


def end_with(parent: int) -> None:
    """Makes the kernel kill this process when its parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # the parent has already ended


def send_error_message(error: UserError) -> None:
    """Sends the message to the parent, which raises it."""
    os.write(int(os.environ[ERROR_PIPE]), f"{error}\n".encode()[:4096])  # bytes that a pipe takes in one piece

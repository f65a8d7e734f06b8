"""A run on several devices -> a process for each, watched from here: where one fails, all end. Imports no torch.

Lightning would start the others from the first, with the command line that it finds: in a sweep, the whole sweep once
more. Here each process gets this job's own command, its overrides and its folder, and the address where all meet, which
no other machine reaches. However this one ends, none is left: on Linux the kernel kills them with it.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_original_cwd, to_absolute_path

from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import quoted

# In the environment of the processes: this one's number, the pipe that takes what a user is to read, the socket where
# the first of them hears the others.
PARENT, MISTAKES, LISTENER = "QUADRANT_LSTM_PARENT", "QUADRANT_LSTM_MISTAKES", "QUADRANT_LSTM_LISTENER"
GRACE = 8.0  # seconds to end by themselves
SET_PDEATHSIG = 1  # man 2 prctl

Process = subprocess.Popen[bytes]


def launch(count: int, folder: Path) -> None:
    """Comes back when all have done their work. Raises UserError where one fails."""
    if not hasattr(os, "fork"):
        raise UserError(f"trainer.devices: {count} processes need Linux or macOS; write trainer.devices=1.")
    mistakes, theirs = os.pipe()
    listener = socket.create_server(("127.0.0.1", 0))
    fds = (theirs, listener.fileno())
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1])}
    environment |= {PARENT: str(os.getpid()), MISTAKES: str(theirs), LISTENER: str(listener.fileno())}
    if sys.platform == "linux":
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    command, processes = job_command(folder), []
    try:
        for rank in range(count):
            mine = environment | {"LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=mine, cwd=get_original_cwd(), pass_fds=fds))
        failed = watch(processes)
    finally:
        stop(processes)
        listener.close()
        os.close(theirs)
        with os.fdopen(mistakes) as lines:
            mistake = lines.readline()
    if mistake:
        raise UserError(mistake)
    if failed is not None:
        raise UserError(
            f"process {failed} of {count} {how(processes[failed].returncode)} and the others were ended; go on with "
            f"run={folder}, from the last finished epoch."
        )


def watch(processes: list[Process]) -> int | None:
    """The first to fail, or none when all are done."""
    while True:
        states = [process.poll() for process in processes]
        for rank, state in enumerate(states):
            if state:
                return rank
        if None not in states:
            return None
        time.sleep(0.1)


def stop(processes: list[Process]) -> None:
    """Ctrl-C has reached them too, and those that miss another are failing: wait for them, ask, kill."""
    start = time.monotonic()
    for seconds, signum in ((1.0, signal.SIGINT), (GRACE, signal.SIGKILL)):
        while any(process.poll() is None for process in processes) and time.monotonic() < start + seconds:
            time.sleep(0.05)
        for process in processes:
            process.send_signal(signum)  # to those that are left
    for process in processes:
        process.wait()


def how(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def job_command(folder: Path) -> list[str]:
    hydra = HydraConfig.get()
    return [
        sys.executable,
        to_absolute_path(sys.argv[0]),
        *config_dirs(hydra),
        f"--config-name={hydra.job.config_name}",
        *hydra.overrides.hydra,
        *hydra.overrides.task,
        f"hydra.run.dir={quoted(folder)}",
        "hydra.output_subdir=null",
        "hydra.mode=RUN",
    ]


def config_dirs(hydra: Any) -> list[str]:
    """The options that name where else this command, whose Hydra part it is, looked for configs."""
    sources = hydra.runtime.config_sources
    return [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]


# What the processes call.


def is_launched() -> bool:
    return PARENT in os.environ


def end_with_parent() -> None:
    """Called as the process starts."""
    if is_launched():
        end_with(int(os.environ[PARENT]))


def end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # it has ended before


def meeting_place() -> dict[str, Any]:
    """Arguments of torch.distributed.TCPStore, but for the number of processes."""
    mine = os.environ["LOCAL_RANK"] == "0"
    address = {"host_name": os.environ["MASTER_ADDR"], "port": int(os.environ["MASTER_PORT"]), "is_master": mine}
    return address | ({"master_listen_fd": int(os.environ[LISTENER])} if mine else {})


def tell_parent(mistake: UserError) -> None:
    os.write(int(os.environ[MISTAKES]), f"{mistake}\n".encode()[:4096])  # that many in one piece

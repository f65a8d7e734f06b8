"""Lets the processes that torchrun started agree on one run folder and one config, and tells them when one fails.

They exchange texts in a store of torch, under these keys:

    earlier/RANK      the run folder of an earlier start, as far as the machine of that process knows it
    folder            the run folder, which rank 0 decides on, and the mark that it has left there
    config            the config of rank 0, with which the others compare theirs
    checked/RANK      the process has agreed on both
    built/RANK        it has built the data and the network
    failed            the error of the process that failed first, for which all others look while they wait

Processes that torchrun starts again, after one of them or an agent died, find the run folder of the earlier start in a
file of the agent's temporary folder, and resume the run. Imports torch only if torchrun started the process.
"""

import json
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from quadrant_lstm.config.values import differing_values
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import MARK
from quadrant_lstm.signals import end_with_parent

TIMEOUT = timedelta(seconds=120)  # for each process to start, and for the first one to check the config
SECONDS_TO_APPEAR = 10.0  # a network file system may show a new file late
SECONDS_TO_HEAR = 1.0  # of a failure, for processes that look for it every 20 ms, before the store ends


def is_torchrun() -> bool:
    """Tells whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class Meeting:
    """The processes of one start of torchrun.

    All methods that wait raise UserError if another process has failed, or does not answer.
    """

    def __init__(self) -> None:
        from torch.distributed import PrefixStore, TCPStore

        end_with_parent(os.getppid())  # else the processes of a killed agent would continue
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.machine = f"machine {platform.node()}: " if int(os.environ["GROUP_WORLD_SIZE"]) > 1 else ""
        # Either the agent serves a store that outlives its processes, or rank 0 a new one at each start.
        outlives = os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True"
        self.serves, self.has_failed = self.rank == 0 and not outlives, False
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with errors_explained(f"the store at {address}:{port}"):
            self.tcp = TCPStore(address, port, is_master=self.serves, wait_for_workers=False, timeout=TIMEOUT)
        self.store: Any = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"] if outlives else "start", self.tcp)
        self.folder_file = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2] / "run_folder"
        self.set(f"earlier/{self.rank}", self.folder_file.read_text() if self.folder_file.exists() else "")

    def earlier_folder(self) -> str | None:
        """Waits for all processes. Returns the run folder of an earlier start, if there was one."""
        folders = [self.get(f"earlier/{rank}", rank) for rank in range(self.world_size)]
        return next(filter(None, folders), None)

    def wait_for_folder(self) -> str:
        """Called in all processes but rank 0. Raises UserError if this machine does not see the run folder."""
        folder, mark = json.loads(self.get("folder", rank=0))
        end = time.monotonic() + SECONDS_TO_APPEAR
        while time.monotonic() < end:
            with suppress(OSError):
                if Path(folder, MARK).read_text() == mark:
                    return folder
            time.sleep(0.1)
        remedy = "start torchrun in a folder that all machines share under the same path, or set hydra.run.dir to one"
        raise UserError(f"outputs: this machine does not see the run folder {folder}; {remedy}.")

    def share(self, folder: Path, config: str) -> None:
        """Called in every process. Rank 0 tells the others the folder, for which they wait. Raises UserError unless all
        have composed the same config, as YAML with interpolations as they are written: those of the environment may
        differ.
        """
        if self.rank == 0:
            mark = secrets.token_hex(8)
            (folder / MARK).write_text(mark)
            self.set("folder", json.dumps([str(folder.absolute()), mark]))
            self.set("config", config)
        elif (first := self.get("config", rank=0)) != config:
            key, (here, there) = next(iter(differing_values(*map(OmegaConf.create, (config, first))).items()))
            remedy = "start the same command, with the same conf/, on all machines"
            raise UserError(f"{key}: is {here} for rank {self.rank}, but {there} for rank 0; {remedy}.")
        self.wait_for_all("checked")
        with suppress(OSError):  # another process of this agent does it, too
            self.folder_file.write_text(str(folder.absolute()))

    def compare_data(self, sha256: str, timeout: timedelta) -> None:
        """Called in every process. Raises UserError unless all have read the same samples, in the same splits."""
        if self.rank == 0:
            self.set("data", sha256)
        elif self.get("data", 0, timeout) != sha256:
            rule = "the files or their splits differ from those of rank 0"
            raise UserError(f"data: {rule}; copy its data to all machines.")

    def wait_for_all(self, stage: str, timeout: timedelta = TIMEOUT) -> None:
        """Waits until every process has called this for that stage."""
        self.set(f"{stage}/{self.rank}", "")
        for rank in range(self.world_size):
            self.get(f"{stage}/{rank}", rank, timeout)

    def set(self, key: str, text: str) -> None:
        with errors_explained("the store"):
            self.store.set(key, text)

    def get(self, key: str, rank: int, timeout: timedelta | None = None) -> str:
        """Waits for a text that the process of that rank sets. It asks again and again, because torch's own way of
        waiting keeps Python from handling SIGTERM.
        """
        seconds = (timeout or TIMEOUT).total_seconds()
        end = time.monotonic() + seconds
        with errors_explained("the store"):
            while not self.store.check([key]):
                self.check_others()
                if time.monotonic() > end:
                    rule = f"rank {rank} did not answer within {seconds:.0f} s"
                    raise UserError(f"torchrun: {rule}; restart torchrun on all machines.")
                time.sleep(0.02)
            return self.store.get(key).decode()

    def report(self, error: str) -> bool:
        """Tells the other processes why this one ends. Returns whether to print it, which is so if no process of this
        start has failed before, and none of an earlier start with the same error.
        """
        self.has_failed = True
        with suppress(RuntimeError):  # the process that served the store has ended
            if is_first := self.store.add("failing", 1) == 1:
                self.store.set("failed", error)
            return is_first and self.tcp.add(f"reported/{error}", 1) == 1
        return True

    def leave(self) -> None:
        """Called once the error is printed, because torchrun ends all processes as soon as one of them has ended."""
        if self.has_failed and self.serves:
            time.sleep(SECONDS_TO_HEAR)

    def check_others(self) -> None:
        """Raises the UserError of the process that has failed, if one has told why."""
        with suppress(RuntimeError):  # the process that served the store has ended
            if self.store.check(["failed"]):
                raise UserError(self.store.get("failed").decode())


@contextmanager
def errors_explained(store: str) -> Iterator[None]:
    """Raises UserError if the store cannot be reached, or not within TIMEOUT."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"torchrun: {store} cannot be reached ({reason}); restart torchrun on all machines.") from error

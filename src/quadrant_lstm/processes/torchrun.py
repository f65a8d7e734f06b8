"""Lets the processes that torchrun started agree on one run folder and one config, and tells them when one fails.

The first process, rank 0, checks the config and decides on the folder; the others wait for it. They exchange values in
the store of torchrun's agents. It may outlive its processes, so each process draws an id, and all keys contain one:

    other processes                     rank 0
    hello/RANK = id, earlier folder ->
                                     <- question/ITS_ID = the id of rank 0, START
    answer/START/ITS_ID ->              (only a process that is alive answers)
                                     <- START/folder
                                     <- START/config            the others compare theirs
    START/checked/RANK, then START/built/RANK, when the data and the network are built, in every process
    START/failed = the error of the process that failed first, for which all others look while they wait

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
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.config.values import differing_values
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import MARK
from quadrant_lstm.signals import end_with_parent

# The run folder, which all machines must see


SECONDS_TO_APPEAR = 10.0  # a network file system may show a new file late


def leave_mark(folder: str, id: str) -> None:
    Path(folder, MARK).write_text(id)


def sees_mark(folder: str, id: str) -> bool:
    """Waits for the mark with this id."""
    end = time.monotonic() + SECONDS_TO_APPEAR
    while time.monotonic() < end:
        with suppress(OSError):
            if Path(folder, MARK).read_text() == id:
                return True
        time.sleep(0.1)
    return False


def invisible(folder: str) -> str:
    """Returns the message about a folder whose mark this machine does not see."""
    return (
        f"outputs: this machine does not see the run folder {folder}; start torchrun in a folder that all machines "
        "share under the same path, or set hydra.run.dir to one."
    )


# The store of torchrun's agents


TIMEOUT = timedelta(seconds=120)  # for each process to start, and for the first one to check the config


class Store:
    """The store at the address that torchrun gives. `serves` says whether this process has to serve it to the others.

    Raises UserError if the store cannot be reached.
    """

    def __init__(self, serves: bool):
        from torch.distributed import TCPStore

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with errors_explained(f"the store at {address}:{port}"):
            self.tcp: Any = TCPStore(address, port, is_master=serves, wait_for_workers=False, timeout=TIMEOUT)

    def set(self, key: str, text: str) -> None:
        self.tcp.set(key, text)

    def has(self, key: str) -> bool:
        return self.tcp.check([key])

    def get(self, key: str, rank: int, timeout: timedelta | None = None, failed: str | None = None) -> str:
        """Waits for a text that the process of that rank sets. It asks again and again, because torch's own way of
        waiting keeps Python from handling SIGTERM. Raises UserError with the text of the key `failed`, if it is set.
        """
        end = deadline(timeout)
        with errors_explained("the store"):
            while not self.has(key):
                if failed:
                    self.check(failed)
                if time.monotonic() > end:
                    raise no_answer(f"rank {rank}", "it has not come this far", timeout)
                time.sleep(0.02)
            return self.tcp.get(key).decode()

    def check(self, failed: str) -> None:
        """Raises UserError with the text of that key, if it is set."""
        if self.has(failed):
            raise UserError(self.tcp.get(failed).decode())

    def is_first(self, key: str) -> bool:
        """Tells whether no process has asked this about the same key."""
        return self.tcp.add(key, 1) == 1

    def under(self, prefix: str) -> Any:
        """Returns a store of torch whose keys begin with the prefix."""
        from torch.distributed import PrefixStore

        return PrefixStore(prefix, self.tcp)


def deadline(timeout: timedelta | None = None) -> float:
    return time.monotonic() + (timeout or TIMEOUT).total_seconds()


@contextmanager
def errors_explained(store: str) -> Iterator[None]:
    """Raises UserError if the store cannot be reached, or not within TIMEOUT."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"torchrun: {store} cannot be reached ({reason}); restart torchrun on all machines.") from error


def no_answer(source: str, reason: str, timeout: timedelta | None = None) -> UserError:
    seconds = (timeout or TIMEOUT).total_seconds()
    return UserError(
        f"torchrun: {source} did not answer within {seconds:.0f} s ({reason}); restart torchrun on all machines."
    )


# The meeting of the processes


SECONDS_TO_ANSWER = 0.5  # a process that does not answer has ended, and its key in the store is old
SECONDS_TO_HEAR = 1.0  # of a failure, for processes that look for it every 20 ms, before the store ends
meeting: "Meeting | None" = None  # of this process, if torchrun started it


def join() -> "Meeting | None":
    """Waits for the other processes, if torchrun started this one. Raises UserError if one does not start."""
    global meeting
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())  # else the processes of a killed agent would continue
        meeting = Meeting()
    return meeting


class Hello(NamedTuple):
    id: str
    earlier: str | None  # the run folder of an earlier start


class Meeting:
    """Joins the processes of one start. `earlier` is the run folder of an earlier start, if there was one.

    All methods that wait raise UserError if another process has failed, or does not answer.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.serves = self.rank == 0 and os.environ["TORCHELASTIC_USE_AGENT_STORE"] != "True"
        self.store = Store(self.serves)
        self.folder_file = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2] / "run_folder"
        self.earlier = self.folder_file.read_text() if self.folder_file.exists() else None
        self.machine = f"machine {platform.node()}: " if int(os.environ["GROUP_WORLD_SIZE"]) > 1 else ""
        self.id = secrets.token_hex(8)
        if self.rank:
            self.store.set(f"hello/{self.rank}", json.dumps(Hello(self.id, self.earlier)))
            self.start = self.store.get(f"question/{self.id}", rank=0)
            self.store.set(f"answer/{self.start}/{self.id}", "")
        else:
            self.start = self.id
            others = [self.find(rank) for rank in range(1, self.world_size)]
            self.earlier = next(filter(None, [self.earlier, *(other.earlier for other in others)]), None)

    def find(self, rank: int) -> Hello:
        """Waits for a process that answers. Raises UserError if none does until the deadline."""
        end = deadline()
        while time.monotonic() < end:
            other = Hello(*json.loads(self.store.get(f"hello/{rank}", rank)))
            self.store.set(f"question/{other.id}", self.start)
            end_of_wait = time.monotonic() + SECONDS_TO_ANSWER
            while time.monotonic() < end_of_wait:
                if self.store.has(f"answer/{self.start}/{other.id}"):
                    return other
                time.sleep(0.01)
        raise no_answer(f"rank {rank}", "an earlier process did")

    def decide(self, folder: str) -> None:
        """Tells the other processes the folder, if this is the first process."""
        if self.rank == 0:
            leave_mark(folder, self.start)
            self.folder = folder
            self.set("folder", folder)

    def wait_for_decision(self) -> str:
        """Called in the other processes. Raises UserError if this machine does not see the run folder."""
        self.folder = self.get("folder", rank=0)
        if not sees_mark(self.folder, self.start):
            raise UserError(invisible(self.folder))
        return self.folder

    def check_same_config(self, cfg: DictConfig) -> None:
        """Called in every process. Raises UserError unless all have composed the same config, with interpolations as
        they are written: those of the environment may differ.
        """
        config = OmegaConf.to_yaml(cfg)
        if self.rank == 0:
            self.set("config", config)
        elif (first := self.get("config", rank=0)) != config:
            key, (here, there) = next(iter(differing_values(cfg, OmegaConf.create(first)).items()))
            raise UserError(
                f"{key}: is {here} for rank {self.rank}, but {there} for rank 0; start the same command, with the same "
                "conf/, on all machines."
            )
        self.wait_for_all("checked")
        with suppress(OSError):  # another process of this agent does it, too
            self.folder_file.write_text(self.folder)

    def wait_for_all(self, stage: str, timeout: timedelta = TIMEOUT) -> None:
        """Waits until every process has called this for that stage."""
        self.set(f"{stage}/{self.rank}", "")
        if self.rank == 0:
            for rank in range(1, self.world_size):
                self.get(f"{stage}/{rank}", rank, timeout)
            self.set(f"{stage}/all", "")
        else:
            self.get(f"{stage}/0", 0, timeout)
            self.get(f"{stage}/all", 0, 2 * timeout)  # so that rank 0 names a process that does not answer

    def set(self, key: str, text: str) -> None:
        self.store.set(f"{self.start}/{key}", text)

    def get(self, key: str, rank: int, timeout: timedelta | None = None) -> str:
        return self.store.get(f"{self.start}/{key}", rank, timeout, f"{self.start}/failed")

    def new_store(self) -> Any:
        """Returns a store of torch without keys of an earlier start."""
        return self.store.under(f"{self.start}/torch")

    def report(self, error: str) -> bool:
        """Tells the other processes why this one ends. Returns whether to print it, which is so if no process of this
        start has failed before, and none of an earlier start with the same error.
        """
        with suppress(RuntimeError):  # the process that served the store has ended
            if is_first := self.store.is_first(f"{self.start}/failing"):
                self.set("failed", error)
            if self.serves:
                time.sleep(SECONDS_TO_HEAR)
            return is_first and self.store.is_first(f"reported/{error}")
        return True

    def check_others(self) -> None:
        """Raises the UserError of the process that has failed, if one has told why."""
        with suppress(RuntimeError):
            self.store.check(f"{self.start}/failed")

"""Lets the processes that torchrun started agree on one run folder, before Hydra composes their configs.

The first process checks the config and decides on the folder; the others wait for it. Processes that torchrun starts
again, after one of them or an agent died, resume the run: they find its folder in a note that earlier processes left
in the agent's temporary folder. They talk through the store of torchrun's agents, which may outlive its processes: all
keys contain a random word of a living process. Imports torch only if torchrun started the process.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.signals import end_with_parent

MARK = ".torchrun"  # a file in the run folder, which every node must see
TIMEOUT = timedelta(seconds=120)  # for all processes to start, and for the first one to check the config
SECONDS_TO_ANSWER = 0.5  # a process that does not answer has ended, and its key in the store is old
SECONDS_TO_APPEAR = 10.0  # a network file system may show a new file late


class Decision(NamedTuple):
    """What the first process tells the others."""

    folder: str  # absolute; empty after a mistake, which the first process has reported
    resumes: bool = False


meeting: "Meeting | None" = None  # of this process, if torchrun started it


def join() -> "Meeting | None":
    """Waits for the other processes. Raises UserError if one does not start."""
    global meeting
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())  # else the processes of a killed agent would continue
        meeting = Meeting()
    return meeting


class Meeting:
    """Joins the processes of one start. `earlier` is the run folder of an earlier start, or an empty text."""

    def __init__(self) -> None:
        from torch.distributed import TCPStore

        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        serves = self.rank == 0 and os.environ["TORCHELASTIC_USE_AGENT_STORE"] != "True"
        with named_if_missing(f"the store at {address}:{port}"):
            self.store: Any = TCPStore(address, port, is_master=serves, wait_for_workers=False, timeout=TIMEOUT)
        self.note = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2] / "run_folder"
        self.earlier = self.note.read_text() if self.note.exists() else ""
        self.word = secrets.token_hex(8)
        self.is_decided = False
        if self.rank:
            self.store.set(f"hello/{self.rank}", json.dumps([self.word, self.earlier]))
            self.first = self.get(f"question/{self.word}", rank=0)
            self.store.set(f"answer/{self.first}/{self.word}", "")
        else:
            self.first = self.word
            others = [self.greet(rank) for rank in range(1, self.world_size)]
            self.words = [word for word, _ in others]
            self.earlier = next(filter(None, [self.earlier, *(folder for _, folder in others)]), "")

    def greet(self, rank: int) -> tuple[str, str]:
        """Returns the word and the note of a process that answers. Raises UserError after TIMEOUT."""
        end = time.monotonic() + TIMEOUT.total_seconds()
        while time.monotonic() < end:
            word, earlier = json.loads(self.get(f"hello/{rank}", rank))
            self.store.set(f"question/{word}", self.first)
            end_of_wait = time.monotonic() + SECONDS_TO_ANSWER
            while time.monotonic() < end_of_wait:
                if self.store.check([f"answer/{self.first}/{word}"]):
                    return word, earlier
                time.sleep(0.01)
        raise no_answer(f"rank {rank}", "an earlier process did")

    def get(self, key: str, rank: int) -> str:
        """Waits for a value that the process of that rank sets."""
        with named_if_missing(f"rank {rank}"):
            return self.store.get(key).decode()

    def decide(self, decision: Decision) -> None:
        """Called in the first process, of which only the first decision counts. Leaves the mark in the folder."""
        if self.rank or self.is_decided:
            return
        self.is_decided = True
        if decision.folder:
            Path(decision.folder).mkdir(parents=True, exist_ok=True)
            Path(decision.folder, MARK).write_text(self.first)
            self.remember(decision.folder)
        for word in self.words:
            self.store.set(f"decision/{word}", json.dumps(decision))

    def wait_for_decision(self) -> Decision:
        """Called in the other processes. Raises UserError if this machine does not see the run folder."""
        decision = Decision(*json.loads(self.get(f"decision/{self.word}", rank=0)))
        if decision.folder:
            check_mark(decision.folder, self.first)
            self.remember(decision.folder)
        return decision

    def remember(self, folder: str) -> None:
        with suppress(OSError):  # another process of this agent does it, too
            self.note.write_text(folder)

    def new_store(self) -> Any:
        """Returns a store without keys of an earlier start."""
        from torch.distributed import PrefixStore

        return PrefixStore(self.first, self.store)

    def is_first_to_report(self, error: str) -> bool:
        """Tells whether no process, of this start or of an earlier one, has reported the same error."""
        try:
            return self.store.add(f"reported/{error}", 1) == 1
        except RuntimeError:  # the process that served the store has ended
            return True


@contextmanager
def named_if_missing(source: str) -> Iterator[None]:
    """Raises UserError if the source does not answer within TIMEOUT."""
    try:
        yield
    except RuntimeError as error:
        raise no_answer(source, str(error).partition("\n")[0].rstrip(".")) from error


def no_answer(source: str, reason: str) -> UserError:
    seconds = TIMEOUT.total_seconds()
    return UserError(
        f"torchrun: {source} did not answer within {seconds:.0f} s ({reason}); restart torchrun on all machines."
    )


def check_mark(folder: str, word: str) -> None:
    """Waits for the first process's mark. Raises UserError if this machine does not see it in the run folder."""
    end = time.monotonic() + SECONDS_TO_APPEAR
    while time.monotonic() < end:
        with suppress(OSError):
            if Path(folder, MARK).read_text() == word:
                return
        time.sleep(0.1)
    raise UserError(
        f"outputs: node {os.environ['GROUP_RANK']} does not see the run folder {folder}; start torchrun in a "
        "folder that all nodes share, or set hydra.run.dir to one."
    )

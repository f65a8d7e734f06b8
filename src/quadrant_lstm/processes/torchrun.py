"""Lets the processes that torchrun started agree on one run folder, before Hydra composes their configs.

The first process, rank 0, checks the config and decides on the folder; the others wait for it. They exchange values in
the store of torchrun's agents. It may outlive its processes, so each process draws an id, and all keys contain one:

    other processes                     rank 0
    hello/RANK = id, earlier folder, command ->
                                     <- question/ID = its own id
    answer/ITS_ID/ID ->                 (only a process that is alive answers)
                                     <- decision/ID = the run folder, or null after a mistake
    seen/ID = why it is not visible ->  (an empty text if it is)

Processes that torchrun starts again, after one of them or an agent died, find the run folder of the earlier start in a
file of the agent's temporary folder, and resume the run. Imports torch only if torchrun started the process.
"""

import json
import os
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from quadrant_lstm.errors import UserError
from quadrant_lstm.processes.shared_folder import invisible, leave_mark, sees_mark
from quadrant_lstm.processes.signals import end_with_parent
from quadrant_lstm.processes.torchrun_store import Store, deadline, no_answer

SECONDS_TO_ANSWER = 0.5  # a process that does not answer has ended, and its key in the store is old
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
    command: list[str]  # the arguments that were typed


class Meeting:
    """Joins the processes of one start. `earlier` is the run folder of an earlier start, if there was one."""

    def __init__(self) -> None:
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.store = Store(serves=self.rank == 0 and os.environ["TORCHELASTIC_USE_AGENT_STORE"] != "True")
        self.folder_file = Path(os.environ["TORCHELASTIC_ERROR_FILE"]).parents[2] / "run_folder"
        self.earlier = self.folder_file.read_text() if self.folder_file.exists() else None
        self.id = secrets.token_hex(8)
        self.is_decided = False
        if self.rank:
            self.store.set(f"hello/{self.rank}", json.dumps(Hello(self.id, self.earlier, sys.argv[1:])))
            self.first_id = self.store.get(f"question/{self.id}", rank=0)
            self.store.set(f"answer/{self.first_id}/{self.id}", "")
        else:
            self.first_id = self.id
            others = [self.find(rank) for rank in range(1, self.world_size)]
            self.other_ids = [other.id for other in others]
            self.earlier = next(filter(None, [self.earlier, *(other.earlier for other in others)]), None)
            self.commands = [other.command for other in others]

    def find(self, rank: int) -> Hello:
        """Waits for a process that answers. Raises UserError if none does until the deadline."""
        end = deadline()
        while time.monotonic() < end:
            other = Hello(*json.loads(self.store.get(f"hello/{rank}", rank)))
            self.store.set(f"question/{other.id}", self.first_id)
            end_of_wait = time.monotonic() + SECONDS_TO_ANSWER
            while time.monotonic() < end_of_wait:
                if self.store.has(f"answer/{self.first_id}/{other.id}"):
                    return other
                time.sleep(0.01)
        raise no_answer(f"rank {rank}", "an earlier process did")

    def decide(self, folder: str | None) -> None:
        """Tells the other processes the folder, if this is the first process. Its first decision counts. Raises
        UserError if one of them does not see the folder.
        """
        if self.rank or self.is_decided:
            return
        if folder:
            leave_mark(folder, self.first_id)
            self.remember(folder)
        self.is_decided = True
        for other in self.other_ids:
            self.store.set(f"decision/{other}", json.dumps(folder))
        for rank, other in enumerate(self.other_ids if folder else (), start=1):
            if error := self.store.get(f"seen/{other}", rank):
                raise UserError(error)

    def wait_for_decision(self) -> str | None:
        """Called in the other processes. Raises UserError if this machine does not see the run folder."""
        folder = json.loads(self.store.get(f"decision/{self.id}", rank=0))
        if folder:
            error = "" if sees_mark(folder, self.first_id) else invisible(folder)
            self.store.set(f"seen/{self.id}", error)
            if error:
                raise UserError(error)
            self.remember(folder)
        return folder

    def remember(self, folder: str) -> None:
        with suppress(OSError):  # another process of this agent does it, too
            self.folder_file.write_text(folder)

    def new_store(self) -> Any:
        """Returns a store of torch without keys of an earlier start."""
        return self.store.under(self.first_id)

    def is_first_to_report(self, error: str) -> bool:
        """Tells whether no process, of this start or of an earlier one, has reported the same error."""
        return self.store.is_first(f"reported/{error}")

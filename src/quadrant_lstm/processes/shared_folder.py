"""Checks whether all machines see the run folder: one process leaves a mark in it, and the others look for it."""

import time
from contextlib import suppress
from pathlib import Path

from quadrant_lstm.run_folder import MARK

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

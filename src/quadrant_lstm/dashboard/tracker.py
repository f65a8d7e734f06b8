"""Defines what loggers offer beyond Lightning's, and what those for Weights & Biases and MLflow share.

A resumed run continues the tracked run, whose id is in trackers.json. The metrics of an epoch that was interrupted
remain, beside those of its repetition.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_json, write_json
from quadrant_lstm.run_folder import OUTPUTS, TRACKERS

EXTRA = "trackers"


@runtime_checkable
class Tracker(Protocol):
    """What the loggers of this project, TensorBoard included, add to Lightning's."""

    def start(self, config: dict[str, Any], step: int) -> None:
        """Begins the tracked run, or continues it at a training step."""

    def add_picture(self, tag: str, pixels: UInt8[np.ndarray, "height width 3"], step: int) -> None: ...

    def command_to_view(self) -> str:
        """Returns the command, or the address, that shows the tracked run."""

    def close(self, status: str) -> None:
        """Ends the tracked run, with "success" or "failed". A forked process does not run the exit handlers
        that would do it.
        """


@contextlib.contextmanager
def as_user_error(key: str, error_types: tuple[type[Exception], ...], remedy: str) -> Iterator[None]:
    try:
        yield
    except error_types as error:
        raise UserError(f"{key}: {str(error).partition(chr(10))[0].rstrip('.')}; {remedy}.") from error


def run_name(folder: Path) -> str:
    """Returns e.g. 2026-11-28/06-18-33."""
    outputs = OUTPUTS.absolute()
    return str(folder.relative_to(outputs)) if folder.is_relative_to(outputs) else folder.name


def read_id(folder: Path, tracker: str) -> str | None:
    run_id = read_json(folder / TRACKERS).get(tracker)
    if not isinstance(run_id, str | None):
        raise UserError(
            f"{folder / TRACKERS}: the id of {tracker}, {run_id!r}, is not text; restore or delete the file."
        )
    return run_id


def write_id(folder: Path, tracker: str, run_id: str) -> None:
    write_json(folder / TRACKERS, read_json(folder / TRACKERS) | {tracker: run_id})

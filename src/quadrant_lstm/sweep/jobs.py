"""Defines a job of a sweep: its overrides, and the results and error that its run folder holds. Imports no torch."""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from quadrant_lstm.errors import printable
from quadrant_lstm.files import write_atomically
from quadrant_lstm.run_folder import LOG, OVERRIDES, read_results
from quadrant_lstm.text import assigned


@dataclass(frozen=True)
class Job:
    """One run of a sweep. `swept` holds the values that differ between the sweep's jobs."""

    number: int
    folder: Path
    overrides: tuple[str, ...]
    swept: dict[str, str]

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items())

    def results(self) -> dict[str, Any] | None:
        """Returns the content of results.json, or None before the job has finished."""
        return read_results(self.folder) or None

    def error(self) -> str | None:
        """Returns the last message of the job's log if it is an error, or None: a job that was resumed has others."""
        log = self.folder / LOG
        text = log.read_text(errors="replace") if log.exists() else ""
        messages = re.findall(r"^\d{4}-\d\d-\d\d [\d:,]+ ([A-Z]+) (.*)$", text, re.MULTILINE)
        return messages[-1][1] if messages and messages[-1][0] == "ERROR" else None

    def log_error(self, error: str) -> None:
        """Appends an error that the job could not log itself, perhaps because it could not start."""
        if not (self.folder / OVERRIDES).exists():
            write_atomically(self.folder / OVERRIDES, OmegaConf.to_yaml(list(self.overrides)).encode())
        with (self.folder / LOG).open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 ERROR {error}\n")


def readable(value: str) -> str:
    """Shortens a value for display: a sampled number has 16 digits, a list of 20 orderings 180."""
    value = printable(value)
    if re.fullmatch(r"-?\d+\.\d{5,}|-?\d\.?\d*e-?\d+", value):
        return f"{float(value):.4g}"
    if re.fullmatch(r"\[\[[1-4](,[1-4]){3}\](,\[[1-4](,[1-4]){3}\])*\]", value):
        orderings = value.replace(",", "").strip("[]").split("][")
        return " ".join(orderings) if len(orderings) <= 4 else f"{len(orderings)} orderings"
    return value


def make_jobs(sweep: Path, overrides: Sequence[Sequence[str]], numbers: Iterable[int]) -> list[Job]:
    """Returns one job for each list of overrides, with these numbers."""
    assignments = list(map(assigned, overrides))
    keys = list(dict.fromkeys(key for values in assignments for key in values))
    differing = [key for key in keys if len({values.get(key) for values in assignments}) > 1]
    return [
        Job(number, sweep / str(number), tuple(words), {key: values.get(key, "") for key in differing})
        for number, words, values in zip(numbers, overrides, assignments, strict=True)
    ]

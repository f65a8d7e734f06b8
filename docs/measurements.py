"""Keeps the results of finished jobs in docs/measured/NAME.csv: one row per job of experiment=NAME."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from quadrant_lstm.data.frames import step_accuracies_in
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import PROVENANCE, csv_text, read_json
from quadrant_lstm.sweep.jobs import Job, Sweep, readable

MEASURED = Path(__file__).parent / "measured"
ACCURACY = "test/accuracy"
RESULTS = ("parameters", "seconds", "best_epoch", "val/accuracy", ACCURACY)
ORIGIN = ("commit", "processor")

Row = Mapping[str, str]


def experiment_of(sweep: Sweep) -> str:
    for override in sweep.overrides:
        if override.startswith("experiment="):
            return override.partition("=")[2]
    raise UserError(f"sweep: {sweep.folder} is not one of experiment=NAME; give another.")


def read(name: str) -> list[Row]:
    file = MEASURED / f"{name}.csv"
    if not file.exists():
        raise UserError(f"{file}: is missing; first: python -m docs.tables SWEEP, with a sweep of experiment={name}.")
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def add(name: str, jobs: Sequence[Job]) -> None:
    """Writes the rows of finished jobs; a job replaces an earlier one with the same values.

    A sweep may be a part of the experiment: keys of which it has one value are columns like those that it sweeps.
    """
    file = MEASURED / f"{name}.csv"
    earlier = read(name) if file.exists() else []
    columns = list(earlier[0]) if earlier else []
    keys = columns[: columns.index(RESULTS[0])] if columns else list(jobs[0].swept)
    rows = [*earlier, *(row_of(job, keys) for job in jobs if job.results())]
    latest = {tuple(row[key] for key in keys): row for row in rows}
    steps = step_accuracies_in("test", {column for row in rows for column in row})
    MEASURED.mkdir(exist_ok=True)
    file.write_text(csv_text([*keys, *RESULTS, *steps, *ORIGIN], latest.values()))


def row_of(job: Job, keys: Sequence[str]) -> Row:
    """Raises UserError if the keys are not those of the job."""
    values = dict(word.lstrip("+").partition("=")[::2] for word in job.overrides)
    if not set(job.swept) <= set(keys) <= set(values):
        raise UserError(f"{job.folder}: sweeps {', '.join(job.swept)}, but {', '.join(keys)} were swept before.")
    swept = {key: values[key] for key in keys}
    return {key: str(value) for key, value in (swept | (job.results() or {}) | origin_of(job)).items()}


def origin_of(job: Job) -> dict[str, str]:
    provenance = read_json(job.folder / PROVENANCE)
    return {"commit": provenance["git"]["commit"][:7], "processor": provenance["machine"]["processor"]}


def label(keys: Sequence[str], row: Row) -> str:
    """Returns e.g. "lstm" for model/recurrent=lstm, and "rows, join_pieces=False" for two keys."""
    return ", ".join(short(key, row[key]) for key in keys)


def short(key: str, value: str) -> str:
    if "/" in key:
        return value
    value = readable(value)
    return re.sub(r"[\[\]']", "", value) if key.endswith("orderings") else f"{key.rpartition('.')[2]}={value}"

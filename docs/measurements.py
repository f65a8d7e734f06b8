"""Keeps the results of finished jobs in docs/measured/NAME.csv: one row per job of experiment=NAME."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from quadrant_lstm.data.frames import step_accuracies_in
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, read_csv, read_json, write_atomically
from quadrant_lstm.overrides import assigned
from quadrant_lstm.run_folder import PROVENANCE
from quadrant_lstm.sweep.jobs import Job, Sweep, readable

MEASURED = Path(__file__).parent / "measured"
ACCURACY = "test/accuracy"
RESULTS = ("parameters", "seconds", "best_epoch", "val/accuracy", ACCURACY)
ORIGIN = ("commit", "processor")
WITHOUT_EFFECT = ("hydra", "~trainer.callbacks.dashboard")  # on the results

Row = Mapping[str, str]


def experiment_of(sweep: Sweep) -> str:
    for override in sweep.overrides:
        if override.startswith("experiment="):
            return override.partition("=")[2]
    raise UserError(f"sweep: {sweep.folder} is not one of experiment=NAME; give another.")


def read(name: str) -> list[Row]:
    file = MEASURED / f"{name}.csv"
    if rows := read_csv(file):
        return rows
    raise UserError(f"{file}: is missing; first: python -m docs.tables SWEEP, with a sweep of experiment={name}.")


def add(name: str, jobs: Sequence[Job]) -> None:
    """Writes the rows of finished jobs; a job replaces an earlier one with the same values.

    A sweep may be a part of the experiment: keys of which it has one value are columns like those that it sweeps.
    """
    file = MEASURED / f"{name}.csv"
    earlier = read_csv(file)
    keys = keys_of(earlier[0]) if earlier else list(jobs[0].swept)
    rows = [*earlier, *(row_of(job, keys) for job in jobs if job.results())]
    latest = {tuple(row[key] for key in keys): row for row in rows}
    steps = step_accuracies_in("test", {column for row in rows for column in row})
    write_atomically(file, csv_text([*keys, *RESULTS, *steps, *ORIGIN], latest.values()).encode())


def keys_of(row: Row) -> list[str]:
    """Returns the keys of the config among the columns, which come first."""
    return list(row)[: list(row).index(RESULTS[0])]


def row_of(job: Job, keys: Sequence[str]) -> Row:
    """Raises UserError if the job has other keys: it is not comparable."""
    values = assigned(job.overrides)
    typed = {key for key in values if key not in ("experiment", "swept") and not key.startswith(WITHOUT_EFFECT)}
    if typed != set(keys):
        raise UserError(f"{job.folder}: sets {', '.join(typed)}, but the experiment's keys are {', '.join(keys)}.")
    swept = {key: values[key] for key in keys}
    return {key: str(value) for key, value in (swept | (job.results() or {}) | origin_of(job)).items()}


def origin_of(job: Job) -> dict[str, str]:
    provenance = read_json(job.folder / PROVENANCE)
    git = provenance["git"] or {"commit": "unknown", "changed": []}
    commit = git["commit"][:7] + (" with changes" if git["changed"] else "")
    return {"commit": commit, "processor": provenance["machine"]["processor"]}


def label(keys: Sequence[str], row: Row) -> str:
    """Returns e.g. "lstm" for model/recurrent=lstm, and "rows, join_pieces=False" for two keys."""
    return ", ".join(short(key, row[key]) for key in keys)


def short(key: str, value: str) -> str:
    if "/" in key:  # a choice of a group
        return value
    value = readable(value)
    return re.sub(r"[\[\]']", "", value) if key.endswith("orderings") else f"{key.rpartition('.')[2]}={value}"

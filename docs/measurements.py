"""Keeps the results of finished jobs in docs/measured/NAME.csv, a row per job of experiment=NAME.

The functions below average these rows, and format the means for the pages.
"""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, read_csv, read_json, write_atomically
from quadrant_lstm.run_folder import PROVENANCE
from quadrant_lstm.sweep.sweep_folder import Job, Mean, Sweep, half_interval, readable
from quadrant_lstm.text import assigned, step_accuracies_in

MEASURED = Path(__file__).parent / "measured"
ACCURACY = "test/accuracy"
FIGURES = ("parameters", "seconds", "best_epoch", "val/accuracy", ACCURACY)
ORIGIN = ("commit", "processor")
AFTER_STEPS = ["steps"]  # instead of keys
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
    write_atomically(file, csv_text([*keys, *FIGURES, *steps, *ORIGIN], latest.values()).encode())


def keys_of(row: Row) -> list[str]:
    """Returns the keys of the config among the columns, which come first."""
    return list(row)[: list(row).index(FIGURES[0])]


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


def column_means(rows: Sequence[Row], down: Sequence[str], across: Sequence[str]) -> dict[str, dict[str, Mean]]:
    """Returns the columns of a table by their titles; a column holds the means of its lines."""
    if across == AFTER_STEPS:
        earlier = step_accuracies_in("test", rows[0])[:-1]
        titles = {"test accuracy": ACCURACY} | {f"after step {step}": name for step, name in enumerate(earlier, 1)}
        return {title: line_means(rows, down, result) for title, result in titles.items()}
    columns: dict[str, list[Row]] = {}
    for row in rows:
        columns.setdefault(label(across, row), []).append(row)
    return {title: line_means(found, down, ACCURACY) for title, found in columns.items()}


def line_means(rows: Iterable[Row], down: Sequence[str], result: str) -> dict[str, Mean]:
    """Returns the means of a result by the lines of a table; a network without predictions after each step has none."""
    lines: dict[str, tuple[float, ...]] = {}
    for row in rows:
        if row[result]:
            lines[label(down, row)] = (*lines.get(label(down, row), ()), float(row[result]))
    return {line: Mean(values) for line, values in lines.items()}


def table_row(*cells: object) -> str:
    """Returns a row of Markdown, without the signs %, because the caption of a table gives the unit."""
    return f"| {' | '.join(map(str, cells))} |".replace(" %", "")


def csv_link(name: str) -> str:
    """Returns a Markdown link to the jobs of an experiment."""
    return f"[{name}.csv](measured/{name}.csv)"


def measured_at(rows: Sequence[Row]) -> str:
    """Returns e.g. "Measured on AMD EPYC, at commit 59a1cbf", for a caption."""
    commits, processors = (list(dict.fromkeys(row[column] for row in rows)) for column in ORIGIN)
    plural = "s" if len(commits) > 1 else ""
    return f"Measured on {' and '.join(processors)}, at commit{plural} {listed(commits)}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Returns e.g. "a", "a and b" or "a, b and c"."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def points(values: Sequence[float], digits: int = 2) -> str:
    """Returns the mean in percentage points and its 95 % confidence interval, or fewer than three values."""
    if len(values) < 3:
        return ", ".join(f"{100 * value:+.{digits}f}" for value in values)
    mean, half = 100 * statistics.mean(values), 100 * half_interval(values)
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def numbers(counts: Sequence[int]) -> str:
    """Returns e.g. "5" or "1,200 to 1,300" for sorted counts."""
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))

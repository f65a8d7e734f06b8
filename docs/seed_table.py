"""Makes the table of experiments whose jobs differ in their seed only."""

import statistics
from collections.abc import Sequence

from docs.measurements import ACCURACY, Row, csv_link, keys_of, listed, measured_at, numbers, read, table_row
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import Mean
from quadrant_lstm.text import duration, percent


def seed_table(experiments: Sequence[str]) -> str:
    """Returns a table of the accuracy of each seed of these experiments, and of the duration of a run."""
    lines = ["| | each seed | mean | standard deviation | time of a run |", "|---|---|---|---|---|"]
    measured = [seeds_of(name) for name in experiments]
    for name, rows in zip(experiments, measured, strict=True):
        mean = Mean(tuple(float(row[ACCURACY]) for row in rows))
        deviation = percent(statistics.stdev(mean.values))
        time = duration(statistics.median(float(row["seconds"]) for row in rows))
        each = ", ".join(map(percent, mean.values))
        lines.append(table_row(f"`experiment={name}`", each, mean, deviation, time))
    caption = (
        f"Test accuracy in % with each of {numbers(sorted(map(len, measured)))} seeds, their mean with its 95 % "
        "confidence interval, and their standard deviation; the median time of a run. "
        f"{measured_at([row for rows in measured for row in rows])}; each job is a row, with its commit, of "
        f"{listed(list(map(csv_link, experiments)), 'or')}."
    )
    return "\n".join([*lines, "", caption, ""])


def seeds_of(name: str) -> list[Row]:
    """Returns the jobs in the order of their seeds. Raises UserError if they differ in another key."""
    rows = read(name)
    if keys_of(rows[0]) != ["seed"] or len(rows) < 3:
        raise UserError(f"experiment={name}: a table of seeds needs three or more jobs that differ in `seed` only.")
    return sorted(rows, key=lambda row: int(row["seed"]))

"""Fills the tables of docs/*.md, and draws one picture for each, from the results of sweeps that docs/measured/ keeps.

python -m docs.tables outputs/sweeps/DATE/TIME ...    first adds the finished jobs of these sweeps, which may be none

docs/measured/NAME.csv has one row per job of experiment=NAME. A table stands in a page between two lines, of which the
first names the keys whose values make its rows and its columns:

    <!-- table motion: rows=model/recurrent columns=data.label -->
    <!-- end -->

docs/measured/NAME.png has a panel for each column: a dot is a job, a line the 95 % confidence interval of the mean.
"""

import argparse
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.config.check_validation import REPETITIONS
from quadrant_lstm.data.frames import step_accuracies_in
from quadrant_lstm.errors import UserError
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run_folder import PROVENANCE, csv_text, read_json
from quadrant_lstm.sweep.groups import Mean
from quadrant_lstm.sweep.jobs import Job, Sweep, find_sweep, readable
from quadrant_lstm.sweep.plots import error_percent

HERE = Path(__file__).parent
MEASURED = HERE / "measured"
TABLE = re.compile(r"(<!-- table (\w+): rows=(\S+) columns=(\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
RESULTS = ("parameters", "seconds", "best_epoch", "val/accuracy", "test/accuracy")
ORIGIN = ("commit", "processor")

Row = Mapping[str, str]
Values = tuple[str, ...]


def experiment_of(sweep: Sweep) -> str:
    for override in sweep.overrides:
        if override.startswith("experiment="):
            return override.partition("=")[2]
    raise UserError(f"sweep: {sweep.folder} is not one of experiment=NAME; give another.")


def row_of(job: Job) -> Row:
    provenance = read_json(job.folder / PROVENANCE)
    origin = {"commit": provenance["git"]["commit"][:7], "processor": provenance["machine"]["processor"]}
    return {key: str(value) for key, value in (job.swept | (job.results() or {}) | origin).items()}


def read(name: str) -> list[Row]:
    file = MEASURED / f"{name}.csv"
    return list(csv.DictReader(file.open(newline=""))) if file.exists() else []


def add(name: str, jobs: Sequence[Job]) -> None:
    """Writes the rows of finished jobs; a job replaces an earlier one with the same values."""
    keys, earlier = list(jobs[0].swept), read(name)
    if earlier and not set(keys) <= set(earlier[0]):
        raise UserError(f"{MEASURED / name}.csv: has not the keys {', '.join(keys)} of this sweep; delete it first.")
    rows = [*earlier, *(row_of(job) for job in jobs if job.results())]
    latest = {tuple(row[key] for key in keys): row for row in rows}
    steps = step_accuracies_in("test", {column for row in rows for column in row})
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{name}.csv").write_text(csv_text([*keys, *RESULTS, *steps, *ORIGIN], latest.values()))


def label(keys: Sequence[str], values: Values) -> str:
    """Returns e.g. "lstm" for model/recurrent=lstm, and "rows, join_pieces=False" for two keys."""
    return ", ".join(short(key, value) for key, value in zip(keys, values, strict=True))


def short(key: str, value: str) -> str:
    if "/" in key:
        return value
    return re.sub(r"[\[\]']", "", value) if key.endswith("orderings") else f"{key.rpartition('.')[2]}={readable(value)}"


def cells(rows: Iterable[Row], across: Sequence[str], down: Sequence[str]) -> dict[Values, dict[Values, list[Row]]]:
    """Returns the rows by the values of their keys: those of a column, and in it those of a row of the table."""
    found: dict[Values, dict[Values, list[Row]]] = {}
    for row in rows:
        column, line = (tuple(row[key] for key in keys) for keys in (across, down))
        found.setdefault(column, {}).setdefault(line, []).append(row)
    return found


def mean(rows: Iterable[Row]) -> Mean:
    return Mean(tuple(float(row["test/accuracy"]) for row in rows))


def table(name: str, down: Sequence[str], across: Sequence[str]) -> str:
    rows = read(name)
    columns = cells(rows, across, down)
    lines = ["| | parameters | " + " | ".join(label(across, column) for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for line in next(iter(columns.values())):
        found = [column.get(line, []) for column in columns.values()]
        counts = sorted({int(row["parameters"]) for same in found for row in same})
        parameters = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        means = " | ".join(str(mean(same)).replace(" %", "") if same else "" for same in found)
        lines.append(f"| {label(down, line)} | {parameters} | {means} |")
    return "\n".join([*lines, "", measured_at(name, rows), ""])


def measured_at(name: str, rows: Sequence[Row]) -> str:
    seeds = len({tuple(row.get(key, "") for key in REPETITIONS) for row in rows})
    commits, processors = (", ".join(dict.fromkeys(row[column] for row in rows)) for column in ORIGIN)
    return (
        f"Test accuracy in %: mean of {seeds} seeds and its 95 % confidence interval. Measured on {processors}, at "
        f"commit {commits}; each job is a row of [{name}.csv](measured/{name}.csv)."
    )


@style
def draw(name: str, down: Sequence[str], across: Sequence[str]) -> bytes:
    columns = cells(read(name), across, down)
    lines = list(next(iter(columns.values())))
    figure = new_figure(2 * WIDTH, 0.6 + 0.2 * len(lines))
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (column, found) in zip(panels, columns.items(), strict=True):
        for position, line in enumerate(lines):
            if line in found:
                draw_jobs(axes, position, mean(found[line]))
        axes.set_yticks(range(len(lines)), [label(down, line) for line in lines])
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=label(across, column), xlabel="test error, %")
        axes.grid(alpha=0.3, axis="x")
    panels[0].invert_yaxis()
    return as_png(figure, SCALE)


def draw_jobs(axes: Axes, position: int, accuracies: Mean) -> None:
    errors = list(map(error_percent, accuracies.values))
    axes.plot(errors, [position] * len(errors), "o", color=GREY, markersize=3)
    axes.plot(error_percent(accuracies.mean), position, "|", color=CORRECT, markersize=10, markeredgewidth=2)
    if accuracies.interval:
        axes.hlines(position, *map(error_percent, accuracies.interval), color=CORRECT)


def fill(text: str) -> str:
    """Returns the text of a page with all its tables written anew."""
    return TABLE.sub(lambda found: found[1] + "\n" + table(*spec(found)) + "\n" + found[5], text)


def spec(found: re.Match[str]) -> tuple[str, list[str], list[str]]:
    return found[2], found[3].split(","), found[4].split(",")


def main(sweeps: Sequence[Sweep]) -> None:
    for sweep in sweeps:
        add(experiment_of(sweep), sweep.jobs)
    for page in sorted(HERE.glob("*.md")):
        text = page.read_text()
        for found in TABLE.finditer(text):
            (MEASURED / f"{found[2]}.png").write_bytes(draw(*spec(found)))
        if (filled := fill(text)) != text:
            page.write_text(filled)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fills the tables of docs/*.md from the results of sweeps.")
    parser.add_argument("sweeps", nargs="*", help="the folders of sweeps whose finished jobs are added")
    given = parser.parse_args()
    with handle_errors():
        main([find_sweep(sweep) for sweep in given.sweeps])

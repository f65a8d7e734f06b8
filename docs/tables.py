"""Fills the tables of docs/*.md, and draws one picture for each, from the results of sweeps that docs/measured/ keeps.

python -m docs.tables outputs/sweeps/DATE/TIME ...    first adds the finished jobs of these sweeps, which may be none

docs/measured/NAME.csv has one row per job of experiment=NAME. A table stands in a page between two lines, of which the
first names the keys whose values make its rows, and those whose values make its columns:

    <!-- table motion: rows=model/recurrent columns=data.label -->
    <!-- end -->

columns=steps shows the accuracy after the last step and after each earlier one instead. docs/measured/NAME.png has a
panel for each column, but none for earlier steps: a dot is a job, a line the 95 % confidence interval of the mean.
"""

import argparse
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from quadrant_lstm.cli.command import handle_errors
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
ACCURACY = "test/accuracy"
RESULTS = ("parameters", "seconds", "best_epoch", "val/accuracy", ACCURACY)
ORIGIN = ("commit", "processor")
AFTER_STEPS = ["steps"]  # instead of keys

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


def table(name: str, down: Sequence[str], across: Sequence[str]) -> str:
    rows = read(name)
    columns = column_means(rows, down, across)
    lines = ["| | parameters | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for line in dict.fromkeys(label(down, row) for row in rows):
        counts = sorted(int(row["parameters"]) for row in rows if label(down, row) == line)
        parameters = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        means = " | ".join(str(column.get(line, "")).replace(" %", "") for column in columns.values())
        lines.append(f"| {line} | {parameters} | {means} |")
    return "\n".join(
        [*lines, "", measured_at(name, rows, [mean for each in columns.values() for mean in each.values()]), ""]
    )


def measured_at(name: str, rows: Sequence[Row], means: Sequence[Mean]) -> str:
    counts = sorted(len(mean.values) for mean in means)
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    single = "" if all(mean.interval for mean in means) else ", or single values of fewer than three"
    commits, processors = (", ".join(dict.fromkeys(row[column] for row in rows)) for column in ORIGIN)
    return (
        f"Test accuracy in %: mean of {seeds} seeds and its 95 % confidence interval{single}. Measured on "
        f"{processors}, at commit {commits}; each job is a row of [{name}.csv](measured/{name}.csv)."
    )


@style
def draw(name: str, down: Sequence[str], across: Sequence[str]) -> bytes:
    columns = column_means(read(name), down, across)
    if across == AFTER_STEPS:
        columns = dict(list(columns.items())[:1])
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    figure = new_figure(2 * WIDTH, 0.6 + 0.2 * len(lines))
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (title, means) in zip(panels, columns.items(), strict=True):
        for position, line in enumerate(lines):
            if line in means:
                draw_jobs(axes, position, means[line])
        axes.set_yticks(range(len(lines)), lines)
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=title, xlabel="test error, %")
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

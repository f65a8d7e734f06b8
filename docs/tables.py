"""Fills the tables of docs/*.md, and draws one picture for each, from the results of sweeps that docs/measured/ keeps.

python -m docs.tables outputs/sweeps/DATE/TIME ...    first adds the finished jobs of these sweeps, which may be none

A table stands in a page between two lines, of which the first names the keys whose values make its rows, and those
whose values make its columns; columns=steps shows the accuracy after the last step and after each earlier one instead:

    <!-- table motion: rows=model/recurrent columns=data.label -->
    <!-- end -->

docs/measured/NAME.png has a panel for each column, but none for earlier steps: a dot is a job, a line the 95 %
confidence interval of the mean. A table of differences names a key and the value from which they are taken:

    <!-- differences scans: data.orderings from=[rows] rows=model.join_pieces columns=experiment/scans -->
    <!-- end -->
"""

import argparse
import functools
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

from docs import measurements
from docs.measurements import ACCURACY, ORIGIN, Row, add, experiment_of, keys_of, label, read, short
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.data.frames import step_accuracies_in
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.sweep.groups import Mean, half_interval
from quadrant_lstm.sweep.jobs import Sweep, find_sweep
from quadrant_lstm.sweep.plots import error_percent

HERE = Path(__file__).parent
END = "<!-- end -->"
TABLE = re.compile(rf"(<!-- table (\w+): rows=(\S*) columns=(\S*) -->\n).*?{END}", re.DOTALL)
DIFFERENCES = re.compile(
    rf"(<!-- differences (\w+): (\S+) from=(\S+) rows=(\S*) columns=(\S*) -->\n).*?{END}", re.DOTALL
)
AFTER_STEPS = ["steps"]  # instead of keys


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
        means = " | ".join(str(column.get(line, "")).replace(" %", "") for column in columns.values())
        lines.append(f"| {line} | {numbers(counts)} | {means} |")
    return "\n".join(
        [*lines, "", measured_at(name, rows, [mean for each in columns.values() for mean in each.values()]), ""]
    )


def measured_at(name: str, rows: Sequence[Row], means: Sequence[Mean]) -> str:
    counts = sorted(len(mean.values) for mean in means)
    single = "" if all(mean.interval for mean in means) else ", or single values of fewer than three"
    commits, processors = (", ".join(dict.fromkeys(row[column] for row in rows)) for column in ORIGIN)
    return (
        f"Test accuracy in %: mean of {numbers(counts)} seeds and its 95 % confidence interval{single}. Measured on "
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
        mark_errors(axes.xaxis)
        axes.set(title=title, xlabel="test error, %")
        axes.grid(alpha=0.3, axis="x")
    panels[0].invert_yaxis()
    return as_png(figure, SCALE)


def mark_errors(axis: Axis) -> None:
    """Marks 1, 2, 5, 10, 20, ... on a logarithmic axis."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")


def draw_jobs(axes: Axes, position: int, accuracies: Mean) -> None:
    errors = list(map(error_percent, accuracies.values))
    axes.plot(errors, [position] * len(errors), "o", color=GREY, markersize=3)
    axes.plot(error_percent(accuracies.mean), position, "|", color=CORRECT, markersize=10, markeredgewidth=2)
    if accuracies.interval:
        axes.hlines(position, *map(error_percent, accuracies.interval), color=CORRECT)


def differences(name: str, key: str, base: str, down: Sequence[str], across: Sequence[str]) -> str:
    """Returns a table of how far each other value of the key is from the base: the mean of the differences between
    jobs with the same seed, and its 95 % confidence interval.
    """
    rows = read(name)
    bases = {others(key, row): float(row[ACCURACY]) for row in rows if row[key] == base}
    titles = list(dict.fromkeys(label(across, row) for row in rows))
    pairs: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row[key] != base and others(key, row) in bases:
            line = ", ".join(filter(None, (f"{short(key, row[key])} - {short(key, base)}", label(down, row))))
            found = pairs.setdefault(line, {}).setdefault(label(across, row), [])
            found.append(float(row[ACCURACY]) - bases[others(key, row)])
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for line, columns in pairs.items():
        lines.append(f"| {line} | {' | '.join(points(columns.get(title, [])) for title in titles)} |")
    counts = sorted(len(values) for columns in pairs.values() for values in columns.values())
    caption = (
        f"Percentage points: mean of the differences of {numbers(counts)} pairs of jobs with the same seed, and its "
        "95 % confidence interval."
    )
    return "\n".join([*lines, "", caption, ""])


def others(key: str, row: Row) -> tuple[str, ...]:
    """Returns the values of the other keys of a job, its seed included."""
    return tuple(row[other] for other in keys_of(row) if other != key)


def points(values: Sequence[float], digits: int = 2) -> str:
    """Returns the mean in percentage points and its 95 % confidence interval, or fewer than three values."""
    if len(values) < 3:
        return ", ".join(f"{100 * value:+.{digits}f}" for value in values)
    mean, half = 100 * statistics.mean(values), 100 * half_interval(values)
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def numbers(counts: Sequence[int]) -> str:
    """Returns e.g. "5" or "1,200 to 1,300" for sorted counts."""
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def fill(text: str) -> str:
    """Returns the text of a page with all its tables written anew."""
    for pattern, make in ((TABLE, table), (DIFFERENCES, differences)):
        text = pattern.sub(functools.partial(filled, make), text)
    return text


def filled(make: Callable[..., str], found: re.Match[str]) -> str:
    return f"{found[1]}\n{make(*arguments(found))}\n{END}"


def arguments(found: re.Match[str]) -> list[Any]:
    *words, down, across = found.groups()[1:]
    return [*words, *([key for key in keys.split(",") if key] for keys in (down, across))]


def main(sweeps: Sequence[Sweep]) -> None:
    for sweep in sweeps:
        add(experiment_of(sweep), sweep.jobs)
    for page in sorted(HERE.glob("*.md")):
        text = page.read_text()
        for found in TABLE.finditer(text):
            (measurements.MEASURED / f"{found[2]}.png").write_bytes(draw(*arguments(found)))
        page.write_text(fill(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fills the tables of docs/*.md from the results of sweeps.")
    parser.add_argument("sweeps", nargs="*", help="the folders of sweeps whose finished jobs are added")
    given = parser.parse_args()
    with handle_errors():
        main([find_sweep(sweep) for sweep in given.sweeps])

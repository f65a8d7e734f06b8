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

A table of seeds names experiments whose jobs differ in their seed only:

    <!-- seeds: fast,quick -->
    <!-- end -->
"""

import argparse
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docs import measurements
from docs.measurements import (
    ACCURACY,
    Row,
    add,
    column_means,
    csv_link,
    experiment_of,
    keys_of,
    label,
    measured_at,
    numbers,
    points,
    read,
    short,
    table_row,
)
from docs.panels import draw
from docs.seed_table import seed_table
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.sweep.sweep_folder import Sweep, find_sweep

HERE = Path(__file__).parent
END = "<!-- end -->"
KEYS = r"rows=(?P<down>\S*) columns=(?P<across>\S*)"
TABLE = re.compile(rf"(<!-- table (?P<name>\w+): {KEYS} -->\n).*?{END}", re.DOTALL)
DIFFERENCES = re.compile(
    rf"(<!-- differences (?P<name>\w+): (?P<key>\S+) from=(?P<base>\S+) {KEYS} -->\n).*?{END}", re.DOTALL
)
SEEDS = re.compile(rf"(<!-- seeds: (?P<experiments>\S+) -->\n).*?{END}", re.DOTALL)
LISTS = ("down", "across", "experiments")


def table(name: str, down: Sequence[str], across: Sequence[str]) -> str:
    rows = read(name)
    columns = column_means(rows, down, across)
    lines = ["| | parameters | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for line in dict.fromkeys(label(down, row) for row in rows):
        counts = sorted(int(row["parameters"]) for row in rows if label(down, row) == line)
        lines.append(table_row(line, numbers(counts), *(column.get(line, "") for column in columns.values())))
    means = [mean for column in columns.values() for mean in column.values()]
    counts = sorted(len(mean.values) for mean in means)
    single = "" if all(mean.interval for mean in means) else ", or single values of fewer than three"
    caption = (
        f"Test accuracy in %: mean of {numbers(counts)} seeds and its 95 % confidence interval{single}. "
        f"{measured_at(rows)}; each job is a row of {csv_link(name)}."
    )
    return "\n".join([*lines, "", caption, ""])


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
    heads = [title or "test accuracy" for title in titles]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for line, columns in pairs.items():
        lines.append(table_row(line, *(points(columns.get(title, [])) for title in titles)))
    counts = sorted(len(values) for columns in pairs.values() for values in columns.values())
    caption = (
        f"Percentage points: mean of the differences of {numbers(counts)} pairs of jobs with the same seed, and its "
        "95 % confidence interval."
    )
    return "\n".join([*lines, "", caption, ""])


def others(key: str, row: Row) -> tuple[str, ...]:
    """Returns the values of the other keys of a job, its seed included."""
    return tuple(row[other] for other in keys_of(row) if other != key)


def fill(text: str) -> str:
    """Returns the text of a page with all its tables written anew."""
    for pattern, make in ((TABLE, table), (DIFFERENCES, differences), (SEEDS, seed_table)):
        text = pattern.sub(functools.partial(filled, make), text)
    return text


def filled(make: Callable[..., str], found: re.Match[str]) -> str:
    return f"{found[1]}\n{make(**arguments(found))}\n{END}"


def arguments(found: re.Match[str]) -> dict[str, Any]:
    groups = found.groupdict().items()
    return {name: list(filter(None, value.split(","))) if name in LISTS else value for name, value in groups}


def main(sweeps: Sequence[Sweep]) -> None:
    for sweep in sweeps:
        add(experiment_of(sweep), sweep.jobs)
    for page in sorted(HERE.glob("*.md")):
        text = page.read_text()
        for found in TABLE.finditer(text):
            (measurements.MEASURED / f"{found['name']}.png").write_bytes(draw(**arguments(found)))
        page.write_text(fill(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fills the tables of docs/*.md from the results of sweeps.")
    parser.add_argument("sweeps", nargs="*", help="the folders of sweeps whose finished jobs are added")
    given = parser.parse_args()
    with handle_errors():
        main([find_sweep(sweep) for sweep in given.sweeps])

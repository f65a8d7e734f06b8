"""Makes the tables of docs/*.md and their pictures from docs/measured/NAME.csv, the jobs of one or more sweeps."""

import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from benchmarks.measure import header, row
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, read_csv, read_json, write_atomically
from quadrant_lstm.plotting import CORRECT, GREY, GROUP_COLOURS, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run_folder import PROVENANCE
from quadrant_lstm.sweep.plots import error_percent, mark_logarithmic
from quadrant_lstm.sweep.sweep_folder import Job, Mean, Sweep, half_interval, readable
from quadrant_lstm.text import assigned, percent, step_accuracies_in

DOCS = Path(__file__).parents[1]

# Rows of jobs. The keys of the config come first

MEASURED = DOCS / "measured"
ACCURACY = "test/accuracy"
FIGURES = ("parameters", "seconds", "best_epoch", "val/accuracy", ACCURACY)
ORIGIN = ("commit", "processor")
# no columns: what has no effect on the results, and the experiment, of which a table has one
WITHOUT_EFFECT = re.compile(r"(experiment|swept)$|hydra|~trainer\.callbacks\.dashboard")

Row = Mapping[str, str]


def read(name: str, over: str = "") -> list[Row]:
    """Reads the jobs. Those that differ only in the key `over`, e.g. data.test_fold, become one with their mean."""
    if not (jobs := read_csv(file := MEASURED / f"{name}.csv")):
        raise UserError(f"{file}: is missing; add a sweep by python -m docs.figures tables {name}=SWEEP.")
    return averaged(jobs, over) if over else jobs


def averaged(jobs: Sequence[Row], over: str) -> list[Row]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    keys = [key for key in keys_of(jobs[0]) if key != over]
    for job in jobs:
        groups.setdefault(tuple(job[key] for key in keys), []).append(job)
    if len({frozenset(job[over] for job in group) for group in groups.values()}) > 1:
        raise UserError(f"over={over}: some jobs have other values of it than others; finish the sweep.")
    accuracies, means = [*step_accuracies_in("test", jobs[0]), ACCURACY], []
    for group in groups.values():
        mean = {key: str(statistics.mean(float(job[key]) for job in group)) for key in accuracies if group[0][key]}
        processors = " and ".join(dict.fromkeys(job["processor"] for job in group))
        merged = {**group[0], **mean, "processor": processors}
        means.append({key: value for key, value in merged.items() if key != over})
    return means


def add(name: str, jobs: Sequence[Job]) -> None:
    """Writes the rows of finished jobs; a job replaces an earlier one with the same values."""
    if len(experiments := {assigned(job.overrides).get("experiment") for job in jobs}) > 1:
        raise UserError(
            f"{name}: has jobs of {' and '.join(map(str, experiments))}; give each sweep a table of its own."
        )
    earlier = read_csv(file := MEASURED / f"{name}.csv")
    keys = keys_of(earlier[0]) if earlier else list(values_of(jobs[0]))
    rows = [*earlier, *(row_of(job, keys) for job in jobs if job.results())]
    latest = {tuple(row[key] for key in keys): row for row in rows}
    steps = step_accuracies_in("test", {column for row in rows for column in row})
    write_atomically(file, csv_text([*keys, *FIGURES, *steps, *ORIGIN], latest.values()).encode())


def keys_of(row: Row) -> list[str]:
    return list(row)[: list(row).index(FIGURES[0])]


def values_of(job: Job) -> dict[str, str]:
    return {key: value for key, value in assigned(job.overrides).items() if not WITHOUT_EFFECT.match(key)}


def row_of(job: Job, keys: Sequence[str]) -> Row:
    """Raises UserError if the job has other keys: it is not comparable."""
    values = values_of(job)
    removed = [override for override in job.overrides if override[0] == "~" and not WITHOUT_EFFECT.match(override)]
    if removed or values.keys() != set(keys):
        found = ", ".join([*values, *removed])
        raise UserError(f"{job.folder}: sets {found}, but the keys of its table are {', '.join(keys)}.")
    provenance = read_json(job.folder / PROVENANCE)
    git = provenance["git"] or {"commit": "unknown", "changed": []}
    commit = git["commit"][:7] + (" with changes" if git["changed"] else "")
    origin = {"commit": commit, "processor": provenance["machine"]["processor"]}
    return {key: str(value) for key, value in (values | (job.results() or {}) | origin).items()}


# Tables. One stands in a page between two comments, of which the first names its kind and its function's arguments:
#
#     <!-- means name=motion rows=model/recurrent columns=data.label -->
#     <!-- end -->
#
# rows= and columns= are the keys whose values make them; columns=steps shows the accuracy after each step instead.
# over= is a key over whose values jobs with the same seed are averaged, before the means over seeds.
# A table of means has a picture, measured/NAME.png, with a panel for each column

TABLE = re.compile(r"(<!-- (means|differences|seeds)((?: \w+=\S*)+) -->\n).*?(<!-- end -->)", re.DOTALL)
STEPS = "steps"


def tables(sweeps: Iterable[tuple[str, Sweep]]) -> None:
    """Writes the tables of docs/*.md and their pictures, after it has added the finished jobs of sweeps by name."""
    for name, sweep in sweeps:
        add(name, sweep.jobs)
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        for _, kind, words, _ in TABLE.findall(text):
            if kind == "means":
                write_atomically(MEASURED / f"{arguments(words)['name']}.png", draw_means(**arguments(words)))
        page.write_text(fill(text))
    write_atomically(DOCS / "steps.png", draw_steps(read("scans")))


def fill(text: str) -> str:
    makers = {"means": means, "differences": differences, "seeds": seeds}
    return TABLE.sub(lambda found: f"{found[1]}\n{makers[found[2]](**arguments(found[3]))}\n\n{found[4]}", text)


def arguments(words: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words.split())


def means(name: str, rows: str, columns: str, over: str = "") -> str:
    jobs = read_cells(name, over, rows, columns)
    table = column_means(jobs, rows, columns)
    lines = []
    for line in dict.fromkeys(label(rows, job) for job in jobs):
        parameters = numbers(int(job["parameters"]) for job in jobs if label(rows, job) == line)
        lines.append([line, parameters, *(column.get(line, "") for column in table.values())])
    found = [mean for column in table.values() for mean in column.values()]
    single = "" if all(mean.interval for mean in found) else ", or single values of fewer than three"
    return markdown(
        ["", "parameters", *(title or "test accuracy" for title in table)],
        lines,
        f"Test accuracy in %: mean of {numbers(len(mean.values) for mean in found)} seeds and its 95 % confidence "
        f"interval{single}. {measured_at(jobs)}; each job is a row, with its commit, of {link(name)}.",
    )


def differences(name: str, key: str, base: str, rows: str, columns: str, over: str = "") -> str:
    """Returns how far each other value of the key is from the base, over pairs of jobs whose other keys are equal."""

    def others(job: Row) -> tuple[str, ...]:
        return tuple(job[other] for other in keys_of(job) if other != key)

    jobs = read_cells(name, over, key, rows, columns)
    bases = {others(job): float(job[ACCURACY]) for job in jobs if job[key] == base}
    table: dict[str, dict[str, list[float]]] = {}
    for job in jobs:
        if job[key] != base and others(job) in bases:
            line = ", ".join(filter(None, (f"{short(key, job[key])} - {short(key, base)}", label(rows, job))))
            values = table.setdefault(line, {}).setdefault(label(columns, job), [])
            values.append(float(job[ACCURACY]) - bases[others(job)])
    titles = list(dict.fromkeys(label(columns, job) for job in jobs))
    pairs = numbers(len(values) for line in table.values() for values in line.values())
    return markdown(
        ["", *(title or "test accuracy" for title in titles)],
        [[line, *(points(found.get(title, [])) for title in titles)] for line, found in table.items()],
        f"Percentage points: mean of the differences of {pairs} pairs of jobs with the same seed, and its 95 % "
        "confidence interval.",
    )


def seeds(names: str) -> str:
    """Returns the accuracy of each seed of experiments whose jobs differ in nothing else."""
    measured = {name: sorted(read(name), key=lambda job: int(job["seed"])) for name in names.split(",")}
    lines = []
    for name, jobs in measured.items():
        if keys_of(jobs[0]) != ["seed"] or len(jobs) < 3:
            raise UserError(f"experiment={name}: a table of seeds needs three or more jobs that differ in `seed` only.")
        mean = Mean(tuple(float(job[ACCURACY]) for job in jobs))
        deviation = percent(statistics.stdev(mean.values))
        lines.append([f"`experiment={name}`", ", ".join(map(percent, mean.values)), mean, deviation])
    return markdown(
        ["", "each seed", "mean", "standard deviation"],
        lines,
        f"Test accuracy in % with each of {numbers(map(len, measured.values()))} seeds, their mean with its 95 % "
        "confidence interval, and their standard deviation. "
        f"{measured_at([job for jobs in measured.values() for job in jobs])}; each job is a row, with its commit, of "
        f"{', '.join(map(link, measured))}.",
    )


def read_cells(name: str, over: str, *keys: str) -> list[Row]:
    """Reads the jobs. Raises UserError if two in the same cell have the same seed: they would be counted as two."""
    jobs = read(name, over)
    if len({(*(label(each, job) for each in keys if each != STEPS), job["seed"]) for job in jobs}) < len(jobs):
        raise UserError(
            f"{name}: jobs of one cell differ in more than the seed; add a key to rows= or columns=, or write over=."
        )
    return jobs


def column_means(jobs: Sequence[Row], rows: str, columns: str) -> dict[str, dict[str, Mean]]:
    """Returns the means of a table by title and line. Some networks predict at the end only."""
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for job in jobs:
        earlier = step_accuracies_in("test", job)[:-1] if columns == STEPS else []
        titles = {"test accuracy" if columns == STEPS else label(columns, job): ACCURACY}
        for title, result in (titles | {f"after step {step}": name for step, name in enumerate(earlier, 1)}).items():
            column = values.setdefault(title, {})
            if job[result]:
                column[label(rows, job)] = (*column.get(label(rows, job), ()), float(job[result]))
    return {title: {line: Mean(found) for line, found in column.items()} for title, column in values.items()}


def label(keys: str, row: Row) -> str:
    """Returns e.g. "lstm" for model/recurrent=lstm, and "rows, join_pieces=False" for two keys."""
    return ", ".join(short(key, row[key]) for key in keys.split(",") if key)


def short(key: str, value: str) -> str:
    if "/" in key:  # a choice of a group
        return value
    value = readable(value)
    return re.sub(r"[\[\]']", "", value) if key.endswith("orderings") else f"{key.rpartition('.')[2]}={value}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[object]], caption: str) -> str:
    """Returns a table without the signs %, because its caption gives the unit."""
    table = "\n".join([header(*head), *(row(*map(str, cells)) for cells in lines)])
    return f"{table.replace(' %', '')}\n\n{caption}"


def link(name: str) -> str:
    return f"[{name}.csv](measured/{name}.csv)"


def measured_at(rows: Sequence[Row]) -> str:
    return f"Measured on {' and '.join(dict.fromkeys(row['processor'] for row in rows))}"


def points(values: Sequence[float]) -> str:
    """Returns the mean in percentage points and its 95 % confidence interval, or fewer than three values."""
    if len(values) < 3:
        return ", ".join(f"{100 * value:+.2f}" for value in values)
    mean, half = 100 * statistics.mean(values), 100 * half_interval(values)
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def numbers(counts: Iterable[int]) -> str:
    """Returns e.g. "5" or "1,200 to 1,300"."""
    found = sorted(counts)
    return " to ".join(f"{count:,}" for count in dict.fromkeys((found[0], found[-1])))


# Pictures of these results


@style
def draw_means(name: str, rows: str, columns: str, over: str = "") -> bytes:
    """Draws a dot for each job (or mean over `over`), a bar for their mean and a line for its interval, with a panel
    for each column.
    """
    table = column_means(read(name, over), rows, columns)
    if columns == STEPS:
        table = {"": table["test accuracy"]}
    lines = list(dict.fromkeys(line for column in table.values() for line in column))
    figure = new_figure(2 * WIDTH, 0.6 + 0.2 * len(lines))
    panels = figure.subplots(1, len(table), sharey=True, squeeze=False)[0]
    for axes, (title, column) in zip(panels, table.items(), strict=True):
        for position, mean in ((lines.index(line), mean) for line, mean in column.items()):
            errors = list(map(error_percent, mean.values))
            axes.plot(errors, [position] * len(errors), "o", color=GREY, markersize=3)
            axes.plot(error_percent(mean.mean), position, "|", color=CORRECT, markersize=10, markeredgewidth=2)
            if mean.interval:
                axes.hlines(position, *map(error_percent, mean.interval), color=CORRECT)
        axes.set_yticks(range(len(lines)), lines)
        axes.set(title=title, xlabel="test error, % (log scale)", xscale="log")
        mark_logarithmic(axes.xaxis)
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_ylim(len(lines) - 0.5, -0.5)  # the first line on top
    return as_png(figure, SCALE)


HIGHEST = 30  # %: the test errors that draw_steps shows; higher ones are close to guessing


@style
def draw_steps(jobs: Sequence[Row]) -> bytes:
    """Draws the test error after each of the last pieces, with a panel for each grid and a colour for each ordering."""
    grids = list(dict.fromkeys(job["data.grid"] for job in jobs))
    colours = dict(zip(dict.fromkeys(job["data.orderings"] for job in jobs), GROUP_COLOURS, strict=False))
    figure = new_figure(2 * WIDTH, 3.4)
    panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    for axes, grid in zip(panels, grids, strict=True):
        for (ordering, colour), (joined, dashes) in itertools.product(colours.items(), (("True", "-"), ("False", ":"))):
            wanted = (grid, ordering, joined)
            found = [j for j in jobs if (j["data.grid"], j["data.orderings"], j["model.join_pieces"]) == wanted]
            if found:
                steps = [name for name in step_accuracies_in("test", found[0]) if found[0][name]]
                errors = [statistics.mean(error_percent(float(job[name])) for job in found) for name in steps]
                name = short("data.orderings", ordering) if joined == "True" else None
                axes.plot(range(1, len(steps) + 1), errors, dashes, color=colour, label=name)
        rows, columns = map(int, re.findall(r"\d+", grid))
        last, shown = rows * columns, max(2, rows * columns // 4)
        axes.set(title=short("data.grid", grid), xlabel=f"pieces that were read, of {last}", yscale="log")
        axes.set(ylim=(0.8, HIGHEST), xlim=(last - 1.03 * shown, last + 0.03 * shown))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    mark_logarithmic(panels[0].yaxis)
    panels[0].set_ylabel("test error, % (log scale)")
    panels[0].plot([], [], "-", color=GREY, label="convolutions see across the cuts")
    panels[0].plot([], [], ":", color=GREY, label="each piece is encoded alone")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return as_png(figure, SCALE)

"""Remakes the pictures and tables of README.md and docs/.

    python -m docs.figures tables [SWEEP ...]    the tables between comments in docs/*.md, and the pictures of them
    python -m docs.figures epochs SWEEP          epochs.png, of a sweep over seeds
    python -m docs.figures mistakes RUN ...      mistakes.png; several runs are an ensemble
    python -m docs.figures orderings             orderings.png
    python -m docs.figures draw                  draw.html with today's templates, and draw.png
    python -m docs.figures tensorboard RUNS [TAB ...]    tensorboard_TAB.png

The last two need `python -m pip install -e ".[dev]"` and Debian's chromium-driver.
"""

import argparse
import io
import itertools
import json
import re
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from benchmarks.measure import header, row
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.dashboard.pictures.data import draw_orderings
from quadrant_lstm.dashboard.pictures.predictions import columns_for, draw_mistakes, most_confident_mistakes
from quadrant_lstm.data.images import load_images
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, read_csv, read_json, write_atomically
from quadrant_lstm.plotting import CORRECT, GREY, GROUP_COLOURS, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run.drawing_page import NUM_COMPARED
from quadrant_lstm.run.load import run_test
from quadrant_lstm.run_folder import BEST, METRICS, PROVENANCE, find_run, read_rows
from quadrant_lstm.sweep.plots import error_percent, format_error_axes
from quadrant_lstm.sweep.sweep_folder import Job, Mean, Sweep, find_sweep, half_interval, readable
from quadrant_lstm.text import assigned, duration, percent, render, step_accuracies_in

DOCS = Path(__file__).parent

# Results of jobs: docs/measured/NAME.csv has a row for each job of experiment=NAME. Its keys of the config come first

MEASURED = DOCS / "measured"
ACCURACY = "test/accuracy"
FIGURES = ("parameters", "seconds", "best_epoch", "val/accuracy", ACCURACY)
ORIGIN = ("commit", "processor")
WITHOUT_EFFECT = re.compile(r"(experiment|swept)$|hydra|~trainer\.callbacks\.dashboard")  # on the results of a job

Row = Mapping[str, str]


def read(name: str) -> list[Row]:
    if rows := read_csv(file := MEASURED / f"{name}.csv"):
        return rows
    raise UserError(f"{file}: is missing; add a sweep of experiment={name} by python -m docs.figures tables SWEEP.")


def add(name: str, jobs: Sequence[Job]) -> None:
    """Writes the rows of finished jobs; a job replaces an earlier one with the same values.

    A sweep may be a part of the experiment: keys of which it has one value are columns like those that it sweeps.
    """
    earlier = read_csv(file := MEASURED / f"{name}.csv")
    keys = keys_of(earlier[0]) if earlier else list(jobs[0].swept)
    rows = [*earlier, *(row_of(job, keys) for job in jobs if job.results())]
    latest = {tuple(row[key] for key in keys): row for row in rows}
    steps = step_accuracies_in("test", {column for row in rows for column in row})
    write_atomically(file, csv_text([*keys, *FIGURES, *steps, *ORIGIN], latest.values()).encode())


def keys_of(row: Row) -> list[str]:
    return list(row)[: list(row).index(FIGURES[0])]


def row_of(job: Job, keys: Sequence[str]) -> Row:
    """Raises UserError if the job has other keys: it is not comparable."""
    values = {key: value for key, value in assigned(job.overrides).items() if not WITHOUT_EFFECT.match(key)}
    if values.keys() != set(keys):
        raise UserError(f"{job.folder}: sets {', '.join(values)}, but the experiment's keys are {', '.join(keys)}.")
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
# A table of means has a picture, measured/NAME.png, with a panel for each column

TABLE = re.compile(r"(<!-- (means|differences|seeds)((?: \w+=\S*)+) -->\n).*?(<!-- end -->)", re.DOTALL)
STEPS = "steps"


def tables(sweeps: Sequence[Sweep]) -> None:
    """Writes the tables of docs/*.md and their pictures, after it has added the finished jobs of these sweeps."""
    for sweep in sweeps:
        if not (name := assigned(sweep.overrides).get("experiment")):
            raise UserError(f"sweep: {sweep.folder} is not one of experiment=NAME; give another.")
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


def means(name: str, rows: str, columns: str) -> str:
    jobs = read(name)
    table = column_means(jobs, rows, columns)
    lines = []
    for line in dict.fromkeys(label(rows, job) for job in jobs):
        parameters = numbers(int(job["parameters"]) for job in jobs if label(rows, job) == line)
        lines.append([line, parameters, *(column.get(line, "") for column in table.values())])
    found = [mean for column in table.values() for mean in column.values()]
    single = "" if all(mean.interval for mean in found) else ", or single values of fewer than three"
    return markdown(
        ["", "parameters", *table],
        lines,
        f"Test accuracy in %: mean of {numbers(len(mean.values) for mean in found)} seeds and its 95 % confidence "
        f"interval{single}. {measured_at(jobs)}; each job is a row of {link(name)}.",
    )


def differences(name: str, key: str, base: str, rows: str, columns: str) -> str:
    """Returns how far each other value of the key is from the base, over pairs of jobs whose other keys are equal."""

    def others(job: Row) -> tuple[str, ...]:
        return tuple(job[other] for other in keys_of(job) if other != key)

    jobs = read(name)
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
    """Returns the accuracy of each seed of experiments whose jobs differ in nothing else, and the time of a run."""
    measured = {name: sorted(read(name), key=lambda job: int(job["seed"])) for name in names.split(",")}
    lines = []
    for name, jobs in measured.items():
        if keys_of(jobs[0]) != ["seed"] or len(jobs) < 3:
            raise UserError(f"experiment={name}: a table of seeds needs three or more jobs that differ in `seed` only.")
        mean = Mean(tuple(float(job[ACCURACY]) for job in jobs))
        deviation = percent(statistics.stdev(mean.values))
        time_of_run = duration(statistics.median(float(job["seconds"]) for job in jobs))
        lines.append([f"`experiment={name}`", ", ".join(map(percent, mean.values)), mean, deviation, time_of_run])
    return markdown(
        ["", "each seed", "mean", "standard deviation", "time of a run"],
        lines,
        f"Test accuracy in % with each of {numbers(map(len, measured.values()))} seeds, their mean with its 95 % "
        "confidence interval, and their standard deviation; the median time of a run. "
        f"{measured_at([job for jobs in measured.values() for job in jobs])}; each job is a row, with its commit, of "
        f"{', '.join(map(link, measured))}.",
    )


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
    """Returns e.g. "Measured on AMD EPYC, at commits 59a1cbf and 2834b0b"."""
    commits, processors = (list(dict.fromkeys(row[column] for row in rows)) for column in ORIGIN)
    listed = " and ".join(filter(None, (", ".join(commits[:-1]), commits[-1])))
    return f"Measured on {' and '.join(processors)}, at commit{'s' if len(commits) > 1 else ''} {listed}"


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
def draw_means(name: str, rows: str, columns: str) -> bytes:
    """Draws a dot for each job, a bar for the mean and a line for its interval, with a panel for each column."""
    table = column_means(read(name), rows, columns)
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
        axes.set(title=title, xlabel="test error, %", xscale="log")
        mark_errors(axes.xaxis)
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_ylim(len(lines) - 0.5, -0.5)  # the first line on top
    return as_png(figure, SCALE)


def mark_errors(axis: Axis) -> None:
    """Marks 1, 2, 5, 10, 20, ... on a logarithmic axis."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")


# RAM reads glimpses of 8 x 8 of 28 x 28 pixels at places that it chooses: Mnih et al. 2014, arXiv 1406.6247, table 1
RAM_ERRORS = {2: 3.79, 3: 1.51, 4: 1.54, 6: 1.12, 7: 1.07}  # by the number of glimpses


@style
def draw_steps(jobs: Sequence[Row]) -> bytes:
    """Draws the test error after each piece, with a panel for each grid and a colour for each ordering."""
    grids = list(dict.fromkeys(job["data.grid"] for job in jobs))
    colours = dict(zip(dict.fromkeys(job["data.orderings"] for job in jobs), GROUP_COLOURS, strict=False))
    figure = new_figure(2 * WIDTH, 3.4)
    panels = figure.subplots(1, len(grids), sharex=True, sharey=True, squeeze=False)[0]
    for axes, grid in zip(panels, grids, strict=True):
        for (ordering, colour), (joined, dashes) in itertools.product(colours.items(), (("True", "-"), ("False", ":"))):
            wanted = (grid, ordering, joined)
            found = [j for j in jobs if (j["data.grid"], j["data.orderings"], j["model.join_pieces"]) == wanted]
            if found:
                steps = [name for name in step_accuracies_in("test", found[0]) if found[0][name]]
                errors = [statistics.mean(error_percent(float(job[name])) for job in found) for name in steps]
                shares = [step / len(steps) for step in range(1, len(steps) + 1)]
                name = short("data.orderings", ordering) if joined == "True" else None
                axes.plot(shares, errors, dashes, color=colour, label=name)
        shares = [glimpses * 8**2 / 28**2 for glimpses in RAM_ERRORS]
        axes.plot(shares, RAM_ERRORS.values(), "x", color=GREY, label="RAM")
        axes.set(title=short("data.grid", grid), xlabel="share of the pieces that were read", yscale="log")
        mark_errors(axes.yaxis)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test error, %")
    panels[-1].legend()
    return as_png(figure, SCALE)


# Pictures of runs


@style
def draw_epochs(sweep: Sweep) -> bytes:
    """Draws the error of each seed after each epoch, and the epoch that it keeps."""
    figure = new_figure(2 * WIDTH, 3.2)
    axes = figure.subplots()
    for job in sweep.jobs:
        results = job.results() or {}
        if "val/accuracy" not in results:
            raise UserError(f"{job.folder}: has not finished, or has no validation images; give another sweep.")
        rows = read_rows(job.folder / METRICS)
        numbers_of_epochs, kept = [int(row["epoch"]) for row in rows], results["best_epoch"]
        train, val = ([error_percent(float(row[f"{split}/accuracy"])) for row in rows] for split in ("train", "val"))
        (on_train,) = axes.plot(numbers_of_epochs, train, color=GREY, linewidth=0.8)
        (on_validation,) = axes.plot(numbers_of_epochs, val, color=CORRECT, linewidth=0.8)
        (dot,) = axes.plot(kept, val[kept - 1], "o", color=CORRECT, markersize=4)
    format_error_axes(axes, "epoch", "error")
    axes.legend([on_train, on_validation, dot], ["on augmented training images", "on validation images", "kept epoch"])
    return as_png(figure, SCALE)


def mistakes(runs: Sequence[Path]) -> bytes:
    """Prints how many test images the mean of the probabilities of runs misclassifies, and draws these images."""
    probabilities, tested = [], []
    for run in runs:
        classifier, data = run_test(run, "auto")
        labels = classifier.test_labels
        probabilities.append(classifier.test_logits[:, -1].float().softmax(1))
        tested.append((data.sha256(), labels.tolist()))
        if tested[-1] != tested[0]:
            raise UserError(f"{run}: was tested on other samples than {runs[0]}; give runs with the same data.")
    of_each = torch.stack(probabilities)
    logits = of_each.mean(0).log()
    wrong = most_confident_mistakes(logits, labels)
    print(f"test accuracy  {percent(1 - len(wrong) / len(labels))}  ({len(wrong)} of {len(labels):,} misclassified)")
    if len(runs) > 1:
        by_each = of_each.argmax(2) != labels
        all_of_them, one = int(by_each.all(0).sum()), int(by_each.any(0).sum())
        print(f"misclassified by all {len(runs)} networks: {all_of_them}, by at least one: {one}")
    num_rows = max(1, -(-len(wrong) // columns_for(*data.test_pictures(torch.arange(1)).shape[2:])))
    figure = draw_mistakes(data.test_pictures, wrong, labels, logits, data.spec.class_names, rows=num_rows)
    return as_png(figure, SCALE)


# Pictures of pages in Chromium

PAGE = DOCS / "draw.html"
COLOURS = 128  # of a picture of a page


def with_current_templates(page: str) -> str:
    """Returns a page to draw on with the network that it has; export.py writes one for another network."""

    def found(pattern: str) -> str:
        (text,) = re.findall(pattern, page)
        return text

    return render(
        "drawing/page.html",
        network=json.loads(found(r'id="network">(.*)</script>')),
        weights=found(r'id="weights">(.*)</script>'),
        kind=found(r"<p>(\w+), [\d,]+ parameters"),
        num_parameters=int(found(r"([\d,]+) parameters").replace(",", "")),
        results={"test/accuracy": float(found(r"classifies ([\d.]+)\u00a0%")) / 100, "test/images": 10_000},
        unfinished=None,
        rounding=float(found(r"by at most ([\d.]+)")) - 5e-5,  # the template adds it
        subject="digit",
        num_compared=NUM_COMPARED,
    )


def draw() -> None:
    """Writes draw.html with today's templates, and draw.png: that page with a 5 that was drawn on it."""
    from tests import browser  # needs selenium

    PAGE.write_text(with_current_templates(PAGE.read_text()))
    with browser.chromium() as page:
        page.get(PAGE.as_uri())
        browser.resize_window(page, 900, 1000)
        browser.draw(page, browser.strokes_of(5))
        browser.resize_window(page, 900, page.execute_script("return document.documentElement.offsetHeight"))
        time.sleep(1)
        picture = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
    picture.quantize(COLOURS).save(PAGE.with_suffix(".png"), optimize=True)


def tensorboard(runs: Path, names: Sequence[str]) -> None:
    """Writes what tabs of TensorBoard show of a folder of runs; without names, all tabs."""
    from tests import browser

    if unknown := set(names) - browser.TABS.keys():
        raise UserError(f"TAB: {unknown.pop()} is not one of {', '.join(browser.TABS)}; write one.")
    if not runs.is_dir():
        raise UserError(f"RUNS: {runs} is not a folder; give one of runs.")
    with browser.tensorboard(runs) as url, browser.chromium() as page:
        for name in names or browser.TABS:
            browser.visit(page, url, browser.TABS[name])
            picture = browser.screenshot(page).quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
            picture.save(DOCS / f"tensorboard_{name}.png", optimize=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tables").add_argument("sweeps", nargs="*", metavar="SWEEP")
    commands.add_parser("epochs").add_argument("sweep", metavar="SWEEP")
    of_mistakes = commands.add_parser("mistakes")
    of_mistakes.add_argument("runs", nargs="+", metavar="RUN")
    of_mistakes.add_argument("--out", type=Path, default=DOCS / "mistakes.png")
    commands.add_parser("orderings")
    commands.add_parser("draw")
    of_tensorboard = commands.add_parser("tensorboard")
    of_tensorboard.add_argument("runs", type=Path, metavar="RUNS")
    of_tensorboard.add_argument("tabs", nargs="*", metavar="TAB")
    return parser


def main(given: argparse.Namespace) -> None:
    if given.command == "tables":
        tables(list(map(find_sweep, given.sweeps)))
    elif given.command == "epochs":
        write_atomically(DOCS / "epochs.png", draw_epochs(find_sweep(given.sweep)))
    elif given.command == "mistakes":
        write_atomically(given.out, mistakes([find_run(run, BEST) for run in given.runs]))
    elif given.command == "orderings":
        digit = torch.from_numpy(load_images("mnist", None).test_images[0])
        write_atomically(DOCS / "orderings.png", as_png(draw_orderings(digit), scale=3))
    elif given.command == "draw":
        draw()
    else:
        tensorboard(given.runs, given.tabs)


if __name__ == "__main__":
    options = parser().parse_args()
    with handle_errors():
        main(options)

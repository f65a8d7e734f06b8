"""Writes sweep.csv and sweep.html, which rank the jobs of a sweep by their mean over seeds. Imports no torch."""

import contextlib
import csv
import io
import shlex
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quadrant_lstm.console import say
from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.pages import duration, render
from quadrant_lstm.run_folder import write_atomically
from quadrant_lstm.sweep.groups import Group, Mean, ranked_groups
from quadrant_lstm.sweep.jobs import Job, is_search, num_jobs, read_jobs, readable, task_overrides
from quadrant_lstm.sweep.table import PENDING

COLUMNS = ("val/accuracy", "test/accuracy", *step_accuracy_names("test"), "test/loss", "best_epoch", "epochs", "pruned",
           "seconds", "parameters", "samples_per_second")  # fmt: skip


@contextlib.contextmanager
def report_at_end(sweep: Path) -> Iterator[None]:
    """Writes the report when the sweep ends, for whatever reason. Raises UserError with the jobs that failed."""
    try:
        yield
    finally:
        jobs = write_sweep_report(sweep)
        say(sweep_summary(sweep, jobs))
    failed = [job for job in jobs if job.results() is None]
    if not failed:
        return
    errors = [(job, (job.error() or "did not finish").rstrip(".")) for job in failed]
    listed = "; ".join(f"{job.number} ({job}): {error}".replace(" ():", ":") for job, error in errors)
    if not is_search(sweep):
        raise UserError(
            f"sweep: {len(failed)} of {len(jobs)} jobs failed: {listed}. The others have finished; rerun these with: "
            f"python train.py sweep={sweep}"
        )
    if len(failed) == len(jobs):
        raise UserError(f"sweep: all {len(jobs)} trials failed: {listed}. Start a new search with other ranges.")
    say(f"failed         {listed}")  # in a search, some trials may fail


def write_sweep_report(sweep: Path) -> list[Job]:
    jobs = read_jobs(sweep)
    groups = ranked_groups(jobs)
    write_atomically(sweep / "sweep.csv", csv_table(groups).encode())
    write_atomically(sweep / "sweep.html", html_page(sweep, jobs, groups).encode())
    return jobs


def epoch_range(results: Sequence[dict[str, Any]]) -> str:
    counts = sorted({one["epochs"] for one in results})
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return text + (", pruned" if any(one.get("pruned") for one in results) else "")


def sweep_summary(sweep: Path, jobs: Sequence[Job]) -> str:
    """Returns the lines that the command prints when the sweep ends."""
    finished, total = sum(job.results() is not None for job in jobs), num_jobs(sweep, jobs)
    best = ranked_groups(jobs)[0] if jobs else None
    lines = []
    if best and (val := best.mean("val/accuracy")):
        lines.append(f"best           {best}  val/accuracy {val}  test/accuracy {best.mean('test/accuracy')}")
    lines.append(f"sweep folder   {sweep}  ({finished} of {total} jobs finished)")
    lines.append(f"report         {sweep / 'sweep.html'}")
    if is_resumable(sweep, jobs):
        lines.append(f"resume with    python train.py sweep={sweep}")
    return "\n".join(lines)


def is_resumable(sweep: Path, jobs: Sequence[Job]) -> bool:
    """Returns whether sweep=PATH would run a job. It runs failed jobs again, except the failed trials of a search."""
    unfinished = [job for job in jobs if job.results() is None]
    failed_trials = [job for job in unfinished if job.error()] if is_search(sweep) else []
    return len(jobs) < num_jobs(sweep, jobs) or len(failed_trials) < len(unfinished)


def csv_table(groups: Sequence[Group]) -> str:
    """Returns one row per job; the jobs of the best group come first."""
    text = io.StringIO(newline="")
    keys = list(groups[0].jobs[0].swept) if groups else []
    over_seeds = [f"{name} {what}" for name in COLUMNS[:2] for what in ("mean", "95 % low", "95 % high")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "job", *keys, *COLUMNS, *over_seeds, "error"])
    for rank, group in enumerate(groups, 1):
        group_values = [*mean_and_interval(group.mean("val/accuracy")), *mean_and_interval(group.mean("test/accuracy"))]
        for job in group.jobs:
            results: dict[str, Any] = group.results.get(job.number, {})
            values = (*job.swept.values(), *(results.get(name, "") for name in COLUMNS), *group_values)
            writer.writerow([rank, job.number, *values, "" if results else job.error() or ""])
    return text.getvalue()


def mean_and_interval(mean: Mean | None) -> list[str]:
    """Returns three cells, which are empty if there is no mean or no interval."""
    values = [mean.mean, *(mean.interval or ())] if mean else []
    return [f"{value:.6f}" for value in values] + [""] * (3 - len(values))


def html_page(sweep: Path, jobs: Sequence[Job], groups: Sequence[Group]) -> str:
    from quadrant_lstm.sweep.plots import as_svg, draw_curves, draw_effects, draw_search

    keys = list(groups[0].swept) if groups else []
    plots = {}
    if any(group.curve() for group in groups):
        plots["Learning curves"] = as_svg(draw_curves(groups))
    if finished := sum(job.results() is not None for job in jobs):
        plots["Effect of each value"] = as_svg(draw_effects(jobs))
        if is_search(sweep):
            plots["Progress of the search"] = as_svg(draw_search(jobs))
    return render(
        "sweep.html",
        sweep=sweep,
        command=f"python train.py -m {shlex.join(task_overrides(sweep))}",
        finished=finished,
        total=num_jobs(sweep, jobs),
        header=("rank", *keys, "runs", "epochs", "validation accuracy", "test accuracy", "parameters", "training time"),
        rows=[html_row(rank, group) for rank, group in enumerate(groups, 1) if group.results],
        missing=[(job, job_state(job)) for job in jobs if job.results() is None],
        resumable=is_resumable(sweep, jobs),
        plots=plots,
    )


def html_row(rank: int, group: Group) -> list[Any]:
    results = list(group.results.values())
    accuracies = (group.mean("val/accuracy"), group.mean("test/accuracy"))
    time = duration(statistics.mean(one["seconds"] for one in results))
    values = map(readable, group.swept.values())
    return [rank, *values, len(results), epoch_range(results), *accuracies, f"{results[0]['parameters']:,}", time]


def job_state(job: Job) -> str:
    last = job.last_epoch()
    return job.error() or (f"interrupted after epoch {last['epoch']}" if last else PENDING)

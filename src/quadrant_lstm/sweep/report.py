"""A sweep's jobs -> sweep.csv and sweep.html: what was swept, how it came out over the seeds. Imports no torch."""

import contextlib
import csv
import io
import shlex
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from quadrant_lstm.console import say
from quadrant_lstm.data.frames import after_steps
from quadrant_lstm.errors import UserError
from quadrant_lstm.pages import duration, render
from quadrant_lstm.run_folder import write_whole
from quadrant_lstm.sweep.groups import Group, grouped
from quadrant_lstm.sweep.jobs import Job, is_search, read_jobs, readable, swept, total

RESULTS = ("val/accuracy", "test/accuracy", *after_steps("test"), "test/loss", "best_epoch", "epochs", "pruned",
           "seconds", "parameters", "samples_per_second")  # fmt: skip


@contextlib.contextmanager
def reported(sweep: Path) -> Iterator[None]:
    """Whatever ends the sweep, the report is written; jobs that failed are named."""
    try:
        yield
    finally:
        jobs = write_report(sweep)
        say(last_screen(sweep, jobs))
    missing = [job for job in jobs if job.results() is None]
    if not missing:
        return
    said = [(job, (job.error() or "did not end").rstrip(".")) for job in missing]
    named = "; ".join(f"{job.number} ({job}): {why}".replace(" ():", ":") for job, why in said)
    if not is_search(sweep):
        raise UserError(
            f"sweep: {len(missing)} of {len(jobs)} jobs failed: {named}. The others are done; these once more: "
            f"python train.py sweep={sweep}"
        )
    if len(missing) == len(jobs):
        raise UserError(f"sweep: all {len(jobs)} trials failed: {named}. Start a new one, with other ranges.")
    say(f"failed         {named}")  # as some of a search may


def write_report(sweep: Path) -> list[Job]:
    jobs = read_jobs(sweep)
    groups = grouped(jobs)
    write_whole(sweep / "sweep.csv", table(groups).encode())
    write_whole(sweep / "sweep.html", page(sweep, jobs, groups).encode())
    return jobs


def epochs(results: Sequence[dict[str, Any]]) -> str:
    counts = sorted({one["epochs"] for one in results})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return shown + (", pruned" if any(one.get("pruned") for one in results) else "")


def last_screen(sweep: Path, jobs: Sequence[Job]) -> str:
    done, wanted = sum(job.results() is not None for job in jobs), total(sweep, jobs)
    best = grouped(jobs)[0] if jobs else None
    lines = []
    if best and (val := best.over_runs("val/accuracy")):
        lines.append(f"best           {best}  val/accuracy {val}  test/accuracy {best.over_runs('test/accuracy')}")
    lines.append(f"sweep folder   {sweep}  ({done} of {wanted} jobs done)")
    lines.append(f"report         {sweep / 'sweep.html'}")
    if goes_on(sweep, jobs):
        lines.append(f"go on with     python train.py sweep={sweep}")
    return "\n".join(lines)


def goes_on(sweep: Path, jobs: Sequence[Job]) -> bool:
    """Whether sweep= would find something to do: it gives failed jobs another try, but not a search's."""
    missing = [job for job in jobs if job.results() is None]
    ended = [job for job in missing if job.error()] if is_search(sweep) else []
    return len(jobs) < total(sweep, jobs) or len(ended) < len(missing)


def table(groups: Sequence[Group]) -> str:
    """A row a job, the best group first."""
    text = io.StringIO(newline="")
    keys = list(groups[0].jobs[0].swept) if groups else []
    over_seeds = [f"{name} {what}" for name in RESULTS[:2] for what in ("mean", "95 % low", "95 % high")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "job", *keys, *RESULTS, *over_seeds, "error"])
    for rank, group in enumerate(groups, 1):
        means = [group.over_runs(name) for name in RESULTS[:2]]
        over = [
            shown(value)
            for mean in means
            for value in ((mean.mean, *(mean.interval or (None, None))) if mean else (None, None, None))
        ]
        for job in group.jobs:
            results: dict[str, Any] = group.results.get(job.number, {})
            error = "" if results else job.error() or ""
            writer.writerow(
                [rank, job.number, *job.swept.values(), *(results.get(k, "") for k in RESULTS), *over, error]
            )
    return text.getvalue()


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def page(sweep: Path, jobs: Sequence[Job], groups: Sequence[Group]) -> str:
    from quadrant_lstm.sweep.plots import as_svg, draw_curves, draw_effects, draw_search

    keys = list(groups[0].swept) if groups else []
    plots = {}
    if any(group.curve() for group in groups):
        plots["Curves"] = as_svg(draw_curves(groups))
    if done := sum(job.results() is not None for job in jobs):
        plots["What each value does"] = as_svg(draw_effects(jobs))
        if is_search(sweep):
            plots["The search"] = as_svg(draw_search(jobs))
    return render(
        "sweep.html",
        sweep=sweep,
        command=f"python train.py -m {shlex.join(swept(sweep))}",
        done=done,
        wanted=total(sweep, jobs),
        header=("rank", *keys, "runs", "epochs", "validation accuracy", "test accuracy", "parameters", "training time"),
        rows=[row(rank, group) for rank, group in enumerate(groups, 1) if group.results],
        missing=[(job, state(job)) for job in jobs if job.results() is None],
        resumable=goes_on(sweep, jobs),
        plots=plots,
    )


def row(rank: int, group: Group) -> list[Any]:
    results = list(group.results.values())
    accuracies = (group.over_runs("val/accuracy"), group.over_runs("test/accuracy"))
    time = duration(statistics.mean(one["seconds"] for one in results))
    values = map(readable, group.swept.values())
    return [rank, *values, len(results), epochs(results), *accuracies, f"{results[0]['parameters']:,}", time]


def state(job: Job) -> str:
    last = job.last_epoch()
    return job.error() or (f"ended after epoch {last['epoch']}" if last else "not begun")

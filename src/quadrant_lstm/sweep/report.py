"""Writes sweep.csv and sweep.html, which rank the jobs by their mean over seeds and folds. Imports no torch."""

import contextlib
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quadrant_lstm import files, run_folder, text
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import Group, Job, Sweep, compared_metric, ranked_groups, readable

ACCURACIES = ("val/accuracy", "test/accuracy")
CURVES = """The mean over the seeds and folds that were trained for so many epochs; the best groups are in colour, the
others in grey."""
EFFECTS = """A grey dot is a job. A blue dot is the mean of the jobs with that value; its line is a 95 % confidence
interval, if there are three jobs, or three folds, or more."""
OVER_SEEDS = {name: [f"{name} {what}" for what in ("mean", "95 % low", "95 % high")] for name in ACCURACIES}


@contextlib.contextmanager
def report_at_end(folder: Path) -> Iterator[None]:
    """Writes the report when the sweep ends, for whatever reason. Raises UserError with the jobs that failed."""
    try:
        yield
    finally:
        sweep = Sweep(folder)
        groups = ranked_groups(sweep.jobs)
        try:
            files.write_atomically(folder / "sweep.csv", csv_table(groups).encode())
            changed = changed_sample(sweep.jobs)
            files.write_atomically(folder / "sweep.html", html_page(sweep, groups, changed).encode())
        except files.WriteError as error:
            raise error.with_remedy(f"sweep={folder} resumes") from error
        text.say(sweep_summary(sweep, groups, changed))
    failed, total = sweep.unfinished, len(sweep.jobs)
    if not failed:
        return
    errors = [(job, (job.error() or "did not finish").rstrip(".")) for job in failed]
    listed = "; ".join(f"{job.number} ({job}): {error}".replace(" ():", ":") for job, error in errors)
    if sweep.is_search and len(failed) < total:
        return text.say(f"failed         {listed}")  # in a search, some trials may fail
    remedy = "Start a new search with other ranges." if sweep.is_search else f"Rerun: {command_to_resume(folder)}"
    raise UserError(f"sweep: {len(failed)} of {total} jobs failed: {listed}. {remedy}")


def command_to_resume(sweep: Path) -> str:
    return f"python train.py {shlex.quote(f'sweep={sweep}')}"


def sweep_summary(sweep: Sweep, groups: Sequence[Group], changed: str | None) -> str:
    """Returns the lines that the command prints when the sweep ends."""
    lines = []
    if groups and (test := groups[0].mean("test/accuracy")):
        validated = f"validation accuracy {val}  " if (val := groups[0].mean("val/accuracy")) else ""
        lines.append(f"best           {groups[0]}  {validated}test accuracy {test}")
    if changed:
        remedy = "so that means mix different data; run the sweep again"
        lines.append(f"warning        {changed} changed between the jobs, {remedy}")
    finished = len(sweep.jobs) - len(sweep.unfinished)
    lines.append(f"sweep folder   {sweep.folder}  ({finished} of {sweep.num_jobs} jobs finished)")
    lines.append(f"report         {sweep.folder / 'sweep.html'}")
    if sweep.is_resumable:
        lines.append(f"resume with    {command_to_resume(sweep.folder)}")
    return "\n".join(lines)


def changed_sample(jobs: Sequence[Job]) -> str | None:
    """Returns the path of a clip or series that not all finished jobs on the same data have read alike, or None."""
    same: dict[Any, list[list[dict[str, str]]]] = {}
    for job in jobs:
        rows = [row for table in run_folder.TABLES.values() for row in files.read_csv(job.folder / table)]
        if rows and job.results():
            data = tuple((key, value) for key, value in job.compared.items() if re.match(r"(data|experiment)\b", key))
            same.setdefault(data, []).append(rows)
    for tables in same.values():
        contents: dict[str, str] = {}
        for row in itertools.chain(*tables):
            content = f"{row['class']} {row['sha256']}"
            if contents.setdefault(row["path"], content) != content:
                return row["path"]
        # data.test_end leaves the end of a series that is for validation out
        paths = [{row["path"].partition(" from ")[0] for row in table} for table in tables]
        if added := paths[0].union(*paths) - paths[0].intersection(*paths):
            return min(added)
    return None


def csv_table(groups: Sequence[Group]) -> str:
    """Returns one row per job; the jobs of the best group come first."""
    keys = list(groups[0].jobs[0].swept) if groups else []
    names = (name for group in groups for results in group.results.values() for name in results)
    results = dict.fromkeys((*ACCURACIES, *names))
    columns = dict.fromkeys(["rank", "job", *keys, *results, *itertools.chain(*OVER_SEEDS.values()), "error"])
    return files.csv_text([*columns], [row for rank, group in enumerate(groups, 1) for row in csv_rows(rank, group)])


def csv_rows(rank: int, group: Group) -> Iterator[Mapping[str, Any]]:
    over_seeds: dict[str, str] = {}
    for name, columns in OVER_SEEDS.items():
        if mean := group.mean(name):
            values = (mean.mean, *(mean.interval or ()))
            over_seeds |= {column: f"{value:.6f}" for column, value in zip(columns, values, strict=False)}
    for job in group.jobs:
        results = group.results.get(job.number) or {"error": job.error()}
        yield {"rank": rank, "job": job.number} | job.swept | over_seeds | results


def html_page(sweep: Sweep, groups: Sequence[Group], changed: str | None) -> str:
    from quadrant_lstm.plotting import as_svg
    from quadrant_lstm.sweep.plots import draw_curves, draw_effects, draw_search

    plots, metric = {}, compared_metric(sweep.jobs)
    if any(group.curve() for group in groups):
        plots["Learning curves"] = (CURVES, [as_svg(draw_curves(groups))])
    if any(group.mean("val/accuracy") for group in groups):
        plots["Effect of each value"] = (EFFECTS, list(map(as_svg, draw_effects(sweep.jobs))))
        if sweep.is_search:
            plots["Progress of the search"] = ("", [as_svg(draw_search(sweep.jobs, metric))])
    command = f"python train.py -m {shlex.join([*sweep.overrides, *sweep.launch_overrides])}"
    values = {"command": command, "groups": groups, "plots": plots, "readable": readable}
    values |= {"changed": changed, "ranking": metric, "resume": command_to_resume(sweep.folder)}
    return text.render("sweep.html", sweep=sweep, state=job_state, **values)


def job_state(job: Job) -> str:
    last = run_folder.last_epoch(job.folder)
    return job.error() or (f"not finished; last epoch {last['epoch']}" if last else "pending")

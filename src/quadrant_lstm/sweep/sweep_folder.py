"""Reads the folder of a sweep: the config of its command and its jobs. Imports no torch.

Everything comes from files, so this also works for a sweep that was killed and for one on a cluster.

    outputs/sweeps/<date>/<time>/
        multirun.yaml        the config of the sweep's command
        conf/                the config files that it began with, from which all jobs are composed
        0/ 1/ 2/ ...         one run folder per job (run_folder.py)
        study.db             in a search: Optuna's trials, which have the numbers of the jobs
        sweep.csv sweep.html the report, written when the sweep ends
"""

import contextlib
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from quadrant_lstm.errors import UserError, printable
from quadrant_lstm.files import expanded, read_json, read_yaml, write_atomically, write_json
from quadrant_lstm.run_folder import ERROR, METRICS, OUTPUTS, OVERRIDES, read_overrides, read_results, read_rows
from quadrant_lstm.text import assigned, percent

# Jobs: their overrides, results and errors


@dataclass(frozen=True)
class Job:
    """One run of a sweep. `swept` holds the values that differ between the sweep's jobs."""

    number: int
    folder: Path
    overrides: tuple[str, ...]
    swept: dict[str, str]

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items())

    @property
    def compared(self) -> dict[str, str]:
        """The swept values without those by which jobs only repeat each other."""
        return {key: value for key, value in self.swept.items() if key not in REPETITIONS}

    def results(self) -> dict[str, Any] | None:
        """Returns the content of results.json, or None before the job has finished."""
        return read_results(self.folder) or None

    def error(self) -> str | None:
        """Returns why the job has failed, or None. A job that is started again has no error until it fails again."""
        error = read_json(self.folder / ERROR).get("error")
        return None if error is None else str(error)

    def record_error(self, error: str) -> None:
        """Records an error that the job could not record itself, perhaps because it could not start."""
        if not (self.folder / OVERRIDES).exists():
            write_atomically(self.folder / OVERRIDES, OmegaConf.to_yaml(list(self.overrides)).encode())
        write_json(self.folder / ERROR, {"error": error})


def readable(value: str) -> str:
    """Shortens a value for display: a sampled number has 16 digits, a list of 20 orderings 180."""
    value = printable(value)
    if re.fullmatch(r"-?\d+\.\d{5,}|-?\d\.?\d*e-?\d+", value):
        return f"{float(value):.4g}"
    if re.fullmatch(r"\[\[[1-4](,[1-4]){3}\](,\[[1-4](,[1-4]){3}\])*\]", value):
        orderings = value.replace(",", "").strip("[]").split("][")
        return " ".join(orderings) if len(orderings) <= 4 else f"{len(orderings)} orderings"
    return value


def combinations(overrides: Iterable[Override]) -> list[list[str]]:
    """Returns the overrides of each job of a grid."""
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in overrides
    ]
    return list(map(list, itertools.product(*choices)))


def make_jobs(sweep: Path, overrides: Sequence[Sequence[str]], numbers: Iterable[int] | None = None) -> list[Job]:
    """Returns one job for each list of overrides, with these numbers, or 0, 1, 2, ..."""
    assignments = list(map(assigned, overrides))
    keys = list(dict.fromkeys(key for values in assignments for key in values))
    differing = [key for key in keys if len({values.get(key) for values in assignments}) > 1]
    return [
        Job(number, sweep / str(number), tuple(of_job), {key: values.get(key, "") for key in differing})
        for number, of_job, values in zip(numbers or itertools.count(), overrides, assignments, strict=False)
    ]


# The sweep


SWEEPS = OUTPUTS / "sweeps"
SWEEP_CONFIG = "multirun.yaml"
CONF = "conf"
STUDY = "study.db"


@dataclass
class Sweep:
    """The folder of a sweep."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the sweep's command. Interpolations stay: the folder may come from somebody else."""
        config = read_yaml(self.folder / SWEEP_CONFIG)
        plain: Any = OmegaConf.to_container(config) if OmegaConf.is_config(config) else None
        with contextlib.suppress(KeyError, TypeError, ValueError):
            hydra = plain["hydra"]
            sources = [(source["provider"], source["path"]) for source in hydra["runtime"]["config_sources"]]
            overrides = [hydra["overrides"][name] for name in ("task", "hydra")]
            read = [dict(hydra["sweeper"]).get("n_trials", 0), hydra.get("job") or {}, *overrides, sources]
            if list(map(type, read)) == [int, dict, list, list, list]:
                return plain
        raise UserError(f"{self.folder / SWEEP_CONFIG}: is not the config of a sweep; restore it.")

    @property
    def hydra(self) -> dict[str, Any]:
        """The `hydra` part of that config."""
        return self.config["hydra"]

    @property
    def is_search(self) -> bool:
        return "n_trials" in self.hydra["sweeper"]

    @property
    def overrides(self) -> list[str]:
        """The overrides of the sweep's command, without those of Hydra's own keys."""
        return list(map(str, self.hydra["overrides"]["task"]))

    @property
    def launch_overrides(self) -> list[str]:
        """The overrides that configure the sweep's sweeper and launcher, the last one for each key."""
        pattern = r"\+*hydra[/.](sweeper|launcher)[.=]"
        chosen = [override for override in map(str, self.hydra["overrides"]["hydra"]) if re.match(pattern, override)]
        return list({override.partition("=")[0]: override for override in chosen}.values())

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs of a grid, including those that have not started; of a search, the jobs that have started."""
        if self.is_search:
            names = (file.parents[1].name for file in self.folder.glob(f"*/{OVERRIDES}"))
            started = sorted(int(name) for name in names if name.isdecimal())
            return make_jobs(self.folder, [read_overrides(self.folder / str(number)) for number in started], started)
        return make_jobs(self.folder, combinations(OverridesParser.create().parse_overrides(self.overrides)))

    @cached_property
    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.results() is None]

    @property
    def num_jobs(self) -> int:
        """The number of jobs of the completed sweep; a search starts its jobs one by one."""
        return self.hydra["sweeper"]["n_trials"] if self.is_search else len(self.jobs)

    @property
    def is_resumable(self) -> bool:
        """Whether sweep=PATH would run a job. It runs failed jobs again, except the failed trials of a search."""
        pending = [job for job in self.unfinished if not (self.is_search and job.error())]
        return len(self.jobs) < self.num_jobs or bool(pending)


def find_sweep(sweep: str) -> Sweep:
    """Returns the sweep that `sweep=PATH` or `sweep=latest` names. Raises UserError if there is none."""
    if sweep == "latest":
        configs = [*OUTPUTS.glob(f"**/{SWEEP_CONFIG}"), *SWEEPS.glob(f"*/*/{SWEEP_CONFIG}")]  # also behind a link
        if not configs:
            place = OUTPUTS.absolute()
            raise UserError(f"sweep: latest, but {place} has no sweep; start one with python train.py -m KEY=A,B.")
        return Sweep(max(configs, key=lambda file: file.stat().st_mtime_ns).parent)
    folder = expanded(sweep)
    if not (folder / SWEEP_CONFIG).is_file():
        raise UserError(f"sweep: {sweep} has no {SWEEP_CONFIG}; give a folder like {SWEEPS}/<date>/<time>.")
    return Sweep(folder)


# Jobs that repeat each other, ranked by their results


FOLDS = ("data.test_fold", "data.fold")  # an interval is that of the first which is swept
REPETITIONS = ("seed", "data.validation_seed", *FOLDS)  # keys whose values a sweep does not compare
# The 0.975 quantile of Student's t distribution for 1, 2, ... degrees of freedom
T_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A result of the runs of a group, and its mean. `interval` and `str` assume values from 0 to 1."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval by Student's t, limited to [0, 1]; None for fewer than three values."""
        if len(self.values) < 3:
            return None
        half = half_interval(self.values)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)

    def __str__(self) -> str:
        """The mean and its interval, or the single values of fewer than three."""
        if self.interval is None:
            return ", ".join(map(percent, self.values))
        low, high = self.interval
        return f"{percent(self.mean)} ({100 * low:.2f} to {100 * high:.2f})"


def half_interval(values: Sequence[float]) -> float:
    """Returns half the width of the 95 % confidence interval of the mean by Student's t."""
    freedom = len(values) - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96 + 2.5 / freedom  # within 0.1 %
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def mean_of(values: Iterable[tuple[Job, float]]) -> Mean:
    """Returns the mean of a value of each job. The jobs of a fold, with other seeds, count as one: the interval is that
    of the folds, or of the test folds, each of which may have several folds. So do jobs that repeat the same values.
    """
    by_fold: dict[Any, list[float]] = {}
    for job, value in values:
        fold = next((job.swept[key] for key in FOLDS if key in job.swept), None)
        by_fold.setdefault(fold or tuple(job.swept.items()), []).append(value)
    return Mean(tuple(map(statistics.mean, by_fold.values())))


class Group:
    """Jobs that differ only in their seed or fold."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = jobs
        self.swept = jobs[0].compared
        self.results = {job.number: results for job in jobs if (results := job.results())}

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items()) or "all jobs"

    def mean(self, name: str) -> Mean | None:
        """Returns the mean of a result over the finished jobs, or None if no job has it."""
        found = ((job, self.results.get(job.number, {})) for job in self.jobs)
        values = [(job, results[name]) for job, results in found if name in results]
        return mean_of(values) if values else None

    @property
    def epochs(self) -> str:
        counts = sorted({results["epochs"] for results in self.results.values()})
        text = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return text + (", pruned" if any(results.get("pruned") for results in self.results.values()) else "")

    def curve(self) -> dict[int, float]:
        """Returns the val/accuracy after each epoch: the mean over the jobs that have finished it."""
        points: dict[int, list[float]] = {}
        for job in self.jobs:
            for row in read_rows(job.folder / METRICS):
                if row.get("val/accuracy"):
                    points.setdefault(int(row["epoch"]), []).append(float(row["val/accuracy"]))
        return {epoch: statistics.mean(values) for epoch, values in sorted(points.items())}


def compared_metric(jobs: Sequence[Job]) -> str:
    """Returns the metric by which all finished jobs chose their epochs, or val/accuracy if they do not share one."""
    metrics = {results["monitor"] for job in jobs if (results := job.results())}
    return metrics.pop() if len(metrics) == 1 else "val/accuracy"


def ranked_groups(jobs: Sequence[Job]) -> list[Group]:
    """Returns the groups from the best to the worst mean of `compared_metric`; groups without a result come last."""
    members: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        members.setdefault(tuple(job.compared.items()), []).append(job)
    groups, metric = [Group(same) for same in members.values()], compared_metric(jobs)
    sign = 1 if metric.endswith("loss") else -1
    return sorted(groups, key=lambda group: sign * mean.mean if (mean := group.mean(metric)) else math.inf)

"""Groups the jobs of a sweep that repeat each other, and ranks the groups by accuracy. Imports no torch."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from quadrant_lstm.run_folder import METRICS, read_rows
from quadrant_lstm.sweep.jobs import Job, readable
from quadrant_lstm.text import percent

REPETITIONS = ("seed", "data.fold")  # keys whose values a sweep does not compare
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
        """The 95 % confidence interval by Student's t, limited to [0, 1]; None for fewer than three runs."""
        if len(self.values) < 3:
            return None
        half = half_interval(self.values)
        return max(0.0, self.mean - half), min(1.0, self.mean + half)

    def __str__(self) -> str:
        """The mean and its interval, or the single values of fewer than three runs."""
        if self.interval is None:
            return ", ".join(map(percent, self.values))
        low, high = self.interval
        return f"{percent(self.mean)} ({100 * low:.2f} to {100 * high:.2f})"


def half_interval(values: Sequence[float]) -> float:
    """Returns half the width of the 95 % confidence interval of the mean by Student's t."""
    freedom = len(values) - 1
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96 + 2.5 / freedom  # within 0.1 %
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


class Group:
    """Jobs that differ only in their seed or fold."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = jobs
        self.swept = without_repetitions(jobs[0])
        self.results = {job.number: results for job in jobs if (results := job.results())}

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items()) or self.repetitions

    @property
    def repetitions(self) -> str:
        """Returns "all seeds", "all folds" or "all seeds and folds"."""
        repeated = [key.rpartition(".")[2] + "s" for key in REPETITIONS if key in self.jobs[0].swept]
        return f"all {' and '.join(repeated) or 'seeds'}"

    def mean(self, name: str) -> Mean | None:
        """Returns the mean of a result over the finished jobs, or None if no job has it."""
        values = tuple(results[name] for results in self.results.values() if name in results)
        return Mean(values) if values else None

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


def ranked_groups(jobs: Sequence[Job]) -> list[Group]:
    """Returns the groups from the highest to the lowest mean val/accuracy; groups without a result come last."""
    members: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        members.setdefault(tuple(without_repetitions(job).items()), []).append(job)
    groups = [Group(same) for same in members.values()]
    return sorted(groups, key=lambda group: -mean.mean if (mean := group.mean("val/accuracy")) else math.inf)


def without_repetitions(job: Job) -> dict[str, str]:
    return {key: value for key, value in job.swept.items() if key not in REPETITIONS}

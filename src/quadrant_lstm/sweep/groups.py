"""A sweep's jobs -> groups that differ in the seed only, with means and intervals, ranked by val/accuracy.

An interval is 95 % of the mean, by Student's t. Imports no torch.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from quadrant_lstm.run.folder import METRICS, read_rows
from quadrant_lstm.sweep.jobs import Job, readable

# The 0.975 quantile of Student's t, for 1, 2, ... degrees of freedom; 1.96 beyond.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """Of the mean: `half` is half of its 95 % interval, None for a single value."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2%}" + ("" if self.half is None else f" ± {100 * self.half:.2f}")


def spread(values: Sequence[float]) -> Spread:
    if len(values) < 2:
        return Spread(values[0], None)
    quantile = T[len(values) - 2] if len(values) - 2 < len(T) else 1.96
    return Spread(statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))


class Group:
    """Jobs that differ in their seed only."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = jobs
        self.swept = {key: value for key, value in jobs[0].swept.items() if key != "seed"}
        self.results = {job.number: results for job in jobs if (results := job.results())}

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items()) or "all"

    def spread(self, name: str) -> Spread | None:
        values = [results[name] for results in self.results.values()]
        return spread(values) if values else None

    def curve(self) -> dict[int, float]:
        """Epoch -> mean val/accuracy of the jobs that have done it."""
        points: dict[int, list[float]] = {}
        for job in self.jobs:
            for row in read_rows(job.folder / METRICS):
                if row["val/accuracy"]:
                    points.setdefault(int(row["epoch"]), []).append(float(row["val/accuracy"]))
        return {epoch: statistics.mean(values) for epoch, values in sorted(points.items())}


def grouped(jobs: Sequence[Job]) -> list[Group]:
    """The best first, by the mean of val/accuracy; those without a result last."""
    found: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        found.setdefault(tuple((key, value) for key, value in job.swept.items() if key != "seed"), []).append(job)
    groups = [Group(some) for some in found.values()]
    return sorted(groups, key=lambda group: -mean.mean if (mean := group.spread("val/accuracy")) else math.inf)

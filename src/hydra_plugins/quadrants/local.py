"""A sweep's jobs -> a process each, `n_jobs` at once, each on a GPU of its own where there are several.

Chosen by conf/hydra/launcher/local.yaml. Hydra's basic launcher runs all jobs in its own process: one that is killed
ends the sweep. Joblib's shares a pool, which a killed job breaks, and gives out no GPUs; submitit's local one imports
torch for each job and starts all at once.
"""

import contextlib
import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from hydra_plugins.quadrants.launcher import JobLauncher
from quadrant_lstm.config.check import check, check_value, without_hydra
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Count
from quadrant_lstm.processes.launch import how
from quadrant_lstm.run_folder import LOG
from quadrant_lstm.sweep.jobs import Job
from quadrant_lstm.sweep.table import RUNS


class LocalLauncher(JobLauncher):
    EVERY = 0.2

    def __init__(self, n_jobs: Count):
        self.n_jobs = n_jobs
        self.processes: dict[int, Any] = {}
        self.gpus: dict[int, str] = {}  # by the numbers of the jobs that have them
        self.free: list[str] | None = None

    def setup(self, **options: Any) -> None:
        check_value("hydra.launcher.n_jobs", self.n_jobs, Count)
        if not hasattr(os, "fork"):
            raise UserError(
                "hydra/launcher: local forks a process per job, which needs Linux or macOS; add hydra/launcher=basic "
                "to run the jobs one after another in this process."
            )
        super().setup(**options)

    def at_once(self, jobs: int | None) -> int:
        return self.n_jobs

    def begin(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None:
        import torch

        from quadrant_lstm.processes.forked import start
        from quadrant_lstm.run import train  # noqa: F401  once for all jobs

        if self.free is None:
            self.free = devices() if self.n_jobs > 1 else []
        threads = max(1, torch.get_num_threads() // self.n_jobs)
        for job, config in jobs:
            with contextlib.suppress(UserError):  # the job itself says so
                check(without_hydra(config))  # reads the images
            environment = {}
            if self.free:
                environment["CUDA_VISIBLE_DEVICES"] = self.gpus[job.number] = self.free.pop(0)
            work = functools.partial(self.work, config)
            self.processes[job.number] = start(work, job.folder / LOG, environment, threads)

    def states(self) -> Mapping[int, str]:
        return {number: RUNS for number, process in self.processes.items() if process.is_alive()}

    def error(self, job: Job) -> str | None:
        if job.number in self.gpus and self.free is not None:
            self.free.append(self.gpus.pop(job.number))
        status = self.processes.pop(job.number).exitcode
        if status == 0:
            return None
        if status > 0:
            return job.error() or f"ended with status {status}"
        error = f"{how(status)}{'; perhaps there was no memory left' if status == -9 else ''}"
        with (job.folder / LOG).open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 ERROR {error}\n")
        return error

    def stop(self, jobs: Sequence[Job]) -> None:
        from quadrant_lstm.processes.forked import stop

        stop(self.processes.values())


def devices() -> list[str]:
    """The GPUs, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]

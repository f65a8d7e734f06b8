"""Runs each job of a sweep in a process of this machine, `n_jobs` at a time (conf/hydra/launcher/local.yaml).

With `n_jobs` > 1, each gets GPUs of its own, or shares them if there are too few. Hydra's basic launcher runs
all jobs in its own process, where a killed job ends the sweep. Joblib's uses a process pool, which a killed job breaks,
and assigns no GPUs; submitit's local launcher imports torch for each job and starts all jobs at once.
"""

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig

from hydra_plugins.quadrants.launcher import JobLauncher
from quadrant_lstm.config.check_value import check_value
from quadrant_lstm.config.values import without_hydra
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Count
from quadrant_lstm.run_folder import LOG
from quadrant_lstm.signals import signals_deferred
from quadrant_lstm.sweep.jobs import Job
from quadrant_lstm.sweep.table import RUNNING


class LocalLauncher(JobLauncher):
    POLL_SECONDS = 0.2

    def __init__(self, n_jobs: Count):
        self.n_jobs = n_jobs
        self.processes: dict[int, Any] = {}
        self.gpus: dict[int, list[str]] = {}  # of the running jobs, by their numbers

    def setup(self, **options: Any) -> None:
        check_value("hydra.launcher.n_jobs", self.n_jobs, Count)
        if not hasattr(os, "fork"):
            raise UserError(
                "hydra/launcher: local forks a process per job, which needs Linux or macOS; add hydra/launcher=basic "
                "to run the jobs one after another in this process."
            )
        super().setup(**options)

    def num_parallel(self, num_jobs: int | None) -> int:
        return self.n_jobs

    def start(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None:
        with signals_deferred():
            from quadrant_lstm.config.check import check_without_torch  # imports torch
            from quadrant_lstm.processes.launch import num_threads, start_process
            from quadrant_lstm.run import train  # noqa: F401  imported once, before the forks

        gpus = visible_gpus() if self.n_jobs > 1 else []
        threads = max(1, num_threads() // self.n_jobs)
        for job, config in jobs:
            with contextlib.suppress(UserError):  # the job itself reports it
                check_without_torch(without_hydra(config))  # reads the images once, before the forks
            environment = {}
            if gpus:
                if isinstance(devices := config.trainer.devices, ListConfig):
                    raise UserError(
                        f"trainer.devices: {devices} names GPUs, but hydra.launcher.n_jobs={self.n_jobs} assigns them "
                        f"to jobs; write their number, {len(devices)}."
                    )
                self.gpus[job.number] = self.least_used(gpus, devices)
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[job.number])
            function = functools.partial(self.run_here, config)
            self.processes[job.number] = start_process(function, environment, threads, job.folder / LOG)

    def least_used(self, gpus: list[str], devices: Any) -> list[str]:
        """Returns as many GPUs as the job has devices, those with the fewest jobs; one for `devices=auto`."""
        used = [gpu for job in self.gpus.values() for gpu in job]
        return sorted(gpus, key=used.count)[: max(1, devices) if isinstance(devices, int) else 1]

    def states(self) -> Mapping[int, str]:
        return {number: RUNNING for number, process in self.processes.items() if process.is_alive()}

    def collect_error(self, job: Job) -> str | None:
        from quadrant_lstm.processes.launch import how_it_ended

        self.gpus.pop(job.number, None)
        status = self.processes.pop(job.number).exitcode
        if status == 0:
            return None
        if status > 0 and (error := job.error()):
            return error
        return f"{how_it_ended(status)}{'; the machine may have run out of memory' if status == -9 else ''}"

    def on_exit(self, jobs: Sequence[Job]) -> None:
        from quadrant_lstm.processes.launch import terminate

        terminate([*self.processes.values()])


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]

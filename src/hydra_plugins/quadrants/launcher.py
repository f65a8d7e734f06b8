"""A sweep's jobs -> a process each, `n_jobs` at once, each on a GPU of its own where there are several.

Chosen by conf/hydra/launcher/local.yaml. Hydra's basic launcher runs all jobs in its own process: one that is killed
ends the sweep. Joblib's shares a pool, which a killed job breaks, and gives out no GPUs; submitit's local one imports
torch for each job and starts all at once.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from quadrant_lstm.config.check import check_value
from quadrant_lstm.config.values import Count
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.folder import LOG
from quadrant_lstm.run.launch import how
from quadrant_lstm.sweep.jobs import Job, jobs
from quadrant_lstm.sweep.table import JobTable

EVERY = 0.2  # seconds between two looks at the jobs


class LocalLauncher(Launcher):
    def __init__(self, n_jobs: Count):
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        check_value("hydra.launcher.n_jobs", self.n_jobs, Count)
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        known = jobs(Path(self.config.hydra.sweep.dir), job_overrides, initial_job_idx)
        with JobTable(known, len(known)) as table:
            for job in known:
                if job.results() is not None:
                    table.was_done(job)
            errors = self.run(iter([job for job in known if job.results() is None]), table, lambda job: None)
        return [returned(job, errors.get(job.number)) for job in known]

    def follow(self, chosen: Iterator[Job], total: int, ended: Callable[[Job], None]) -> None:
        """Jobs that are chosen one by one, each when there is room for it, by how those before have `ended`."""
        with JobTable([], total) as table:
            self.run(chosen, table, ended)

    def run(self, waiting: Iterator[Job], table: JobTable, ended: Callable[[Job], None]) -> dict[int, str | None]:
        """What each job failed by, or None."""
        import torch

        from quadrant_lstm.run import train  # noqa: F401  once for all jobs
        from quadrant_lstm.sweep.processes import start, stop

        errors: dict[int, str | None] = {}
        running: dict[Any, tuple[Job, str | None]] = {}
        free = devices()
        try:
            while True:
                while len(running) < self.n_jobs and (job := next(waiting, None)):
                    config = compose(self.hydra_context, self.config, job)
                    gpu = free.pop(0) if free and self.n_jobs > 1 else None
                    environment = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
                    threads = max(1, torch.get_num_threads() // self.n_jobs)
                    work = functools.partial(self.work, config)
                    running[start(work, job.folder / LOG, environment, threads)] = (job, gpu)
                    table.begins(job, config.trainer.max_epochs)
                if not running:
                    return errors
                for process in [process for process in running if not process.is_alive()]:
                    job, gpu = running.pop(process)
                    free += [gpu] if gpu is not None else []
                    errors[job.number] = why_failed(job, process.exitcode)
                    table.ends(job, errors[job.number])
                    ended(job)
                table.refresh()
                time.sleep(EVERY)
        finally:
            stop(running)

    def work(self, config: DictConfig) -> bool:
        """In the job's process."""
        HydraConfig.instance().set_config(config)
        done = run_job(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip
        return done.status == JobStatus.COMPLETED


def compose(context: HydraContext, config: DictConfig, job: Job) -> DictConfig:
    composed = context.config_loader.load_sweep_config(config, list(job.overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = job.number
    return composed


def devices() -> list[str]:
    """The GPUs, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def why_failed(job: Job, status: int) -> str | None:
    if status == 0:
        return None
    if status > 0:
        return job.error() or f"ended with status {status}"
    error = f"{how(status)}{'; perhaps there was no memory left' if status == -9 else ''}"
    with (job.folder / LOG).open("a") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 ERROR {error}\n")
    return error


def returned(job: Job, error: str | None = None) -> JobReturn:
    if error:
        return JobReturn(overrides=job.overrides, status=JobStatus.FAILED, _return_value=UserError(error))
    value = (job.results() or {}).get("val/accuracy")
    return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=value)

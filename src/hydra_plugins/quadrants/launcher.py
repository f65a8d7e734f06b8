"""Jobs -> each begun when there is room, followed to its end, whatever that is; what local.py and slurm.py share.

Hydra's own launchers end with the first job that fails, or hand out jobs that are done already.
"""

import itertools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.jobs import Job, jobs
from quadrant_lstm.sweep.table import RUNS, JobTable


class JobLauncher(Launcher):
    EVERY: float  # seconds between two looks at the jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        known = jobs(Path(self.config.hydra.sweep.dir), job_overrides, initial_job_idx)
        with JobTable(known, len(known)) as table:
            for job in known:
                if job.results() is not None:
                    table.was_done(job)
            missing = [job for job in known if job.results() is None]
            errors = self.run(iter(missing), table, lambda job: None, self.at_once(len(missing)))
        return [returned(job, errors.get(job.number)) for job in known]

    def follow(self, chosen: Iterator[Job], total: int, ended: Callable[[Job], None]) -> None:
        """Jobs that are chosen one by one, each when there is room for it, by how those before have `ended`."""
        with JobTable([], total) as table:
            self.run(chosen, table, ended, self.at_once(None))

    def run(
        self, waiting: Iterator[Job], table: JobTable, ended: Callable[[Job], None], at_once: int
    ) -> dict[int, str | None]:
        """What each job failed by, or None."""
        errors: dict[int, str | None] = {}
        running: dict[int, Job] = {}
        epochs: dict[int, int] = {}
        try:
            while True:
                begun = []
                for job in itertools.islice(waiting, at_once - len(running)):
                    begun.append((job, compose(self.hydra_context, self.config, job)))
                    running[job.number], epochs[job.number] = job, begun[-1][1].trainer.max_epochs
                    table.add(job)
                self.begin(begun)
                if not running:
                    return errors
                states = self.states()
                for number in [number for number in running if number not in states]:
                    job = running.pop(number)
                    errors[number] = self.error(job)
                    table.ends(job, errors[number])
                    ended(job)
                for number, job in running.items():
                    if states[number] == RUNS:
                        table.runs(job, epochs[number])
                table.refresh()
                time.sleep(self.EVERY)
        finally:
            self.stop(list(running.values()))

    def work(self, config: DictConfig) -> bool:
        """In a process of the job's."""
        done = run_job(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip
        return done.status == JobStatus.COMPLETED

    @abstractmethod
    def at_once(self, jobs: int | None) -> int:
        """How many may be begun before one has ended; of a search, None are known."""

    @abstractmethod
    def begin(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None: ...

    @abstractmethod
    def states(self) -> Mapping[int, str]:
        """WAITS or RUNS, by their numbers, of those that have not ended."""

    @abstractmethod
    def error(self, job: Job) -> str | None:
        """Of one that has ended."""

    @abstractmethod
    def stop(self, jobs: Sequence[Job]) -> None:
        """The sweep ends before these have."""


def compose(context: HydraContext, config: DictConfig, job: Job) -> DictConfig:
    composed = context.config_loader.load_sweep_config(config, list(job.overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = job.number
    return composed


def returned(job: Job, error: str | None) -> JobReturn:
    if error:
        return JobReturn(overrides=job.overrides, status=JobStatus.FAILED, _return_value=UserError(error))
    value = (job.results() or {}).get("val/accuracy")
    return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=value)

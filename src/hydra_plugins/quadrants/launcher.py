"""The launcher that local.py and slurm.py share: starts the jobs of a sweep and follows each to its end.

Hydra's own launchers end at the first job that fails, or run finished jobs again.
"""

import itertools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.cli.explain import explain
from quadrant_lstm.config.values import differing_values, without_hydra
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_yaml
from quadrant_lstm.run_folder import CONFIG, is_trained
from quadrant_lstm.sweep.jobs import Job, make_jobs
from quadrant_lstm.sweep.table import RUNNING, JobTable


class JobLauncher(Launcher):
    POLL_SECONDS: float  # between two checks of the jobs' states

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs of a grid that have not finished. Returns nothing: results and errors are in their folders."""
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        known = make_jobs(Path(self.config.hydra.sweep.dir), job_overrides, numbers)
        pending = [job for job in known if job.results() is None]
        with JobTable(known, len(known)) as table:
            self.run_jobs(iter(pending), table, lambda job: None, self.num_parallel(len(pending)))
        return []

    def run_search(self, chosen: Iterator[Job], total: int, on_end: Callable[[Job], None]) -> None:
        """Runs the jobs of a search, whose iterator chooses each by the results that `on_end` has recorded."""
        with JobTable([], total) as table:
            self.run_jobs(chosen, table, on_end, self.num_parallel(None))

    def run_jobs(
        self, pending: Iterator[Job], table: JobTable, on_end: Callable[[Job], None], num_parallel: int
    ) -> None:
        active: dict[int, Job] = {}  # the submitted or running jobs

        def end(job: Job, error: str | None) -> None:
            if job.results():  # even if the process failed later, e.g. because a tracker did not answer
                error = None
            elif not error:
                error = "ended without a result"
            if error and error != job.error():
                job.log_error(error)
            table.mark_ended(job, error)
            on_end(job)

        composed = self.compose_jobs(pending, end)
        try:
            while True:
                new = list(itertools.islice(composed, num_parallel - len(active)))
                for job, config in new:
                    active[job.number] = job
                    table.add(job, config.trainer.max_epochs)
                if new:
                    self.start(new)
                if not active:
                    return
                states = self.states()
                for number in sorted(active.keys() - states.keys()):
                    job = active.pop(number)
                    end(job, self.collect_error(job))
                for number, job in active.items():
                    if states[number] == RUNNING:
                        table.mark_running(job)
                table.refresh()
                time.sleep(self.POLL_SECONDS)
        finally:
            self.on_exit(list(active.values()))

    def compose_jobs(self, jobs: Iterator[Job], end: Callable[[Job, str], None]) -> Iterator[tuple[Job, DictConfig]]:
        """Yields each job with its config. A trial may combine values that no config has: it fails alone."""
        for job in jobs:
            try:
                config = compose(self.hydra_context, self.config, job)
            except UserError as error:
                end(job, str(error))
            else:
                yield job, config

    def run_here(self, config: DictConfig) -> bool:
        """Runs a job in the current process, which belongs to it. Returns whether it has completed."""
        result = run_job(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip
        return result.status == JobStatus.COMPLETED

    @abstractmethod
    def num_parallel(self, num_jobs: int | None) -> int:
        """Returns how many jobs may be submitted or running at a time; in a search, `num_jobs` is None."""

    @abstractmethod
    def start(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None: ...

    @abstractmethod
    def states(self) -> Mapping[int, str]:
        """Returns PENDING or RUNNING for the number of each job that has not ended."""

    @abstractmethod
    def collect_error(self, job: Job) -> str | None:
        """Called once when a job has ended. Returns the error that is reported if the job has no result, or None."""

    @abstractmethod
    def on_exit(self, jobs: Sequence[Job]) -> None:
        """Called when the sweep's command ends, with the jobs that have not ended."""


def compose(context: HydraContext, config: DictConfig, job: Job) -> DictConfig:
    """Raises UserError for values that cannot be composed, and for a job that was trained with others."""
    try:
        composed = context.config_loader.load_sweep_config(config, list(job.overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = job.number
        if is_trained(job.folder) and not job.results():
            check_trained_with(job.folder, without_hydra(composed))
            composed.hydra.output_subdir = None  # Hydra would write the config again
    return composed


def check_trained_with(folder: Path, composed: DictConfig) -> None:
    differences = differing_values(read_yaml(folder / CONFIG), composed)
    if differences:
        key, (trained, now) = next(iter(differences.items()))
        raise UserError(
            f"{key}: {folder} was trained with {trained}, but its sweep has {now}; resume it with run={folder}, or "
            "delete the folder to train the job again."
        )

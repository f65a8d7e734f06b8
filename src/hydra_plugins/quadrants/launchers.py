"""Starts the jobs of a sweep on this machine or on SLURM, and follows each to its end.

conf/hydra/launcher/local.yaml and submitit_slurm.yaml.
"""

import contextlib
import functools
import io
import math
import os
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm import files, kinds, run_folder, signals, text
from quadrant_lstm.cli.command import explain
from quadrant_lstm.config import check, values
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.sweep.sweep_folder import Job, make_jobs

# What both share


class JobLauncher(Launcher):
    POLL_SECONDS: float  # between two looks at the jobs
    in_grid: float  # so many jobs may be submitted or running at a time,
    in_search: float  # and so many trials of a search
    ON_START: str  # what is printed of a new job

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs of a grid that have not finished. Returns nothing: results and errors are in their folders."""
        pending = []
        for job in make_jobs(Path(self.config.hydra.sweep.dir), job_overrides):
            if job.results():
                say_of(job, "finished before")
            else:
                pending.append(job)
        self.run_jobs(iter(pending), self.in_grid, on_end=lambda job: None)
        return []

    def run_jobs(self, pending: Iterator[Job], num_parallel: float, on_end: Callable[[Job], None]) -> None:
        """Submits jobs, polls them, and finishes those that have ended, until none is left. In a search, the iterator
        chooses each job by the results that `on_end` has recorded.
        """
        submitted: dict[int, Job] = {}  # by their numbers, until they have ended
        try:
            while True:
                new = []
                while len(submitted) < num_parallel and (job := next(pending, None)):
                    (job.folder / run_folder.ERROR).unlink(missing_ok=True)  # of an earlier start
                    try:
                        new.append((job, compose(self.hydra_context, self.config, job)))
                        submitted[job.number] = job
                    except UserError as error:  # a trial may combine values that no config has: it fails alone
                        finish(job, str(error))
                        on_end(job)
                if new:
                    self.start(new)
                for job, _ in new:
                    last = run_folder.last_epoch(job.folder)
                    say_of(job, f"resumes after epoch {last['epoch']}" if last else self.ON_START)
                if not submitted:
                    return
                for number in sorted(submitted.keys() - self.alive()):
                    job = submitted.pop(number)
                    finish(job, self.collect_end(job))
                    on_end(job)
                time.sleep(self.POLL_SECONDS)
        finally:
            self.on_exit(list(submitted.values()))

    def run_here(self, config: DictConfig) -> bool:
        """Runs a job in the current process, which belongs to it. Returns whether it has completed."""
        result = run_job(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config,
            job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        )  # fmt: skip
        return result.status == JobStatus.COMPLETED

    @abstractmethod
    def start(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None: ...

    @abstractmethod
    def alive(self) -> Set[int]:
        """Returns the numbers of the jobs that have not ended."""

    @abstractmethod
    def collect_end(self, job: Job) -> str:
        """Called once when a job has ended. Says how, for a job that has left neither a result nor an error."""

    @abstractmethod
    def on_exit(self, jobs: Sequence[Job]) -> None:
        """Called when the sweep's command ends, with the jobs that have not ended."""


def finish(job: Job, how: str) -> None:
    """Prints a job's result or its error. A result counts even if the process failed later, e.g. because a tracker did
    not answer.
    """
    if results := job.results():
        metric = results["monitor"]
        reached = f"  {metric} {results[metric]:.4f}" if metric in results else ""
        return say_of(job, f"{'pruned' if results.get('pruned') else 'finished'}{reached}  {results['seconds']:.0f} s")
    if not job.error():
        job.record_error(how)
    say_of(job, job.error() or how)


def say_of(job: Job, message: str) -> None:
    text.say(f"job {job.number}  {job}  {message}")


def compose(context: HydraContext, config: DictConfig, job: Job) -> DictConfig:
    """Raises UserError for values that cannot be composed, and for a job that was trained with others."""
    try:
        composed = context.config_loader.load_sweep_config(config, list(job.overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    with open_dict(composed):
        composed.hydra.job.num, composed.hydra.job.id = job.number, str(job.number)
        if run_folder.is_trained(job.folder) and not job.results():
            check.check_trained_with(job.folder, values.without_hydra(composed))
            composed.hydra.output_subdir = None  # Hydra would write the config again
    return composed


# Processes of this machine, `n_jobs` at a time


class LocalLauncher(JobLauncher):
    POLL_SECONDS = 0.2
    ON_START = "starts"

    def __init__(self, n_jobs: kinds.Count):
        self.n_jobs = self.in_grid = self.in_search = n_jobs
        self.processes: dict[int, Any] = {}
        self.gpus: dict[int, list[str]] = {}  # of the running jobs, by their numbers

    def setup(self, **options: Any) -> None:
        check.check_value("hydra.launcher.n_jobs", self.n_jobs, kinds.Count)
        if not hasattr(os, "fork"):
            remedy = "add hydra/launcher=basic to run the jobs one after another in this process"
            raise UserError(f"hydra/launcher: local forks a process per job, which needs Linux or macOS; {remedy}.")
        super().setup(**options)

    def start(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None:
        with signals.importing():
            from quadrant_lstm.processes.launch import num_threads, start_process
            from quadrant_lstm.run import train  # noqa: F401  imported once, before the forks
            from quadrant_lstm.run.build import build_data, in_one_thread

        gpus = visible_gpus() if self.n_jobs > 1 else []
        threads = max(1, num_threads() // self.n_jobs)
        for job, config in jobs:
            with contextlib.suppress(Exception), in_one_thread():  # the job itself reports it
                build_data(config)  # reads the images once, before the forks
            environment = {}
            if gpus:
                self.gpus[job.number] = self.least_used(gpus, config.trainer.devices)
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[job.number])
            function = functools.partial(self.run_here, config)
            self.processes[job.number] = start_process(function, environment, threads, job.folder / run_folder.LOG)

    def least_used(self, gpus: list[str], devices: Any) -> list[str]:
        """Returns as many GPUs as the job has devices, those with the fewest jobs; one unless `devices` is a number."""
        used = [gpu for job in self.gpus.values() for gpu in job]
        return sorted(gpus, key=used.count)[: max(1, devices) if isinstance(devices, int) else 1]

    def alive(self) -> Set[int]:
        return {number for number, process in self.processes.items() if process.is_alive()}

    def collect_end(self, job: Job) -> str:
        from quadrant_lstm.processes.launch import how_it_ended

        self.gpus.pop(job.number, None)
        status = self.processes.pop(job.number).exitcode
        return f"{how_it_ended(status)}{'; the machine may have run out of memory' if status == -9 else ''}"

    def on_exit(self, jobs: Sequence[Job]) -> None:
        from quadrant_lstm.processes.launch import terminate

        terminate([*self.processes.values()])


def visible_gpus() -> list[str]:
    """Returns the names of the GPUs as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


# A SLURM array, by submitit


SUBMITTED = Path(".submitit", "jobs.json")  # in the sweep's folder: maps the number of a job to its SLURM id
# Parameters that submitit has for every cluster; it prefixes the names of the others with slurm_.
COMMON = {"name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"}
ENDED = {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


class SlurmLauncher(JobLauncher):
    POLL_SECONDS = 2.0
    ON_START = "is in the queue"

    def __init__(self, max_num_timeout: int, array_parallelism: int, **sbatch: Any):
        self.max_num_timeout, self.in_search = max_num_timeout, array_parallelism
        self.in_grid = math.inf  # SLURM itself limits how many tasks of an array run at a time
        options: Any = OmegaConf.to_object(OmegaConf.create(sbatch | {"array_parallelism": array_parallelism}))
        self.sbatch = {key if key in COMMON else f"slurm_{key}": value for key, value in options.items()}
        self.ids: dict[int, str] = {}  # in SLURM, by the numbers of the jobs
        self.queued: set[int] = set()  # the jobs that had not ended when squeue answered last

    def setup(self, **options: Any) -> None:
        super().setup(**options)
        with needs_extra("hydra/launcher=submitit_slurm", "slurm"):
            import submitit
        if submitit.SlurmExecutor.affinity() < 0:
            raise UserError("hydra/launcher: submitit_slurm finds no srun; run it on a login node of the cluster.")
        for key in ("nodes", "tasks_per_node"):
            if not isinstance(value := self.sbatch.get(key), int):
                rule = "is not a number; SLURM needs one before the job starts"
                raise UserError(f"hydra.launcher.{key}: {value!r} {rule}: set trainer.devices and trainer.num_nodes.")

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir).absolute()

    def start(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None:
        import submitit

        if changed := [key for key in ("trainer.devices", "trainer.num_nodes") if key in jobs[0][0].swept]:
            raise UserError(f"{changed[0]}: SLURM starts all jobs of a sweep alike; start a sweep for each value.")
        file = self.folder / SUBMITTED
        recorded = files.read_json(file)
        earlier = {job.number: str(recorded[str(job.number)]) for job, _ in jobs if str(job.number) in recorded}
        queued = queue() if earlier else set()
        self.ids |= {number: id for number, id in earlier.items() if id in queued}
        self.queued |= {job.number for job, _ in jobs}
        new = [(job, config) for job, config in jobs if job.number not in self.ids]
        if not new:
            return
        executor = submitit.AutoExecutor(
            self.folder / SUBMITTED.parent / "%j", cluster="slurm", slurm_max_num_timeout=self.max_num_timeout
        )
        try:
            executor.update_parameters(**self.sbatch, slurm_srun_args=["--kill-on-bad-exit=1"])
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # the exception repeats it
                handles = [executor.submit(self, config, Singleton.get_state()) for _, config in new]
        except (submitit.core.utils.FailedJobError, AssertionError) as error:  # the latter of a value of a wrong type
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"hydra.launcher: sbatch refuses the jobs ({reason}); correct the cause.") from error
        self.ids |= {job.number: handle.job_id for (job, _), handle in zip(new, handles, strict=True)}
        files.write_json(file, recorded | {str(number): id for number, id in self.ids.items()})
        text.say(f"submitted      {text.counted(len(new), 'job')}: squeue --job {handles[0].job_id.partition('_')[0]}")

    def __call__(self, config: DictConfig, state: Any) -> None:
        """Runs a job. SLURM calls this in each of the job's processes."""
        import submitit

        Singleton.set_state(state)
        setup_globals()
        if submitit.JobEnvironment().global_rank > 0:
            config.hydra.output_subdir = None  # the first process writes it
        if not self.run_here(config):
            sys.exit(1)  # the job's log has the error

    def checkpoint(self, *arguments: Any) -> Any:
        """Returns what submitit requeues when a job is preempted or reaches its time limit: the same call."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)

    def alive(self) -> Set[int]:
        with contextlib.suppress(UserError):  # squeue was busy
            ids = queue()
            self.queued = {number for number, id in self.ids.items() if id in ids}
        return self.queued

    def collect_end(self, job: Job) -> str:
        logs = self.folder / SUBMITTED.parent / self.ids[job.number]
        return f"ended in SLURM without a result; see the logs in {logs}"

    def on_exit(self, jobs: Sequence[Job]) -> None:
        arrays = sorted({self.ids[job.number].partition("_")[0] for job in jobs if job.number in self.ids})
        if arrays:
            follow = f"python train.py sweep={self.config.hydra.sweep.dir} follows them"
            text.say(f"the jobs continue in SLURM: scancel {' '.join(arrays)} cancels them, {follow}")


def queue() -> set[str]:
    """Returns the SLURM ids of this user's jobs that have not ended."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i %T"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        raise UserError(f"hydra/launcher: squeue fails ({listed.stderr.strip()}); rerun with sweep=latest.")
    return {id for id, state in map(str.split, listed.stdout.splitlines()) if state not in ENDED}

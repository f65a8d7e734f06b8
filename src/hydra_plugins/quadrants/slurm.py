"""Submits the jobs of a sweep as a SLURM array, using submitit (conf/hydra/launcher/submitit_slurm.yaml).

A job that SLURM preempts or that reaches its time limit is requeued and resumes in its own folder. A job that an
earlier command has submitted is followed and not submitted again. Hydra's own plugin submits finished jobs too, and
ends at the first job that fails.
"""

import contextlib
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.launcher import JobLauncher
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import read_json, write_json
from quadrant_lstm.sweep.jobs import Job
from quadrant_lstm.sweep.table import PENDING, RUNNING
from quadrant_lstm.text import counted, say

SUBMITTED = Path(".submitit", "jobs.json")  # in the sweep's folder: maps the number of a job to its SLURM id
# Parameters that submitit has for every cluster; it prefixes the names of the others with slurm_.
COMMON = {"name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"}
ENDED = {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


class SlurmLauncher(JobLauncher):
    POLL_SECONDS = 2.0

    def __init__(self, max_num_timeout: int, array_parallelism: int, **sbatch: Any):
        self.max_num_timeout, self.array_parallelism = max_num_timeout, array_parallelism
        given: Any = OmegaConf.to_object(OmegaConf.create(sbatch | {"array_parallelism": array_parallelism}))
        named = {key if key in COMMON else f"slurm_{key}": value for key, value in given.items()}
        self.sbatch = {key: value for key, value in named.items() if value is not None}
        self.ids: dict[int, str] = {}  # in SLURM, by the numbers of the jobs
        self.last_states: dict[int, str] = {}

    def setup(self, **options: Any) -> None:
        super().setup(**options)
        with needs_extra("hydra/launcher=submitit_slurm", "slurm"):
            import submitit
        if submitit.SlurmExecutor.affinity() < 0:
            raise UserError("hydra/launcher: submitit_slurm finds no srun; run it on a login node of the cluster.")
        for key in ("nodes", "tasks_per_node"):
            if not isinstance(self.sbatch.get(key), int):
                raise UserError(
                    f"hydra.launcher.{key}: {self.sbatch.get(key)!r} is not a number; SLURM needs one before the job "
                    f"starts: set it, or trainer.{'num_nodes' if key == 'nodes' else 'devices'}=NUMBER."
                )

    def num_parallel(self, num_jobs: int | None) -> int:
        return num_jobs or self.array_parallelism  # SLURM itself limits how many tasks of an array run at a time

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir).absolute()

    def start(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None:
        import submitit

        if changed := [key for key in ("trainer.devices", "trainer.num_nodes") if key in jobs[0][0].swept]:
            raise UserError(f"{changed[0]}: SLURM starts all jobs of a sweep alike; start a sweep for each value.")
        file = self.folder / SUBMITTED
        earlier = {int(number): id for number, id in read_json(file).items()}
        queued = queue() if any(job.number in earlier for job, _ in jobs) else {}
        self.ids |= {job.number: earlier[job.number] for job, _ in jobs if earlier.get(job.number) in queued}
        self.last_states |= {job.number: PENDING for job, _ in jobs if job.number in self.ids}
        new = [(job, config) for job, config in jobs if job.number not in self.ids]
        if not new:
            return
        executor = submitit.AutoExecutor(
            self.folder / SUBMITTED.parent / "%j", cluster="slurm", slurm_max_num_timeout=self.max_num_timeout
        )
        executor.update_parameters(**self.sbatch, slurm_srun_args=["--kill-on-bad-exit=1"])
        try:
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # the exception repeats it
                handles = [executor.submit(self, config, Singleton.get_state()) for _, config in new]
        except submitit.core.utils.FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"hydra.launcher: sbatch refuses the jobs ({reason}); correct the cause.") from error
        self.ids |= {job.number: handle.job_id for (job, _), handle in zip(new, handles, strict=True)}
        self.last_states |= {job.number: PENDING for job, _ in new}
        write_json(file, {str(number): id for number, id in (earlier | self.ids).items()})
        say(f"submitted      {counted(len(new), 'job')}: squeue --job {handles[0].job_id.partition('_')[0]}")

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

    def states(self) -> Mapping[int, str]:
        with contextlib.suppress(UserError):  # squeue was busy: keep the last known states
            states = queue()
            self.last_states = {number: states[id] for number, id in self.ids.items() if id in states}
        return self.last_states

    def collect_error(self, job: Job) -> str | None:
        logs = self.folder / SUBMITTED.parent / self.ids[job.number]
        return job.error() or f"ended in SLURM without a result; see the logs in {logs}"

    def on_exit(self, jobs: Sequence[Job]) -> None:
        arrays = sorted({self.ids[job.number].partition("_")[0] for job in jobs if job.number in self.ids})
        if arrays:
            say(
                f"the jobs continue in SLURM: scancel {' '.join(arrays)} cancels them, python train.py "
                f"sweep={self.config.hydra.sweep.dir} follows them"
            )


def queue() -> dict[str, str]:
    """Returns PENDING or RUNNING for the SLURM id of each of this user's jobs that has not ended."""
    listed = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--format=%i %T"], capture_output=True, text=True
    )
    if listed.returncode:
        raise UserError(f"hydra/launcher: squeue fails ({listed.stderr.strip()}); rerun with sweep=latest.")
    jobs = dict(line.split() for line in listed.stdout.splitlines())
    return {id: RUNNING if state == "RUNNING" else PENDING for id, state in jobs.items() if state not in ENDED}

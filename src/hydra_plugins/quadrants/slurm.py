"""A sweep's jobs -> a SLURM array, by submitit (conf/hydra/launcher/submitit_slurm.yaml).

A job that SLURM pre-empts or that runs out of its time is queued anew and goes on in its own folder. One that is in
the queue already, from a command that has ended since, is followed and not handed in twice. Hydra's own plugin hands in
finished jobs too, and ends with the first that fails.
"""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.launcher import JobLauncher, compose
from quadrant_lstm.console import say
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import write_whole
from quadrant_lstm.sweep.jobs import Job
from quadrant_lstm.sweep.table import RUNS, WAITS

SUBMITTED = Path(".submitit", "jobs.json")  # in the sweep's folder: the number of a job -> its id in SLURM
# What submitit names alike for all that it knows; of SLURM's own, the names begin with slurm_.
COMMON = {"name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb"}
ENDED = {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


class SlurmLauncher(JobLauncher):
    EVERY = 2.0

    def __init__(self, max_num_timeout: int, array_parallelism: int, **sbatch: Any):
        self.max_num_timeout, self.array_parallelism = max_num_timeout, array_parallelism
        given: Any = OmegaConf.to_object(OmegaConf.create(sbatch | {"array_parallelism": array_parallelism}))
        named = {key if key in COMMON else f"slurm_{key}": value for key, value in given.items()}
        self.sbatch = {key: value for key, value in named.items() if value is not None}
        self.ids: dict[int, str] = {}
        self.known: dict[int, str] = {}

    def setup(self, **options: Any) -> None:
        super().setup(**options)
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise UserError(
                f"hydra/launcher: submitit_slurm needs {error.name}, which is not installed; "
                'python -m pip install -e ".[slurm]"'
            ) from error
        if submitit.SlurmExecutor.affinity() < 0:
            raise UserError("hydra/launcher: submitit_slurm finds no srun; run it on a machine of the cluster.")
        for key in ("nodes", "tasks_per_node"):
            if not isinstance(self.sbatch.get(key), int):
                raise UserError(
                    f"hydra.launcher.{key}: {self.sbatch.get(key)!r} is not a number; SLURM needs one before the job "
                    f"begins: give it, or trainer.{'num_nodes' if key == 'nodes' else 'devices'}=NUMBER."
                )

    def at_once(self, jobs: int | None) -> int:
        return jobs or self.array_parallelism  # SLURM itself keeps an array to that many

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir).absolute()

    def begin(self, jobs: Sequence[tuple[Job, DictConfig]]) -> None:
        import submitit

        if not jobs:
            return
        file = self.folder / SUBMITTED
        before = {int(number): one for number, one in json.loads(file.read_text()).items()} if file.exists() else {}
        queued = queue() if before else {}
        self.ids |= {job.number: before[job.number] for job, _ in jobs if before.get(job.number) in queued}
        new = [job for job, _ in jobs if job.number not in self.ids]
        if not new:
            return
        executor = submitit.AutoExecutor(
            self.folder / SUBMITTED.parent / "%j", cluster="slurm", slurm_max_num_timeout=self.max_num_timeout
        )
        executor.update_parameters(**self.sbatch, slurm_srun_args=["--kill-on-bad-exit=1"])
        try:
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # sbatch's words are in the error too
                handles = [executor.submit(self, job, Singleton.get_state()) for job in new]
        except submitit.core.utils.FailedJobError as error:
            said = str(error).strip().splitlines()[-1]
            raise UserError(f"hydra.launcher: sbatch refuses the jobs ({said}); change what it names.") from error
        self.ids |= {job.number: handle.job_id for job, handle in zip(new, handles, strict=True)}
        self.known = dict.fromkeys(self.ids, WAITS)
        write_whole(file, json.dumps(before | self.ids).encode())
        say(f"in the queue   {len(new)} jobs: squeue --job {handles[0].job_id.partition('_')[0]}")

    def __call__(self, job: Job, state: Any) -> None:
        """In each of the job's processes."""
        import submitit

        Singleton.set_state(state)
        setup_globals()
        config = compose(self.hydra_context, self.config, job)
        if submitit.JobEnvironment().global_rank > 0:
            config.hydra.output_subdir = None  # the first writes it
        if not self.work(config):
            sys.exit(1)  # its log says why

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues anew when a job's time is over, or another's has come: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)

    def states(self) -> Mapping[int, str]:
        with contextlib.suppress(subprocess.CalledProcessError):  # it was busy: nothing is known to have ended
            states = queue()
            self.known = {number: states[one] for number, one in self.ids.items() if one in states}
        return self.known

    def error(self, job: Job) -> str | None:
        if job.results() is not None:
            return None
        one = self.ids[job.number]
        return job.error() or f"ended in SLURM without a result; {self.folder / SUBMITTED.parent / one} may tell why"

    def stop(self, jobs: Sequence[Job]) -> None:
        left = sorted({self.ids[job.number].partition("_")[0] for job in jobs if job.number in self.ids})
        if left:
            say(
                f"its jobs go on in SLURM: scancel {' '.join(left)} ends them, python train.py "
                f"sweep={self.config.hydra.sweep.dir} follows them"
            )


def queue() -> dict[str, str]:
    """The ids of this user's jobs that have not ended -> RUNS or WAITS."""
    listed = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--format=%i %T"], capture_output=True, text=True, check=True
    )
    jobs = dict(line.split() for line in listed.stdout.splitlines())
    return {one: RUNS if state == "RUNNING" else WAITS for one, state in jobs.items() if state not in ENDED}

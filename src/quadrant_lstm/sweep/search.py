"""Yields the jobs of a search: Optuna chooses each from the search space by the results so far. Imports optuna.

The state of a search is in study.db and in the jobs' folders. A search that was killed resumes the trials that it had
started, and then chooses the same trials that it would have chosen without the interruption, if it runs one at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig
from optuna.distributions import distribution_to_json as to_json
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.jobs import Job
from quadrant_lstm.sweep.search_space import Space
from quadrant_lstm.sweep.study import STUDY_NAME, copy_storage, instantiate_within, storage
from quadrant_lstm.sweep.sweep_folder import STUDY

SPACE = "space"  # an attribute of the study
QUASI_RANDOM = "optuna.samplers.QMCSampler"
GRIDS = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search:
    """The trials of the study in `folder`, or of a copy of it in memory for a dry run.

    `fixed` are the overrides that all trials share. Raises UserError if the study has another search space.
    """

    def __init__(
        self, folder: Path, space: Space, fixed: list[str], n_trials: int, sampler: DictConfig, dry_run: bool = False
    ):
        self.folder, self.space, self.fixed, self.n_trials, self.sampler = folder, space, fixed, n_trials, sampler
        options: dict[str, Any] = {"study_name": STUDY_NAME, "direction": "maximize", "load_if_exists": True}
        try:
            stored = copy_storage(folder) if dry_run else storage(folder)
            self.study = optuna.create_study(storage=stored, sampler=self.make_sampler(0), **options)
        except SQLAlchemyError as error:
            raise UserError(f"{folder / STUDY}: cannot be read ({error.__cause__ or error}); restore it.") from error
        described = {key: to_json(distribution) for key, distribution in space.items()}
        if self.study.user_attrs.get(SPACE, described) != described:
            raise UserError(
                f"sweep: {folder / STUDY} searches {', '.join(self.study.user_attrs[SPACE])} in other ranges; restore "
                "its ranges in conf/, or start a new search without sweep=."
            )
        self.study.set_user_attr(SPACE, described)

    def jobs(self) -> Iterator[Job]:
        """Yields the interrupted jobs, then new ones up to `n_trials` in all, each chosen when it is requested."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            job = self.job(trial)
            if job.results() is None:
                yield job
            else:
                self.record(job)
        while len(self.study.trials) < self.n_trials:
            self.study.sampler = self.make_sampler(len(self.study.trials))
            yield self.job(self.study.ask(self.space))

    def num_left(self) -> int:
        """Returns the number of trials that have not ended."""
        return max(0, self.n_trials - sum(trial.state.is_finished() for trial in self.study.trials))

    def make_sampler(self, trial: int) -> optuna.samplers.BaseSampler:
        """Returns a sampler for one trial, seeded with its number: a resumed search must not repeat random numbers.

        The seed of a quasi-random sampler stays the same, because it selects the sequence. Raises UserError for a
        sampler that tries all points, which ends Optuna's own loop when it has.
        """
        seed, target = self.sampler.get("seed"), self.sampler.get("_target_")
        if target in GRIDS:
            raise UserError(
                f"hydra.sweeper.sampler: {target} tries every point, as a sweep does; leave out hydra/sweeper=optuna."
            )
        of_trial = 0 if target == QUASI_RANDOM else trial
        arguments = {} if seed is None else {"seed": seed + of_trial}
        return instantiate_within("optuna.samplers.", "hydra.sweeper.sampler", self.sampler, **arguments)

    def job(self, trial: Trial | FrozenTrial) -> Job:
        swept = {key: str(value) for key, value in trial.params.items()}
        overrides = (*self.fixed, *(f"{key}={value}" for key, value in swept.items()))
        return Job(trial.number, self.folder / str(trial.number), overrides, swept)

    def record(self, job: Job) -> None:
        """Records in the study how a job has ended."""
        results = job.results()
        if results is None:
            self.study.tell(job.number, state=TrialState.FAIL)
        elif results.get("pruned"):
            self.study.tell(job.number, state=TrialState.PRUNED)
        else:
            self.study.tell(job.number, results["val/accuracy"])

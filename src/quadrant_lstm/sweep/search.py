"""Yields the jobs of a search: Optuna chooses each from the search space by the results so far. Imports optuna.

The state of a search is in study.db and in the jobs' folders. A search that was killed resumes the trials that it had
started, and then chooses the same trials that it would have chosen without the interruption, if it runs one at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import Override
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.distributions import distribution_to_json as to_json
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import SQLAlchemyError

from quadrant_lstm.config.check_classes import is_class_in, nodes_with_target
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.jobs import STUDY, Job, Sweep

Space = dict[str, BaseDistribution]
STUDY_NAME, SPACE = "sweep", "space"  # SPACE is an attribute of the study
ONE_SEQUENCE = ("optuna.samplers.QMCSampler", "optuna.samplers.GridSampler")
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

        The seed of a sampler with one sequence for all trials stays the same, because it selects the sequence.
        """
        seed = self.sampler.get("seed")
        of_trial = 0 if self.sampler.get("_target_") in ONE_SEQUENCE else trial
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


def distribution(override: Override) -> BaseDistribution:
    """Converts KEY=interval(...), range(...), choice(...) or a list to an Optuna distribution.

    The choices of a categorical distribution are the texts of the overrides' values.
    """
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if set(getattr(value, "tags", ())) - {"log"} or (log and not override.is_interval_sweep()):
        raise UserError(f"{override.input_line}: the only tag is log, of an interval; write tag(log,interval(A,B)).")
    try:
        if override.is_interval_sweep():
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log=log)
            return FloatDistribution(value.start, value.end, log=log)
        if override.is_range_sweep():
            numbers = list(value.range())
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(numbers[0], numbers[-1], step=value.step)
            return FloatDistribution(numbers[0], numbers[-1], step=value.step)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        message = f"{override.input_line}: cannot be searched ({error}); give a range from low to high."
        raise UserError(message) from error


def instantiate_within(prefix: str, key: str, node: DictConfig, **arguments: Any) -> Any:
    """Instantiates a sampler or pruner. The config may come from an untrusted folder, so its classes are limited."""
    plain = OmegaConf.to_container(node, resolve=True)
    for _, nested in nodes_with_target(plain):
        if not is_class_in(target := str(nested["_target_"]), [prefix]):
            raise UserError(f"{key}: {target} is not in {prefix[:-1]}; write {key}._target_={prefix}NAME.")
    try:
        return instantiate(plain, **arguments)
    except (InstantiationException, ValueError) as error:
        raise UserError(f"{key}: {error.__cause__ or error}; change a value of {key}.") from error


def storage(folder: Path) -> BaseStorage:
    """Returns a storage that connects for each call, so that no connection is open when a job's process is forked."""
    url = URL.create("sqlite", database=str(folder / STUDY)).render_as_string()
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": 60}})


def copy_storage(folder: Path) -> BaseStorage:
    copy = InMemoryStorage()
    if (folder / STUDY).exists():
        optuna.copy_study(from_study_name=STUDY_NAME, from_storage=storage(folder), to_storage=copy)
    return copy


def running_trial(folder: Path) -> Trial | None:
    """Returns the trial whose run has that folder, or None if the trial is no longer running."""
    config = Sweep(folder.parent).hydra.sweeper.pruner
    if "${" in str(OmegaConf.to_container(config)):
        raise UserError(f"{folder.parent}: hydra.sweeper.pruner holds an interpolation; write its value.")
    pruner = instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", config)
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage(folder.parent), pruner=pruner)
    trial = study.trials[int(folder.name)]
    return Trial(study, trial._trial_id) if trial.state == TrialState.RUNNING else None

"""Yields the jobs of a search: Optuna chooses each from the search space by the results so far. Imports optuna.

A search that was killed resumes the trials that it had started, and then chooses the same trials that it would have
chosen without the interruption, if it runs one at a time: its state is in study.db and in the jobs' folders.
"""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import Override
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import SQLAlchemyError

from quadrant_lstm import text
from quadrant_lstm.compat import OF_INSTANTIATE
from quadrant_lstm.config.trust import is_class_in
from quadrant_lstm.config.values import nodes_with_target
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.sweep_folder import REPETITIONS, STUDY, SWEEP_CONFIG, Job, Sweep

# The search space, from the overrides of the command


Space = dict[str, BaseDistribution]


def distribution(override: Override) -> BaseDistribution:
    """Converts KEY=interval(...), range(...), choice(...) or a list, whose choices are the texts of the values."""
    if (key := override.get_key_element().lstrip("+")) in ("monitor", *REPETITIONS):  # else the easiest fold would win
        raise UserError(f"{key}: {override.input_line} would differ between trials that are compared; write one value.")
    value: Any = override.value()
    tags = set(getattr(value, "tags", ()))
    if tags and not (tags == {"log"} and override.is_interval_sweep()):
        raise UserError(f"{override.input_line}: the only tag is log, of an interval; write tag(log,interval(A,B)).")
    options: dict[str, Any]
    try:
        if override.is_interval_sweep():
            low, high, options = value.start, value.end, {"log": bool(tags)}
        elif override.is_range_sweep():
            numbers = list(value.range())
            low, high, options = numbers[0], numbers[-1], {"step": value.step}
        else:
            return CategoricalDistribution(list(override.sweep_string_iterator()))
        is_whole = isinstance(low, int) and isinstance(high, int)
        return IntDistribution(low, high, **options) if is_whole else FloatDistribution(low, high, **options)
    except (ValueError, IndexError) as error:
        rule = f"cannot be searched ({error})"
        raise UserError(f"{override.input_line}: {rule}; give a range from low to high.") from error


# Trials in study.db; samplers and pruners


STUDY_NAME = "sweep"


def instantiate_within(prefix: str, key: str, node: dict[str, Any], **arguments: Any) -> Any:
    """Instantiates a sampler or pruner. The config may come from an untrusted folder, so its classes are limited."""
    for _, nested in nodes_with_target(node):
        if not is_class_in(target := str(nested["_target_"]), [prefix]):
            raise UserError(f"{key}: {target} is not in {prefix[:-1]}; write {key}._target_={prefix}NAME.")
    try:
        return instantiate(node, **arguments, **OF_INSTANTIATE)
    except (InstantiationException, TypeError, ValueError) as error:
        raise UserError(f"{key}: {error.__cause__ or error}; change a value of {key}.") from error


def storage(folder: Path) -> BaseStorage:
    """Returns a storage that connects for each call, so that no connection is open when a job's process is forked."""
    url = URL.create("sqlite", database=str(folder / STUDY)).render_as_string()
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": 60}})


def copy_storage(folder: Path) -> BaseStorage:
    copy = InMemoryStorage()
    if (folder / STUDY).exists():
        with contextlib.suppress(KeyError):  # an empty file
            optuna.copy_study(from_study_name=STUDY_NAME, from_storage=storage(folder), to_storage=copy)
    return copy


@contextlib.contextmanager
def storage_errors_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        remedy = f"close other programs that use it, make room, or restore it, and resume with sweep={folder}"
        raise UserError(f"{folder / STUDY}: cannot be used ({reason}); {remedy}.") from error


def running_trial(folder: Path) -> Trial | None:
    """Returns the trial whose run has that folder, or None if the trial is no longer running."""
    recorded = Sweep(folder.parent).hydra["sweeper"]["pruner"]
    pruner = instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", recorded)
    stored, number = storage(folder.parent), int(folder.name)
    study = optuna.load_study(study_name=STUDY_NAME, storage=stored, pruner=pruner)
    if study.trials[number].state != TrialState.RUNNING:
        return None
    study_id = stored.get_study_id_from_name(STUDY_NAME)
    return Trial(study, stored.get_trial_id_from_study_id_trial_number(study_id, number))


# The search


QUASI_RANDOM = "optuna.samplers.QMCSampler"
GRIDS = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search:
    """The trials of the study in `folder`, or of a copy of it in memory for a dry run. `fixed` are the overrides that
    all trials share, and `metric` is what they compete in. Raises UserError if the study has trials of another search
    space, or not those of the folders.
    """

    def __init__(
        self, folder: Path, space: Space, fixed: list[str], n_trials: int, sampler: dict[str, Any],
        metric: str, dry_run: bool = False,
    ):  # fmt: skip
        self.folder, self.space, self.fixed, self.n_trials, self.sampler = folder, space, fixed, n_trials, sampler
        self.metric = metric
        with storage_errors_explained(folder):
            self.study = self.open_study(dry_run)

    def open_study(self, dry_run: bool) -> optuna.Study:
        jobs = Sweep(self.folder).jobs if (self.folder / SWEEP_CONFIG).exists() else []
        stored = copy_storage(self.folder) if dry_run else storage(self.folder)
        direction = "minimize" if self.metric.endswith("loss") else "maximize"
        options: dict[str, Any] = {"study_name": STUDY_NAME, "direction": direction, "load_if_exists": True}
        study = optuna.create_study(storage=stored, sampler=self.make_sampler(0), **options)
        trials = study.trials  # read from the database each time
        file, remedy = self.folder / STUDY, "restore it, or start a new search"
        if any(trial.distributions not in ({}, self.space) for trial in trials):  # it may be somebody else's
            raise UserError(f"sweep: {file} has trials of other keys or ranges; {remedy}.")
        trained = {trial.number: self.job(trial).swept for trial in trials}
        for job in jobs:
            values = text.assigned(job.overrides)
            if trained.get(job.number) != {key: values.get(key.lstrip("+"), "") for key in self.space}:
                rule = f"does not hold the values that trial {job.number} was trained with"
                raise UserError(f"sweep: {file} {rule}; {remedy}.")
        return study

    def jobs(self) -> Generator[Job, None, None]:
        """Yields the interrupted jobs, then new ones up to `n_trials` in all, each chosen when it is requested."""
        with storage_errors_explained(self.folder):
            for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
                job = self.job(trial)
                if job.results() is None:
                    yield job
                else:
                    self.record(job)
            while len(self.study.trials) < self.n_trials:
                self.study.sampler = self.make_sampler(len(self.study.trials))
                yield self.job(self.study.ask(self.space))

    def make_sampler(self, trial: int) -> optuna.samplers.BaseSampler:
        """Returns a sampler for one trial, seeded with its number: a resumed search must not repeat random numbers. The
        seed of a quasi-random one stays the same, because it selects the sequence. Raises UserError for one that tries
        all points, which ends Optuna's own loop when it has.
        """
        seed, target = self.sampler.get("seed"), self.sampler.get("_target_")
        if target in GRIDS:
            remedy = "leave out hydra/sweeper=optuna"
            raise UserError(f"hydra.sweeper.sampler: {target} tries every point, as a sweep does; {remedy}.")
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
        with storage_errors_explained(self.folder):
            if results is None:
                self.study.tell(job.number, state=TrialState.FAIL)
            elif results.get("pruned"):
                self.study.tell(job.number, state=TrialState.PRUNED)
            else:
                self.study.tell(job.number, results[self.metric])

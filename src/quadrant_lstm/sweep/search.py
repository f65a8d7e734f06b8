"""A search space -> trials, a job each, which Optuna chooses by the results of those before. Imports optuna.

All that is known of a search lies in its folder, in study.db and in the jobs' own folders: one that was killed goes on
with the trials that it had begun, and asks for the same ones after them that it would have asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import Override
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, NullPool

from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.jobs import STUDY, Job, sweeper

NAME, SPACE = "sweep", "space"  # of the study, and its attribute
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search:
    """`fixed` are the overrides that all trials share. The study is `sweep`'s own, or a copy to look ahead in."""

    def __init__(
        self,
        sweep: Path,
        space: Mapping[str, BaseDistribution],
        fixed: Sequence[str],
        n_trials: int,
        sampler: DictConfig,
        look_ahead: bool = False,
    ):
        self.sweep, self.space, self.fixed, self.n_trials, self.sampler = sweep, dict(space), fixed, n_trials, sampler
        self.study = optuna.create_study(
            storage=copied(sweep) if look_ahead else storage(sweep),
            study_name=NAME,
            sampler=self.sampler_of(0),
            direction="maximize",
            load_if_exists=True,
        )
        described = {key: distribution_to_json(distribution) for key, distribution in space.items()}
        if self.study.user_attrs.setdefault(SPACE, described) != described:
            raise UserError(
                f"sweep: {sweep / STUDY} searches {', '.join(self.study.user_attrs[SPACE])} in other ranges; restore "
                "those of conf/, or start a new search without sweep=."
            )
        self.study.set_user_attr(SPACE, described)

    def jobs(self) -> Iterator[Job]:
        """Those that were interrupted, and new ones up to `n_trials` in all, each chosen as it is asked for."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            job = self.job(trial)
            if job.results() is None:
                yield job
            else:
                self.ended(job)
        while len(self.study.trials) < self.n_trials:
            yield self.job(self.ask())

    def ask(self) -> Trial:
        """By a sampler of its own, seeded with its number: a search that goes on must not begin its draws anew."""
        self.study.sampler = self.sampler_of(len(self.study.trials))
        return self.study.ask(self.space)

    def sampler_of(self, trial: int) -> optuna.samplers.BaseSampler:
        seed = self.sampler.get("seed")
        return build(
            "hydra.sweeper.sampler",
            self.sampler,
            "optuna.samplers.",
            **({} if seed is None else {"seed": seed + trial}),
        )

    def job(self, trial: Trial | FrozenTrial) -> Job:
        swept = {key: str(value) for key, value in trial.params.items()}
        overrides = (*self.fixed, *(f"{key}={value}" for key, value in swept.items()))
        return Job(trial.number, self.sweep / str(trial.number), overrides, swept)

    def ended(self, job: Job) -> None:
        results = job.results()
        if results is None:
            self.study.tell(job.number, state=TrialState.FAIL)
        elif results.get("pruned"):
            self.study.tell(job.number, state=TrialState.PRUNED)
        else:
            self.study.tell(job.number, results["val/accuracy"])


def distribution(override: Override) -> BaseDistribution:
    """KEY=interval(...), range(...), choice(...) or a list -> what Optuna draws from. Choices are overrides' texts."""
    value: Any = override.value()
    try:
        if override.is_interval_sweep():
            log = "log" in value.tags
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
        raise UserError(
            f"{override.input_line}: cannot be searched ({error}); give a range from low to high."
        ) from error


def build(key: str, node: DictConfig, within: str, **arguments: Any) -> Any:
    """A sampler or pruner; the config may be somebody else's, and can name nothing but these."""
    if not str(node.get("_target_")).startswith(within):
        raise UserError(f"{key}: {node.get('_target_')} is not in {within[:-1]}; write {key}._target_={within}NAME.")
    try:
        return instantiate(node, **arguments)
    except (InstantiationException, ValueError) as error:
        raise UserError(f"{key}: {error.__cause__ or error}; change a value of {key}.") from error


def storage(sweep: Path) -> BaseStorage:
    """A connection for each call: none is open where a job's process is forked."""
    url = URL.create("sqlite", database=str(sweep / STUDY)).render_as_string()
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": 60}})


def copied(sweep: Path) -> BaseStorage:
    copy = InMemoryStorage()
    if (sweep / STUDY).exists():
        optuna.copy_study(from_study_name=NAME, from_storage=storage(sweep), to_storage=copy)
    return copy


def running_trial(folder: Path) -> Trial | None:
    """The trial whose run has that folder, for as long as it runs."""
    sweep, number = folder.parent, int(folder.name)
    pruner = build("hydra.sweeper.pruner", sweeper(sweep).pruner, "optuna.pruners.")
    study = optuna.load_study(study_name=NAME, storage=storage(sweep), pruner=pruner)
    trial = study.trials[number]
    return Trial(study, trial._trial_id) if trial.state == TrialState.RUNNING else None

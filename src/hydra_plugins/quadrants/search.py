"""A sweep's command and `params` -> trials that Optuna chooses, a job each (conf/hydra/sweeper/optuna.yaml).

Hydra's own plugin for Optuna counts its trials for each launch, begins its folders at 0 again, and cannot prune.
"""

import itertools
from collections.abc import Callable, Iterator

from omegaconf import DictConfig

from hydra_plugins.quadrants.grid import GridSweeper
from hydra_plugins.quadrants.launcher import LocalLauncher
from quadrant_lstm.config.check import check_value
from quadrant_lstm.config.values import Count
from quadrant_lstm.errors import UserError
from quadrant_lstm.sweep.jobs import Job
from quadrant_lstm.sweep.report import reported


class SearchSweeper(GridSweeper):
    """`batch` trials at once under a launcher of Hydra's; ours begins one whenever there is room."""

    def __init__(
        self, n_trials: int, batch: int, params: DictConfig, sampler: DictConfig, pruner: DictConfig, plan: bool
    ):
        super().__init__(plan)
        self.n_trials, self.batch, self.params, self.sampler, self.pruner = n_trials, batch, params, sampler, pruner

    def sweep(self, arguments: list[str]) -> None:
        check_value("hydra.sweeper.n_trials", self.n_trials, Count)
        check_value("hydra.sweeper.batch", self.batch, Count)
        try:
            from quadrant_lstm.sweep.search import Search, build, distribution
        except ModuleNotFoundError as error:
            raise UserError(
                f'hydra/sweeper: optuna needs {error.name}, which is not installed; python -m pip install -e ".[tune]"'
            ) from error

        given = {override.get_key_element(): override for override in self.parse(arguments)}
        of_params = self.parse([f"{key!s}={value}" for key, value in self.params.items()])
        wanted = {override.get_key_element(): override for override in of_params} | given
        space = {key: distribution(override) for key, override in wanted.items() if override.is_sweep_override()}
        fixed = [str(override.input_line) for override in wanted.values() if not override.is_sweep_override()]
        if not space:
            raise UserError(
                "hydra.sweeper.params: is empty, there is nothing to search; add e.g. "
                "'optimizer.lr=tag(log,interval(0.0003,0.01))', or experiment=search."
            )
        build("hydra.sweeper.pruner", self.pruner, "optuna.pruners.")
        look_ahead = Search(self.folder(), space, fixed, self.n_trials, self.sampler, look_ahead=True)
        planned = list(look_ahead.jobs())
        self.validate_batch_is_legal([list(job.overrides) for job in planned[:1]])
        if self.plan:
            return self.show(planned)
        with reported(folder := self.make_folder()):
            search = Search(folder, space, fixed, self.n_trials, self.sampler)
            if isinstance(self.launcher, LocalLauncher):
                self.launcher.follow(search.jobs(), search.n_trials, search.ended)
            else:
                self.in_batches(search.jobs(), search.ended)

    def in_batches(self, trials: Iterator[Job], ended: Callable[[Job], None]) -> None:
        while batch := list(itertools.islice(trials, self.batch)):
            # a launcher numbers its jobs on from the first; between interrupted ones there may be gaps
            for _, some in itertools.groupby(enumerate(batch), key=lambda one: one[1].number - one[0]):
                launched = [job for _, job in some]
                self.launcher.launch([job.overrides for job in launched], initial_job_idx=launched[0].number)
            for job in batch:
                ended(job)

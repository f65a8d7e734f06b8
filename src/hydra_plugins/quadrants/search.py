"""A sweep's command and `params` -> trials that Optuna chooses, a job each (conf/hydra/sweeper/optuna.yaml).

Hydra's own plugin for Optuna counts its trials for each launch, begins its folders at 0 again, and cannot prune.
"""

from omegaconf import DictConfig

from hydra_plugins.quadrants.grid import GridSweeper, told
from hydra_plugins.quadrants.launcher import JobLauncher
from quadrant_lstm.config.check import check_value
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Count

PRUNING = "+trainer.callbacks.pruning._target_=quadrant_lstm.sweep.pruning.Pruning"


class SearchSweeper(GridSweeper):
    KIND = "search"

    def __init__(self, n_trials: int, params: DictConfig, sampler: DictConfig, pruner: DictConfig, plan: bool):
        super().__init__(params, plan)
        self.n_trials, self.sampler, self.pruner = n_trials, sampler, pruner

    def sweep(self, arguments: list[str]) -> None:
        check_value("hydra.sweeper.n_trials", self.n_trials, Count)
        if not isinstance(self.launcher, JobLauncher):
            raise UserError("hydra/launcher: cannot wait for the jobs of a search; choose local or submitit_slurm.")
        try:
            from quadrant_lstm.sweep.search import Search, build, distribution
        except ModuleNotFoundError as error:
            raise UserError(
                f'hydra/sweeper: optuna needs {error.name}, which is not installed; python -m pip install -e ".[tune]"'
            ) from error

        wanted = self.wanted(arguments)
        space = {one.get_key_element(): distribution(one) for one in wanted if one.is_sweep_override()}
        fixed = [str(override.input_line) for override in wanted if not override.is_sweep_override()]
        fixed += [told(wanted), PRUNING]
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
        with self.at_work() as folder:
            search = Search(folder, space, fixed, self.n_trials, self.sampler)
            self.launcher.follow(search.jobs(), search.n_trials, search.ended)

"""Runs one job for each trial that Optuna chooses from the ranges of a sweep (conf/hydra/sweeper/optuna.yaml).

Hydra's own Optuna plugin starts both `n_trials` and the folders' numbers again in each launch, and cannot prune.
"""

import contextlib
import itertools
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.grid import GridSweeper, swept_override
from hydra_plugins.quadrants.launcher import JobLauncher
from quadrant_lstm.config.check_value import check_value
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.kinds import Count
from quadrant_lstm.signals import signals_deferred
from quadrant_lstm.sweep.sweep_folder import SWEEP_CONFIG

PRUNING = "+trainer.callbacks.pruning._target_=quadrant_lstm.sweep.pruning.Pruning"


class SearchSweeper(GridSweeper):
    is_search = True

    def __init__(
        self, n_trials: int, params: DictConfig, sampler: DictConfig, pruner: DictConfig, rebuild: bool, plan: bool
    ):
        super().__init__(params, plan)
        self.n_trials, self.sampler, self.pruner, self.rebuild = n_trials, sampler, pruner, rebuild

    def sweep(self, arguments: list[str]) -> None:
        check_value("hydra.sweeper.n_trials", self.n_trials, Count)
        if not isinstance(self.launcher, JobLauncher):
            raise UserError("hydra/launcher: this launcher cannot run a search; choose local or submitit_slurm.")
        with signals_deferred(), needs_extra("hydra/sweeper=optuna", "tune"):
            from quadrant_lstm.sweep.search import Search
            from quadrant_lstm.sweep.search_space import distribution
            from quadrant_lstm.sweep.study import instantiate_within

        overrides = self.all_overrides(arguments)
        space = {one.get_key_element(): distribution(one) for one in overrides if one.is_sweep_override()}
        fixed = [str(one.input_line) for one in overrides if not one.is_sweep_override()]
        fixed += [swept_override(overrides), PRUNING]
        if not space:
            raise UserError(
                "hydra.sweeper.params: no key has a range to search; add e.g. "
                "'optimizer.lr=tag(log,interval(0.0003,0.01))', or experiment=search."
            )
        self.record_settings()
        instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", self.pruner)
        search = Search(self.folder(), space, fixed, self.n_trials, self.sampler, self.rebuild, dry_run=True)
        with contextlib.closing(search.jobs()) as trials:
            planned = list(itertools.islice(trials, None if self.plan else 1))
        self.check_jobs(planned[:1])
        self.report_differences()
        if self.plan:
            return self.show_plan(planned)
        with self.locked_folder(overrides) as folder:
            search = Search(folder, space, fixed, self.n_trials, self.sampler, self.rebuild)
            self.launcher.run_search(search.jobs(), search.num_left(), search.record)

    def record_settings(self) -> None:
        """Puts the settings into the recorded config without interpolations. A resumed search keeps its sampler and its
        pruner: with others it would choose other trials.
        """
        assert self.config
        self.config.hydra.sweeper.n_trials = self.n_trials
        for name in ("sampler", "pruner"):
            node: Any = OmegaConf.to_container(getattr(self, name), resolve=True)
            if self.resumed:
                key = f"hydra.sweeper.{name}"
                typed = [word for word in self.config.hydra.overrides.hydra if word.startswith(key)]
                if new := [word for word in typed if word not in self.resumed.launch_overrides]:
                    raise UserError(f"{new[0]}: a search keeps its {name}; leave it out, or start a new search.")
                node = self.resumed.hydra["sweeper"].get(name)
                if not isinstance(node, dict) or "${" in str(node):  # it may come from somebody else
                    file = self.resumed.folder / SWEEP_CONFIG
                    raise UserError(f"{file}: {key} does not hold the values that the search began with; restore it.")
            setattr(self, name, OmegaConf.create(node))
            self.config.hydra.sweeper[name] = node

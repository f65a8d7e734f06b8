"""A sweep's command -> all combinations of its values, a job each, and a report (conf/hydra/sweeper/grid.yaml); with
plan=true, what they would be (conf/hydra/sweeper/plan.yaml).

As Hydra's basic sweeper, but: a mistake in the command is found before there is a folder, the folder is decided once
for jobs on other machines too, and jobs that fail are counted at the end rather than the first of them raised.
"""

from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.launcher import compose
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.console import say
from quadrant_lstm.run.folder import quoted
from quadrant_lstm.sweep.jobs import COMMAND, jobs
from quadrant_lstm.sweep.report import reported


class GridSweeper(Sweeper):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config  # which the base class reads
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        assert self.config
        grid = self.grid(arguments)
        with reported(make_folder(self.config)):
            self.launcher.launch(grid, initial_job_idx=0)

    def grid(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job; raises what Hydra raises for those that it cannot compose."""
        assert self.hydra_context
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        (grid,) = BasicSweeper.split_arguments(parsed, None)
        self.validate_batch_is_legal(grid)
        return grid


class PlanSweeper(GridSweeper):
    def sweep(self, arguments: list[str]) -> None:
        from quadrant_lstm.sweep.plan import plan  # imports torch

        assert self.config and self.hydra_context
        context, config = self.hydra_context, self.config
        is_new = OmegaConf.is_interpolation(config.hydra.sweep, "dir")  # and is not made by looking at it
        planned = jobs(Path("new") if is_new else Path(config.hydra.sweep.dir), self.grid(arguments))
        text, wrong = plan(planned, lambda job: compose(context, config, job))
        say(text)
        if wrong:
            numbers = ", ".join(str(job.number) for job in wrong)
            raise UserError(f"plan: {len(wrong)} of {len(planned)} jobs cannot be: {numbers}; change their values.")


def make_folder(config: DictConfig) -> Path:
    """The jobs compose their configs anew, perhaps elsewhere: the folder becomes an override of all of them."""
    folder = Path(config.hydra.sweep.dir)
    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / COMMAND).exists():
        OmegaConf.save(config, folder / COMMAND)
    return folder

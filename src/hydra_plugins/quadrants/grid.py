"""A sweep's command -> all combinations of its values, a job each, and a report (conf/hydra/sweeper/grid.yaml); with
plan=true, what they would be.

As Hydra's basic sweeper, but: a mistake in the command is found before there is a folder, the folder is decided once
for jobs on other machines too, and jobs that fail are counted at the end rather than the first of them raised.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.quadrants.launcher import compose
from quadrant_lstm.console import say
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import held, quoted, write_whole
from quadrant_lstm.sweep.jobs import COMMAND, Job, jobs
from quadrant_lstm.sweep.report import reported


class GridSweeper(Sweeper):
    KIND = "grid"

    def __init__(self, params: DictConfig, plan: bool):
        self.params, self.plan = params, plan

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config  # which the base class reads
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        wanted = self.wanted(arguments)
        for override in wanted:
            if override.is_interval_sweep():
                raise UserError(
                    f"{override.input_line}: a grid needs single values; write {override.key_or_group}=A,B, or add "
                    "hydra/sweeper=optuna to search the interval."
                )
        (combinations,) = BasicSweeper.split_arguments(wanted, None)
        grid = [[*combination, told(wanted)] for combination in combinations]
        self.validate_batch_is_legal(grid)
        if self.plan:
            return self.show(jobs(self.folder(), grid))
        assert self.config
        self.config.hydra.overrides.task = [str(override.input_line) for override in wanted]  # for sweep=
        with self.at_work():
            self.launcher.launch(grid, initial_job_idx=0)

    def wanted(self, arguments: Sequence[str]) -> list[Override]:
        """Those of `params`, unless the command gives that key itself, and the command's."""
        given = self.parse(arguments)
        keys = {override.get_key_element() for override in given}
        of_params = self.parse([f"{key!s}={value}" for key, value in self.params.items()])
        return [*(override for override in of_params if override.get_key_element() not in keys), *given]

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """Raises what Hydra raises for those that it cannot read."""
        assert self.hydra_context
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(list(arguments))

    def folder(self) -> Path:
        """Of a sweep that goes on, or a name for one that is not to be: looking at its own would make it."""
        assert self.config
        is_new = OmegaConf.is_interpolation(self.config.hydra.sweep, "dir")
        return Path("new") if is_new else Path(self.config.hydra.sweep.dir)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Path]:
        """In the sweep's folder, alone. The jobs compose their configs anew, perhaps elsewhere: the folder becomes an
        override of all of them.
        """
        assert self.config
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
            with open_dict(self.config):
                self.config.hydra.sweeper.kind = self.KIND  # for those who read the folder
            write_whole(folder / COMMAND, OmegaConf.to_yaml(self.config).encode())
            with reported(folder):
                yield folder

    def show(self, planned: Sequence[Job]) -> None:
        from quadrant_lstm.sweep.plan import plan  # imports torch

        assert self.config and self.hydra_context
        context, config = self.hydra_context, self.config
        text, wrong = plan(planned, lambda job: compose(context, config, job))
        say(text)
        if wrong:
            numbers = ", ".join(str(job.number) for job in wrong)
            raise UserError(f"plan: {len(wrong)} of {len(planned)} jobs cannot be: {numbers}; change their values.")


def told(wanted: Sequence[Override]) -> str:
    """The override that tells a job which keys its sweep varies."""
    keys = [override.get_key_element().lstrip("+") for override in wanted if override.is_sweep_override()]
    return f"swept=[{','.join(keys)}]"

"""Starts a job for each combination of the values of a sweep, or for each trial that Optuna chooses, and reports.

conf/hydra/sweeper/grid.yaml and optuna.yaml.
"""

import contextlib
import copy
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.quadrants.kept_config import KeptConfigLoader, keep_files
from hydra_plugins.quadrants.launchers import JobLauncher, compose
from quadrant_lstm import files, kinds, run_folder, signals, text
from quadrant_lstm.cli.command import is_typed, make_folder
from quadrant_lstm.config import check, values
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.sweep.report import report_at_end
from quadrant_lstm.sweep.sweep_folder import CONF, SWEEP_CONFIG, SWEEPS, Job, Sweep, combinations, make_jobs


class GridSweeper(Sweeper):
    is_search = False
    config: DictConfig  # the base class reads these names
    hydra_context: HydraContext

    def __init__(self, params: DictConfig, plan: bool):
        self.params, self.plan = params, plan
        self.settings: dict[str, Any] = {}  # of a search, as they are recorded: without interpolations

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        for node in (config, config.hydra):
            OmegaConf.set_readonly(node, False)  # in Hydra 1.4 it is
        if is_typed("hydra.sweep.subdir", config.hydra):
            raise UserError("hydra.sweep.subdir: the folder of a job has the job's number; leave this key out.")
        has_folder = is_typed("hydra.sweep.dir", config.hydra)
        self.folder = Path(config.hydra.sweep.dir) if has_folder else SWEEPS / ".new"  # which does not exist
        self.resumed = Sweep(self.folder) if has_folder and (self.folder / SWEEP_CONFIG).exists() else None
        if self.resumed:
            if self.resumed.is_search != self.is_search:
                kind = "optuna" if self.resumed.is_search else "grid"
                raise UserError(f"hydra/sweeper: this sweep was started with {kind}; add hydra/sweeper={kind}.")
            self.compose_from_copy(self.resumed.folder)
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        overrides = self.all_overrides(arguments)
        for override in overrides:
            if override.is_interval_sweep():
                remedy = f"write {override.key_or_group}=A,B, or add hydra/sweeper=optuna to search the interval"
                raise UserError(f"{override.input_line}: a grid needs single values; {remedy}.")
        grid = [[*combination, swept_override(overrides)] for combination in combinations(overrides)]
        jobs = make_jobs(self.folder, grid)
        self.check_jobs(jobs)
        if self.plan:
            return self.show_plan(jobs)
        with self.locked_folder(overrides):
            self.launcher.launch(grid, initial_job_idx=0)

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        """Composes the config of each job before any starts, and checks it for a ranking. Says what jobs of a resumed
        sweep would have by conf/ as it is now, and names those that have been trained with another config.
        """
        loader = self.hydra_context.config_loader
        ignored = []  # errors about overrides without effect
        for job in jobs:
            composed = loader.load_sweep_config(self.config, list(job.overrides))
            if (params := composed.hydra.sweeper.get("params")) and params != self.params:
                experiment, keys = composed.hydra.runtime.choices.get("experiment"), ", ".join(map(str, params))
                raise UserError(f"experiment: {experiment} is a sweep over {keys}; write it as the only experiment.")
            config, file = values.without_hydra(composed), job.folder / run_folder.CONFIG
            if self.resumed and job.results() and file.exists():
                for key, (trained, now) in values.differing_values(files.read_yaml(file), config).items():
                    text.say(f"job {job.number} has been trained with {key}={trained}, but this sweep has {now}")
            try:
                check.check_values(config)
            except UserError:
                continue  # this job will fail alone, and say why
            check.check_validation(config)
            try:
                check.check_effect(config, job.overrides)
            except UserError as error:
                ignored.append(error)
        if ignored and len(ignored) == len(jobs) and not (self.is_search or self.resumed):  # other trials may differ
            raise ignored[0]
        if isinstance(loader, KeptConfigLoader) and loader.differences:
            listed = ", ".join(f"{key}={kept} (now {now} in conf/)" for key, (kept, now) in loader.differences.items())
            text.say(f"conf/ has changed since this sweep began; the sweep keeps {listed}")

    def all_overrides(self, arguments: Sequence[str]) -> list[Override]:
        """Returns the overrides of `params` and of the command. Of a key that is given twice, the last values count.

        A resumed sweep has recorded both.
        """
        params = [] if self.resumed else [f"{key!s}={value}" for key, value in self.params.items()]
        overrides = self.parse([*params, *arguments])
        last = {override.get_key_element().lstrip("+"): number for number, override in enumerate(overrides)}
        kept = [
            enumerated(override)
            for number, override in enumerate(overrides)
            if not override.is_sweep_override() or number in last.values()
        ]
        return self.parse(kept)

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """Parses overrides. Raises Hydra's OverrideParseException for one that is invalid."""
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(list(arguments))

    def compose_from_copy(self, folder: Path) -> None:
        loader, name = self.hydra_context.config_loader, self.config.hydra.job.config_name
        self.hydra_context.config_loader = KeptConfigLoader(loader, folder / CONF, name, self.resumed is not None)

    @contextlib.contextmanager
    def locked_folder(self, overrides: Sequence[Override]) -> Iterator[Path]:
        """Makes and locks the sweep's folder, writes the config of its command, and at the end the report.

        The folder becomes an override of all jobs, because they compose their configs again, perhaps elsewhere.
        """
        config = self.config
        folder = Path(make_folder("hydra.sweep.dir", config.hydra.sweep.dir, config.hydra))
        with run_folder.locked(folder):
            task = [str(override.input_line) for override in overrides]
            config.hydra.overrides.task = task  # for Sweep.overrides
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={text.quoted(folder)}")
            config.hydra.sweep.dir = str(folder)  # which may have been named by keys that the jobs change
            if self.resumed:
                if self.resumed.overrides != task:
                    remedy = f"resume that with sweep={folder}, or write another folder"
                    raise UserError(f"hydra.sweep.dir: {folder} contains another sweep; {remedy}.")
                recorded = OmegaConf.create(self.resumed.config)
                recorded.hydra = copy.deepcopy(config.hydra)
            else:
                if any(folder.glob(f"*/{run_folder.CONFIG}")):
                    raise UserError(f"hydra.sweep.dir: {folder} contains runs of no sweep; write another folder.")
                recorded = copy.deepcopy(config)
                shutil.rmtree(folder / CONF, ignore_errors=True)  # of a command that was killed here
                keep_files(self.hydra_context.config_loader, config.hydra.job.config_name, task, folder / CONF)
                self.compose_from_copy(folder)
            recorded.hydra.sweeper.update(self.settings)
            files.write_atomically(folder / SWEEP_CONFIG, OmegaConf.to_yaml(recorded).encode())
            with report_at_end(folder):
                yield folder

    def show_plan(self, planned: Sequence[Job]) -> None:
        with signals.importing():
            from quadrant_lstm.sweep.plan import show_plan

        show_plan(planned, lambda job: compose(self.hydra_context, self.config, job))


def enumerated(override: Override) -> str:
    """Returns the override; of a glob or a shuffle with its values, because evaluating it again could give others."""
    value, typed = override.value(), str(override.input_line)
    if not override.is_discrete_sweep():
        return typed
    if not (listed := list(override.sweep_string_iterator())):
        raise UserError(f"{typed}: has no values, so there is no job to run; give some.")
    is_evaluated = isinstance(value, Glob) or getattr(value, "shuffle", False)
    return f"{override.get_key_element()}={','.join(listed)}" if is_evaluated else typed


def swept_override(overrides: Sequence[Override]) -> str:
    """Returns the override that tells a job which keys its sweep varies."""
    keys = (override.get_key_element().lstrip("+") for override in overrides if override.is_sweep_override())
    return f"swept=[{','.join(keys)}]"


PRUNING = "+trainer.callbacks.pruning._target_=quadrant_lstm.sweep.pruning.Pruning"


class SearchSweeper(GridSweeper):
    is_search = True

    def __init__(self, n_trials: int, params: DictConfig, sampler: DictConfig, pruner: DictConfig, plan: bool):
        super().__init__(params, plan)
        self.n_trials, self.nodes = n_trials, {"sampler": sampler, "pruner": pruner}

    def sweep(self, arguments: list[str]) -> None:
        check.check_value("hydra.sweeper.n_trials", self.n_trials, kinds.Count)
        if not isinstance(self.launcher, JobLauncher):
            raise UserError("hydra/launcher: this launcher cannot run a search; choose local or submitit_slurm.")
        with signals.importing(), needs_extra("hydra/sweeper=optuna", "tune"):
            from quadrant_lstm.sweep.search import Search, distribution, instantiate_within

        overrides = self.all_overrides(arguments)
        swept = [override for override in overrides if override.is_sweep_override()]
        space = {override.get_key_element(): distribution(override) for override in swept}
        fixed = [str(override.input_line) for override in overrides if override not in swept]
        fixed += [swept_override(overrides), PRUNING]
        if not space:
            example = "'optimizer.lr=tag(log,interval(0.0003,0.01))', or experiment=search"
            raise UserError(f"hydra.sweeper.params: no key has a range to search; add e.g. {example}.")
        self.resolve_settings()
        instantiate_within("optuna.pruners.", "hydra.sweeper.pruner", self.settings["pruner"])
        sampler = self.settings["sampler"]
        metric = (self.resumed.config if self.resumed else self.config).get("monitor", "val/accuracy")
        check.check_value("monitor", metric, kinds.Monitor)
        search = Search(self.folder, space, fixed, self.n_trials, sampler, metric, dry_run=True)
        with contextlib.closing(search.jobs()) as trials:
            planned = list(itertools.islice(trials, None if self.plan else 1))
        self.check_jobs(planned[:1])
        if self.plan:
            return self.show_plan(planned)
        with self.locked_folder(overrides) as folder:
            search = Search(folder, space, fixed, self.n_trials, sampler, metric)
            self.launcher.run_jobs(search.jobs(), self.launcher.in_search, search.record)

    def resolve_settings(self) -> None:
        """A resumed search keeps its sampler and its pruner, because others would choose other trials."""
        self.settings["n_trials"] = self.n_trials
        for name, node in self.nodes.items():
            self.settings[name] = OmegaConf.to_container(node, resolve=True)
            if self.resumed:
                others = set(self.config.hydra.overrides.hydra) - set(self.resumed.launch_overrides)
                for typed in sorted(others):
                    if typed.lstrip("+").startswith(f"hydra.sweeper.{name}"):
                        raise UserError(f"{typed}: a search keeps its {name}; leave it out, or start a new search.")
                self.settings[name] = self.resumed.hydra["sweeper"][name]

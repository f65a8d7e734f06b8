"""Reads the folder of a sweep: the config of its command and its jobs. Imports no torch.

Everything comes from files, so this also works for a sweep that was killed and for one on a cluster.

    outputs/sweeps/<date>/<time>/
        multirun.yaml        the config of the sweep's command
        conf/                the config files that it began with, from which all jobs are composed
        0/ 1/ 2/ ...         one run folder per job (run_folder.py)
        study.db             in a search: Optuna's trials, which have the numbers of the jobs
        study.db.old         the one that study=rebuild has replaced
        sweep.csv sweep.html the report, written when the sweep ends
"""

import contextlib
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import expanded, read_yaml
from quadrant_lstm.run_folder import OUTPUTS, OVERRIDES, read_overrides
from quadrant_lstm.sweep.jobs import Job, make_jobs

SWEEPS = OUTPUTS / "sweeps"
SWEEP_CONFIG = "multirun.yaml"
CONF = "conf"
STUDY = "study.db"


class Sweep:
    """The folder of a sweep."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the sweep's command. Interpolations stay: the folder may come from somebody else."""
        config = read_yaml(self.folder / SWEEP_CONFIG)
        plain: Any = OmegaConf.to_container(config) if OmegaConf.is_config(config) else None
        with contextlib.suppress(KeyError, TypeError):
            hydra = plain["hydra"]
            lists = [hydra["overrides"]["task"], hydra["overrides"]["hydra"], hydra["runtime"]["config_sources"]]
            has_count = isinstance(hydra["sweeper"].get("n_trials", 0), int)
            if has_count and all(isinstance(each, list) for each in lists):
                return plain
        raise UserError(f"{self.folder / SWEEP_CONFIG}: is not the config of a sweep; restore it.")

    @property
    def hydra(self) -> dict[str, Any]:
        """The `hydra` part of that config."""
        return self.config["hydra"]

    @property
    def is_search(self) -> bool:
        return "n_trials" in self.hydra["sweeper"]

    @property
    def overrides(self) -> list[str]:
        """The overrides of the sweep's command, without those of Hydra's own keys."""
        return list(map(str, self.hydra["overrides"]["task"]))

    @property
    def launch_overrides(self) -> list[str]:
        """The overrides that configure the sweep's sweeper and launcher, the last one for each key."""
        pattern = r"hydra[/.](sweeper|launcher)[.=](?!rebuild=)"
        chosen = [override for override in map(str, self.hydra["overrides"]["hydra"]) if re.match(pattern, override)]
        return list({override.partition("=")[0]: override for override in chosen}.values())

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs of a grid, including those that have not started; of a search, the jobs that have started."""
        if self.is_search:
            names = (file.parents[1].name for file in self.folder.glob(f"*/{OVERRIDES}"))
            started = sorted(int(name) for name in names if name.isdecimal())
            return make_jobs(self.folder, [read_overrides(self.folder / str(number)) for number in started], started)
        (combinations,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(self.overrides), None)
        return make_jobs(self.folder, combinations, range(len(combinations)))

    @cached_property
    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.results() is None]

    @property
    def num_jobs(self) -> int:
        """The number of jobs of the completed sweep; a search starts its jobs one by one."""
        return self.hydra["sweeper"]["n_trials"] if self.is_search else len(self.jobs)

    @property
    def is_resumable(self) -> bool:
        """Whether sweep=PATH would run a job. It runs failed jobs again, except the failed trials of a search."""
        pending = [job for job in self.unfinished if not (self.is_search and job.error())]
        return len(self.jobs) < self.num_jobs or bool(pending)


def find_sweep(sweep: str) -> Sweep:
    """Returns the sweep that `sweep=PATH` or `sweep=latest` names. Raises UserError if there is none."""
    if sweep == "latest":
        found = list(SWEEPS.glob(f"*/*/{SWEEP_CONFIG}"))
        if not found:
            place = SWEEPS.absolute()
            raise UserError(f"sweep: latest, but {place} has no sweep; start one with python train.py -m KEY=A,B.")
        return Sweep(max(found, key=lambda file: file.stat().st_mtime_ns).parent)
    folder = expanded(sweep)
    if not (folder / SWEEP_CONFIG).is_file():
        raise UserError(f"sweep: {sweep} has no {SWEEP_CONFIG}; give a folder like {SWEEPS}/<date>/<time>.")
    return Sweep(folder)

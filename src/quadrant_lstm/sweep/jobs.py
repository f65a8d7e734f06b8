"""Reads a sweep's folder and returns its jobs, with their overrides, results and errors. Imports no torch.

Everything comes from files, so this also works for a sweep that was killed and for one on a cluster.

    outputs/sweeps/<date>/<time>/
        multirun.yaml        the config of the sweep's command
        0/ 1/ 2/ ...         one run folder per job (run_folder.py)
        study.db             in a search: Optuna's trials, which have the numbers of the jobs
        sweep.csv sweep.html the report, written when the sweep ends
"""

import contextlib
import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import LOG, OUTPUTS, OVERRIDES, RESULTS, last_epoch, read_yaml

SWEEPS = OUTPUTS / "sweeps"
SWEEP_CONFIG = "multirun.yaml"
STUDY = "study.db"


@dataclass(frozen=True)
class Job:
    """One run of a sweep. `swept` holds the values that differ between the sweep's jobs."""

    number: int
    folder: Path
    overrides: tuple[str, ...]
    swept: dict[str, str]

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items())

    def results(self) -> dict[str, Any] | None:
        """Returns the content of results.json, or None before the job has finished."""
        file = self.folder / RESULTS
        return json.loads(file.read_text()) if file.exists() else None

    def last_epoch(self) -> dict[str, str] | None:
        return last_epoch(self.folder)

    def error(self) -> str | None:
        """Returns the last error message in the job's log, or None."""
        log = self.folder / LOG
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        errors = [line.partition(" ERROR ")[2] for line in lines if " ERROR " in line]
        return errors[-1] if errors else None


def readable(value: str) -> str:
    """Shortens a value for display: a sampled number has 16 digits, a list of 20 orderings 180."""
    if re.fullmatch(r"-?\d+\.\d{5,}|-?\d\.?\d*e-?\d+", value):
        return f"{float(value):.4g}"
    if re.fullmatch(r"\[\[[1-4](,[1-4]){3}\](,\[[1-4](,[1-4]){3}\])*\]", value):
        orderings = value.replace(",", "").strip("[]").split("][")
        return " ".join(orderings) if len(orderings) <= 4 else f"{len(orderings)} orderings"
    return value


def make_jobs(sweep: Path, overrides: Sequence[Sequence[str]], numbers: Iterable[int]) -> list[Job]:
    """Returns one job for each list of overrides, with these numbers."""
    assignments = [dict(one.lstrip("+").split("=", 1) for one in given if "=" in one) for given in overrides]
    keys = list(dict.fromkeys(key for assigned in assignments for key in assigned))
    differing = [key for key in keys if len({assigned.get(key) for assigned in assignments}) > 1]
    return [
        Job(number, sweep / str(number), tuple(given), {key: assigned.get(key, "") for key in differing})
        for number, given, assigned in zip(numbers, overrides, assignments, strict=True)
    ]


def read_jobs(sweep: Path) -> list[Job]:
    """Returns all jobs of a grid, including those that have not started; of a search, the jobs that have started."""
    if is_search(sweep):
        started = sorted(int(file.parents[1].name) for file in sweep.glob(f"[0-9]*/{OVERRIDES}"))
        return make_jobs(sweep, [list(read_yaml(sweep / str(number) / OVERRIDES)) for number in started], started)
    parsed = OverridesParser.create().parse_overrides(task_overrides(sweep))
    (combinations,) = BasicSweeper.split_arguments(parsed, None)
    return make_jobs(sweep, combinations, range(len(combinations)))


def hydra_config(sweep: Path) -> DictConfig:
    """Returns the `hydra` part of the config of the sweep's command."""
    file = sweep / SWEEP_CONFIG
    return read_cached(file, file.stat().st_mtime_ns).hydra


@functools.lru_cache(maxsize=1)
def read_cached(file: Path, modified_ns: int) -> DictConfig:
    """Parses the file once per modification: this takes longer than reading a job's results."""
    return read_yaml(file)


def sweeper_config(sweep: Path) -> DictConfig:
    return hydra_config(sweep).sweeper


def is_search(sweep: Path) -> bool:
    return sweeper_config(sweep).get("kind") == "search"


def num_jobs(sweep: Path, jobs: Sequence[Job]) -> int:
    """Returns the number of jobs of the completed sweep; a search starts its jobs one by one."""
    return sweeper_config(sweep).n_trials if is_search(sweep) else len(jobs)


def task_overrides(sweep: Path) -> list[str]:
    """Returns the overrides of the sweep's command, without those of Hydra's own keys."""
    return [str(override) for override in hydra_config(sweep).overrides.task]


def launch_overrides(sweep: Path) -> list[str]:
    """Returns the overrides that configure the sweep's sweeper and launcher, the last one for each key."""
    overrides = [str(override) for override in hydra_config(sweep).overrides.hydra]
    chosen = [one for one in overrides if re.match(r"hydra[/.](sweeper|launcher)[.=]", one) and "_target_" not in one]
    return list({one.partition("=")[0]: one for one in chosen}.values())


def parse_number(text: str) -> int | float | str:
    """Returns the number that the text stands for, or the text itself."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def find_sweep(sweep: str) -> Path:
    """Returns the folder that `sweep=PATH` or `sweep=latest` names. Raises UserError if there is none."""
    if sweep == "latest":
        found = list(SWEEPS.glob(f"*/*/{SWEEP_CONFIG}"))
        if not found:
            place = SWEEPS.absolute()
            raise UserError(f"sweep: latest, but {place} has no sweep; start one with python train.py -m KEY=A,B.")
        return max(found, key=lambda file: file.stat().st_mtime_ns).parent
    folder = Path(sweep).expanduser()
    if not (folder / SWEEP_CONFIG).is_file():
        raise UserError(f"sweep: {sweep} has no {SWEEP_CONFIG}; give a folder like {SWEEPS}/<date>/<time>.")
    return folder

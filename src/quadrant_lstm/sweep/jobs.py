"""A sweep's folder -> its jobs, and how each stands. All is read from files, so that it holds for a sweep that was
killed and for one on a cluster too. Imports no torch.

    outputs/sweeps/<date>/<time>/
        multirun.yaml        the sweep's command
        0/ 1/ 2/ ...         a run folder a job (run/folder.py)
        study.db             of a search: Optuna's trials, numbered as the jobs are
        sweep.csv sweep.html the report, written when it ends
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
COMMAND = "multirun.yaml"
STUDY = "study.db"


@dataclass(frozen=True)
class Job:
    """`swept` are the values that differ between the sweep's jobs."""

    number: int
    folder: Path
    overrides: tuple[str, ...]
    swept: dict[str, str]

    def __str__(self) -> str:
        return " ".join(f"{key}={readable(value)}" for key, value in self.swept.items())

    def results(self) -> dict[str, Any] | None:
        """None before it is done."""
        file = self.folder / RESULTS
        return json.loads(file.read_text()) if file.exists() else None

    def last_epoch(self) -> dict[str, str] | None:
        return last_epoch(self.folder)

    def error(self) -> str | None:
        """The last that its log says of an error."""
        log = self.folder / LOG
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        errors = [line.partition(" ERROR ")[2] for line in lines if " ERROR " in line]
        return errors[-1] if errors else None


def readable(value: str) -> str:
    """As people read it: a number that was drawn has 16 digits, a list of 20 orderings 180."""
    if re.fullmatch(r"-?\d+\.\d{5,}|-?\d\.?\d*e-?\d+", value):
        return f"{float(value):.4g}"
    if re.fullmatch(r"\[\[[1-4](,[1-4]){3}\](,\[[1-4](,[1-4]){3}\])*\]", value):
        orderings = value.replace(",", "").strip("[]").split("][")
        return " ".join(orderings) if len(orderings) <= 4 else f"{len(orderings)} orderings"
    return value


def assigned_by(overrides: Iterable[str]) -> dict[str, str]:
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def jobs(sweep: Path, overrides: Iterable[Sequence[str]], first: int = 0) -> list[Job]:
    """The jobs of these overrides, in their order."""
    assignments = [assigned_by(one) for one in overrides]
    keys = list(dict.fromkeys(key for one in assignments for key in one))
    differ = [key for key in keys if len({one.get(key) for one in assignments}) > 1]
    return [
        Job(first + at, sweep / str(first + at), tuple(one), {key: assigned.get(key, "") for key in differ})
        for at, (one, assigned) in enumerate(zip(overrides, assignments, strict=True))
    ]


def read_jobs(sweep: Path) -> list[Job]:
    """All jobs of a grid, also those not begun; of a search, those that it has begun."""
    if not is_search(sweep):
        given = OverridesParser.create().parse_overrides(swept(sweep))
        return jobs(sweep, BasicSweeper.split_arguments(given, None)[0])
    begun = sorted(int(folder.parents[1].name) for folder in sweep.glob(f"[0-9]*/{OVERRIDES}"))
    found = jobs(sweep, [list(read_yaml(sweep / str(number) / OVERRIDES)) for number in begun])
    return [
        Job(number, sweep / str(number), job.overrides, job.swept) for number, job in zip(begun, found, strict=True)
    ]


def command(sweep: Path) -> DictConfig:
    """Hydra's part of it."""
    file = sweep / COMMAND
    return parsed(file, file.stat().st_mtime_ns).hydra


@functools.lru_cache(maxsize=1)
def parsed(file: Path, written: int) -> DictConfig:
    """Of what was written at that time: it takes longer to read than a job's results."""
    return read_yaml(file)


def sweeper(sweep: Path) -> DictConfig:
    return command(sweep).sweeper


def is_search(sweep: Path) -> bool:
    return sweeper(sweep).get("kind") == "search"


def total(sweep: Path, jobs: Sequence[Job]) -> int:
    """How many jobs it is to have."""
    return sweeper(sweep).n_trials if is_search(sweep) else len(jobs)


def swept(sweep: Path) -> list[str]:
    """The overrides of the sweep's command."""
    return [str(override) for override in command(sweep).overrides.task]


def as_number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def launching(sweep: Path) -> list[str]:
    """Those that chose its sweeper and launcher, the last for each key."""
    overrides = [str(override) for override in command(sweep).overrides.hydra]
    chose = [one for one in overrides if re.match(r"hydra[/.](sweeper|launcher)[.=]", one) and "_target_" not in one]
    return list({one.partition("=")[0]: one for one in chose}.values())


def find_sweep(sweep: str) -> Path:
    """The folder that `sweep=PATH` or `sweep=latest` means."""
    if sweep == "latest":
        found = list(SWEEPS.glob(f"*/*/{COMMAND}"))
        if not found:
            raise UserError(f"sweep: latest, but {SWEEPS.absolute()} holds none; first: python train.py -m KEY=A,B")
        return max(found, key=lambda file: file.stat().st_mtime_ns).parent
    folder = Path(sweep).expanduser()
    if not (folder / COMMAND).is_file():
        raise UserError(f"sweep: {sweep} has no {COMMAND}; give a folder like {SWEEPS}/<date>/<time>.")
    return folder

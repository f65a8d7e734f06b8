"""Where a run lives: a new folder for each, and the way back into an old one. Imports no torch.

What is in it:

    outputs/<date>/<time>/
        .hydra/              the composed config, the overrides
        train.log            what was printed
        metrics.csv          a row an epoch
        report.html          all of it on a page, with pictures; of a run that has finished
        results.json         the final figures, written last
        provenance.json      where it came from: commit, versions, command, data, seed
        checkpoints/         best.ckpt (by val/accuracy), last.ckpt (the newest finished epoch)
        .lock                held while a process works in the folder
        events.out.tfevents  for TensorBoard
"""

import contextlib
import csv
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.errors import UserError

OUTPUTS = Path("outputs")
CONFIG = Path(".hydra", "config.yaml")
OVERRIDES = Path(".hydra", "overrides.yaml")
BEST = Path("checkpoints", "best.ckpt")
LAST = Path("checkpoints", "last.ckpt")
RESULTS = Path("results.json")
PROVENANCE = Path("provenance.json")
METRICS = Path("metrics.csv")
REPORT = Path("report.html")
LOG = Path("train.log")
LOCK = Path(".lock")


def new_folder(wanted: str) -> str:
    """Make that folder, or the first free one of `wanted-2`, `wanted-3`, ...: two starts in a second get two."""
    for number in itertools.count(1):
        folder = Path(wanted if number == 1 else f"{wanted}-{number}")
        try:
            folder.mkdir(parents=True)
            return str(folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"outputs: {folder} cannot be made ({error.strerror}); run in another folder.") from error
    raise AssertionError


def find_run(run: str | None, holding: Path = CONFIG) -> Path:
    """The folder that `run=PATH` or `run=latest` means; the latest is the newest that holds that file."""
    if run is None:
        raise UserError("run: is missing; add run=FOLDER or run=latest.")
    if run == "latest":
        runs = [config.parents[1] for config in OUTPUTS.glob(f"**/{CONFIG}")]
        runs = [run for run in runs if (run / holding).is_file()]
        if not runs:
            raise UserError(f"run: latest, but no run in {OUTPUTS.absolute()} has a {holding}; first: python train.py")
        return max(runs, key=lambda run: (run / CONFIG).stat().st_mtime_ns)
    folder = Path(run).expanduser()
    if not (folder / CONFIG).is_file():
        raise UserError(f"run: {run} is no run folder: it has no {CONFIG}; give one like outputs/<date>/<time>.")
    return folder


def write_whole(file: Path, content: bytes) -> None:
    """The file there is the one before or the one after, whatever ends the process: it is written beside its place,
    made safe on the disk, and renamed. Raises UserError where it cannot be written; nothing is lost.
    """
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(staged, file)
        with contextlib.suppress(PermissionError):  # Windows opens no folders
            folder = os.open(file.parent, os.O_RDONLY)
            os.fsync(folder)  # the new name too
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        raise UserError(
            f"{file}: cannot be written ({error.strerror}); what stood there is whole: mend that, and do it once more "
            "(run=FOLDER and sweep=FOLDER go on)."
        ) from error


def read_yaml(file: Path) -> Any:
    """A config or a list of overrides, from anybody's folder. Raises UserError for a file that cannot be read.

    Aliases are refused: nine levels of nine aliases stand for 387 million values. No file of a run has any.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it uses YAML aliases")
        return OmegaConf.load(io.StringIO(text))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: cannot be read ({error}); restore it.") from error


def read_rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def last_epoch(folder: Path) -> dict[str, str] | None:
    """The last row of a run's metrics.csv."""
    rows = read_rows(folder / METRICS)
    return rows[-1] if rows else None


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the folder; raises UserError if one is at work in it."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise UserError(f"{folder}: another process is at work in it; wait for it, or end it.") from None


def quoted(folder: Path) -> str:
    """As Hydra's grammar reads it."""
    return "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"

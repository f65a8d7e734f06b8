"""Makes, finds, locks and reads the folders of runs, outputs/<date>/<time>/, and names the files in them.

Callbacks, loggers and profilers of Lightning write more files, which docs/configuration.md lists. Imports no torch.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import expanded, read_csv, read_json, read_yaml, remove_staged, write_atomically

OUTPUTS = Path("outputs")
CONFIG = Path(".hydra", "config.yaml")  # composed
OVERRIDES = Path(".hydra", "overrides.yaml")
BEST = Path("checkpoints", "best.ckpt")  # the epoch that is kept
LAST = Path("checkpoints", "last.ckpt")  # the newest finished epoch
RESULTS = Path("results.json")  # the final figures, written last
ERROR = Path("error.json")  # why a job of a sweep failed
PROVENANCE = Path("provenance.json")  # commit, versions, command, data, seed
TABLES = {"clip": Path("clips.csv"), "series": Path("series.csv")}  # of the samples, by their kind, with their splits
SKIPPED = Path("skipped_clips.txt")  # the errors of clips that were left out
METRICS = Path("metrics.csv")  # one row per epoch
REPORT = Path("report.html")  # figures and pictures on one page, written when the run has finished
TRACKERS = Path("trackers.json")  # the ids of the run in Weights & Biases and MLflow
LOG = Path("train.log")  # what was printed
LOCK = Path(".lock")  # locked while a process works in the folder
MARK = Path(".torchrun")  # written by the first process of torchrun, to see whether all machines share the folder
EXPORTED = {  # by their formats
    "onnx": Path("network.onnx"), "torch": Path("network.pt2"), "safetensors": Path("network.safetensors"),
    "keras": Path("network.keras"), "html": Path("network.html"),
}  # fmt: skip


def new_folder(wanted: str) -> str:
    """Makes the folder `wanted`, or `wanted-2`, `wanted-3`, ... if it exists, so that two runs never share a folder."""
    folder, number = Path(wanted), 1
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()
                return str(folder)
            except FileExistsError:
                number += 1
                folder = Path(f"{wanted}-{number}")
    except OSError as error:
        raise UserError(f"outputs: {folder} cannot be made ({error.strerror}); run in another folder.") from error


def remove_untouched(folder: Path) -> None:
    """Removes the folder of a run that was refused before it wrote anything but its config and its log."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {CONFIG.parent.name, LOG.name, MARK.name}:
        shutil.rmtree(folder, ignore_errors=True)


def find_run(run: str | None, required_file: Path = CONFIG) -> Path:
    """Returns the run folder that `run=PATH` names; `run=latest` means the newest run that has the required file."""
    if run is None:
        raise UserError("run: is missing; add run=FOLDER or run=latest.")
    if run == "latest":
        folders = (config.parents[1] for config in OUTPUTS.glob(f"**/{CONFIG}"))
        runs = [folder for folder in folders if (folder / required_file).is_file()]
        if not runs:
            where = f"no run in {OUTPUTS.absolute()} has a {required_file}"
            raise UserError(f"run: latest, but {where}; start one with python train.py.")
        return max(runs, key=lambda folder: (folder / CONFIG).stat().st_mtime_ns)
    folder = expanded(run)
    if not (folder / CONFIG).is_file():
        raise UserError(f"run: {run} is not a run folder: it has no {CONFIG}; give one like outputs/<date>/<time>.")
    return folder


def check_links(folder: Path, trust: Sequence[str] | None) -> None:
    """Raises UserError for a link that leads out of the folder, which may come from somebody else, and to no folder in
    `trust`. None is for a folder of which no link can be trusted. A log that is hard-linked becomes a copy, because
    lines are appended to it.
    """
    folders = [folder.resolve(), *(Path(path).resolve() for path in trust or ())]
    for path in (path for path in folder.rglob("*") if path.is_symlink()):
        if "wandb" in path.relative_to(folder).parts[:-2]:
            continue  # wandb does not write to the files of its earlier runs
        target = Path(os.path.realpath(path))  # unlike Path.resolve, it raises no error for links in a circle
        if not any(map(target.is_relative_to, folders)):
            remedy = "" if trust is None else f", or add trust={target} if files may be written there"
            raise UserError(f"{path}: links to {target}, outside its folder; replace the link by a copy{remedy}.")
    for log in folder.rglob(LOG.name):
        if log.is_file() and log.stat().st_nlink > 1:
            write_atomically(log, log.read_bytes())


def find_weights(init: str) -> Path:
    """Returns the file of weights that `init=` names: that of the epoch a run kept, or a file itself."""
    path = expanded(init)
    for file in (path / BEST, path):
        if file.is_file() and file.suffix in (BEST.suffix, ".safetensors"):
            return file
    rule = f"is neither a run folder with a {BEST} nor a .ckpt or .safetensors file"
    rule = rule if path.exists() else "does not exist"
    raise UserError(f"init: {init} {rule}; give a run folder, or a file that export.py format=safetensors wrote.")


def find_teachers(teacher: str) -> list[Path]:
    """Returns the folders that `teacher=` names: a run, or the finished jobs of a sweep."""
    folder = expanded(teacher)
    finished = (file.parent for file in folder.glob(f"*/{RESULTS}") if not read_results(file.parent).get("pruned"))
    folders = [folder] if (folder / BEST).is_file() else list(finished)
    if not folders:
        rule = f"is neither a run folder with a {BEST} nor the folder of a sweep with a finished job"
        rule = rule if folder.exists() else "does not exist"
        raise UserError(f"teacher: {teacher} {rule}; restore it, or give one that train.py made.")
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name))


def as_typed(path: Path) -> Path:
    """Returns the path as a user would type it: relative to the working directory if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def read_overrides(folder: Path) -> list[str]:
    """Returns the overrides of a run as they were typed, or none if they are not recorded. Raises UserError."""
    file = folder / OVERRIDES
    overrides = read_yaml(file) if file.exists() else OmegaConf.create([])
    if not OmegaConf.is_list(overrides):
        raise UserError(f"{file}: is not a list of overrides; restore it.")
    plain: Any = OmegaConf.to_container(overrides)  # unlike an iteration, this resolves no interpolations
    return list(map(str, plain))


def is_trained(folder: Path) -> bool:
    """Tells whether a run has been trained in the folder, for one epoch or a part of it."""
    return any((folder / file).exists() for file in (LAST, BEST, METRICS, RESULTS))


def read_rows(file: Path) -> list[dict[str, str]]:
    """Returns the rows of a metrics.csv. Raises UserError for a value that is no number, and for no epoch."""
    rows = read_csv(file)
    for number, row in enumerate(rows, start=1):
        try:
            int(row["epoch"])
            for value in row.values():
                float(value or 0)
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{file}: row {number} is damaged; restore the file.") from None
    return rows


def check_present(folder: Path) -> None:
    """Raises UserError if a run's folder was deleted or moved while the run is trained."""
    if not (folder / CONFIG).exists():
        rule = "was deleted or moved while the run was trained"
        raise UserError(f"{folder}: {rule}; restore it and resume with run={folder}, or start again.")


def read_results(folder: Path) -> dict[str, Any]:
    """Returns the content of results.json, or nothing before the run has finished."""
    return read_json(folder / RESULTS)


def last_epoch(folder: Path) -> dict[str, str] | None:
    """Returns the last row of a run's metrics.csv, or None before the end of the first epoch."""
    rows = read_rows(folder / METRICS)
    return rows[-1] if rows else None


def unfinished(folder: Path, cfg: Any) -> str | None:
    """Returns how far a run has come, in words, or None if it has finished or was made without training. `cfg` is its
    config.
    """
    row = None if read_results(folder) else last_epoch(folder)
    return f"epoch {row['epoch']} of {cfg.trainer.max_epochs}; this run has not finished" if row else None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the folder; raises UserError if one already works in it."""
    from filelock import FileLock, Timeout  # here, because every command imports this module

    try:
        with FileLock(folder / LOCK, timeout=0):
            remove_staged(folder)
            yield
    except Timeout:
        raise UserError(f"{folder}: another process works in it; wait for that process or stop it.") from None

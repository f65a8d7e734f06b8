"""Where a run lives: a new folder for each, and the way back into an old one. Imports no torch.

What is in it:

    outputs/<date>/<time>/
        .hydra/              the composed config, the overrides
        train.log            what was printed
        metrics.csv          a row an epoch
        results.json         the final figures, written last
        provenance.json      where it came from: commit, versions, command, data, seed
        checkpoints/         best.ckpt (by val/accuracy), last.ckpt (the newest finished epoch)
        events.out.tfevents  for TensorBoard
"""

import itertools
from pathlib import Path

from quadrant_lstm.errors import UserError

OUTPUTS = Path("outputs")
CONFIG = Path(".hydra", "config.yaml")
BEST = Path("checkpoints", "best.ckpt")
LAST = Path("checkpoints", "last.ckpt")
RESULTS = Path("results.json")
PROVENANCE = Path("provenance.json")
METRICS = Path("metrics.csv")


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


def find_run(run: str | None) -> Path:
    """The folder that `run=PATH` or `run=latest` means."""
    if run is None:
        raise UserError("run: is missing; add run=FOLDER or run=latest.")
    if run == "latest":
        configs = sorted(OUTPUTS.glob(f"**/{CONFIG}"), key=lambda config: config.stat().st_mtime_ns)
        if not configs:
            raise UserError(f"run: latest, but there is no run in {OUTPUTS.absolute()}; start one: python train.py")
        return configs[-1].parent.parent
    folder = Path(run).expanduser()
    if not (folder / CONFIG).is_file():
        raise UserError(f"run: {run} is no run folder: it has no {CONFIG}; give one like outputs/<date>/<time>.")
    return folder

"""Reads and checks what the scripts for finished runs are given: their keys, and the config of a run folder.

Imports no torch.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from quadrant_lstm.config.check import check_keys, check_values
from quadrant_lstm.config.values import resolve_interpolations
from quadrant_lstm.errors import UserError, printable
from quadrant_lstm.files import read_yaml
from quadrant_lstm.run_folder import BEST, CONFIG, as_typed, find_run, unfinished


def read_config(file: Path, trust: Sequence[str] = ()) -> DictConfig:
    """Reads the config of a run folder, which may come from somebody else, and checks it.

    `trust` are modules whose classes it may name besides those of this project, torch.nn, torch.optim and Lightning.
    """
    cfg = read_yaml(file)
    if not isinstance(cfg, DictConfig) or "model" not in cfg.keys():  # noqa: SIM118  # `in cfg` resolves the value
        raise UserError(f"{file}: is not the config of a run; give a folder that train.py made.")
    try:
        check_values(cfg, trust, imported=("data", "model"))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return cfg


def find_trained_run(cfg: DictConfig, kinds: Mapping[str, Any]) -> Path:
    """Checks the config of a script that reads a run, whose keys besides `run` and `trust` have these kinds. Returns
    the folder that `run` names, and says on stderr if that run has not finished. Raises UserError if that folder's
    config is invalid.
    """
    check_reader_keys(cfg, kinds)
    folder = find_run(cfg.run, BEST)
    config = read_config(folder / CONFIG, trusted_modules(cfg.trust))
    if progress := unfinished(folder, config):
        print(printable(f"{as_typed(folder)}: {progress}"), file=sys.stderr)
    return folder


def check_reader_keys(cfg: DictConfig, kinds: Mapping[str, Any]) -> None:
    check_keys(resolve_interpolations(cfg, trusted=True), {"run": str | None, "trust": str | list[str] | None, **kinds})


def trusted_modules(trust: str | Sequence[str] | None) -> list[str]:
    """Returns the modules of the key `trust`: one, a list, or the text of a list as it is typed."""
    return [module.strip() for module in (trust.strip("[]").split(",") if isinstance(trust, str) else trust or [])]

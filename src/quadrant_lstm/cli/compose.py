"""Composes the config of train.py for another command, which runs in the project's root."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from quadrant_lstm.errors import UserError


def check_project_root(command: str) -> None:
    """Raises UserError if a command that needs conf/ runs elsewhere."""
    if not Path("conf/train.yaml").is_file():
        raise UserError(f"{command}: there is no conf/train.yaml here; run it in the project's root.")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Returns the checked config that train.py would have in the project's root."""
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        cfg = compose("train", list(overrides))
    from quadrant_lstm.config.check import check_without_torch  # imports torch

    check_without_torch(cfg)
    return cfg

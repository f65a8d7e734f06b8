"""Composes configs in the process of a test."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.scripts import ROOT


def composed_config(*overrides: str) -> DictConfig:
    """Returns the config of train.py with these overrides."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))

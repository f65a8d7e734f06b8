"""Composes configs in the process of a test."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from quadrant_lstm.compat import OF_COMPOSE
from tests.scripts import ROOT


def composed_config(*overrides: str) -> DictConfig:
    """Returns the config of train.py with these overrides."""
    with initialize_config_dir(str(ROOT / "conf"), **OF_COMPOSE):
        return compose("train", list(overrides))

"""Composes a config when imported, so that forked processes inherit Hydra's plugins and its parser."""

from pathlib import Path

from hydra import compose, initialize_config_dir

with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
    compose("train", overrides=["seed=1"])

"""Composes a config and reads MNIST when imported, so that forked processes inherit Hydra's plugins and the images."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from quadrant_lstm.data.sources import load_images

with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
    compose("train", overrides=["seed=1"])
load_images("mnist", None)

"""Composes a config and reads MNIST when imported, so that forked processes inherit Hydra's plugins and the images."""

from quadrant_lstm.data.images import load_images
from tests.configs import composed_config

composed_config("seed=1")
load_images("mnist", None)

"""Prepares the process that all scripts of the tests are forked from; imported last.

They inherit Hydra's plugins, the images of MNIST, and objects that no garbage collection walks through again.
"""

import gc

from quadrant_lstm.data.images import load_images
from tests.configs import composed_config

composed_config("seed=1")
load_images("mnist", None)
gc.collect()
gc.freeze()

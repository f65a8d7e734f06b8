"""Loads the images of a data set by its name.

mnist                          the bundled mnist.npz, all 70,000 images
MNIST, FashionMNIST, KMNIST    downloaded once to `root`, by torchvision
idx                            the folder `root` with MNIST's four file names, gzipped or not
"""

import functools
import hashlib
import io
from pathlib import Path

import numpy as np

from quadrant_lstm.data.idx import load_idx_folder
from quadrant_lstm.data.images import Images
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import expanded

BUNDLED = Path(__file__).with_name("mnist.npz")
BUNDLED_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"


@functools.lru_cache(maxsize=1)
def load_images(dataset: str, root: str | None) -> Images:
    """Raises UserError for a missing or damaged file. Jobs of a sweep share the arrays: do not modify them."""
    if dataset == "mnist":
        if root is not None:
            raise UserError(f"data.root: {root} is not read by data.dataset=mnist; add data=idx, or leave it out.")
        return load_bundled()
    if root is None:
        raise UserError(f"data.root: null, but data.dataset={dataset} is read from a folder; add data.root=FOLDER.")
    folder = expanded(root)
    if dataset != "idx":
        from quadrant_lstm.data.download import download  # imports torch

        folder = download(dataset, folder)
    return load_idx_folder(folder)


def load_bundled(file: Path = BUNDLED, sha256: str = BUNDLED_SHA256) -> Images:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; install the package again.") from error
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{file}: its SHA-256 is {found[:12]}..., not {sha256[:12]}...; install the package again.")
    with np.load(io.BytesIO(content)) as arrays:
        names = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
        return Images.without_channels(**{part: arrays[name] for part, name in names.items()})

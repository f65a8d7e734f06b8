"""Loads the images and labels of a data set by its name."""

import contextlib
import functools
import gzip
import hashlib
import io
import math
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import TensorDataset

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import expanded


class Images(NamedTuple):
    """Images are uint8 [images, channels, height, width], labels int64 [images]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def of_one_channel(cls, arrays: Iterable[np.ndarray]) -> "Images":
        """Adds a channel axis to images [images, height, width], and converts labels to int64."""
        return cls(*(array[:, None] if array.ndim == 3 else array.astype(np.int64) for array in arrays))

    @property
    def num_classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def datasets(self) -> tuple[TensorDataset, TensorDataset]:
        """Returns the training and the test images with their labels."""
        train_images, train_labels, test_images, test_labels = map(torch.from_numpy, self)
        return TensorDataset(train_images, train_labels), TensorDataset(test_images, test_labels)

    def sha256(self) -> str:
        """Returns the checksum of all pixels and labels, which does not depend on the file format."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


# Data sets by their names
#
# mnist                          the bundled mnist.npz, all 70,000 images
# MNIST, FashionMNIST, KMNIST    downloaded once to `root`, by torchvision
# idx                            the folder `root` with MNIST's four file names, gzipped or not


IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip


@functools.lru_cache(maxsize=1)
def load_images(dataset: str, root: str | None) -> Images:
    """Raises UserError for a missing or damaged file. Jobs of a sweep share the arrays: do not modify them."""
    if dataset == "mnist":
        if root is not None:
            raise UserError(f"data.root: {root} is not read by data.dataset=mnist; add data=idx, or leave it out.")
        with np.load(Path(__file__).with_name("mnist.npz")) as arrays:
            return Images.of_one_channel(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    if root is None:
        raise UserError(f"data.root: null, but data.dataset={dataset} is read from a folder; add data.root=FOLDER.")
    folder = expanded(root)
    if dataset != "idx":
        download(dataset, folder)
    return load_idx_folder(folder)


def download(dataset: str, folder: Path) -> None:
    """Downloads the files, whose MD5 torchvision checks, to a temporary folder, and renames it when all are complete. A
    lock makes processes that start together wait for the first.
    """
    import torchvision.datasets  # here, because its import takes a second

    dataset_class = getattr(torchvision.datasets, dataset)
    staging = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")), contextlib.redirect_stdout(io.StringIO()):
            shutil.rmtree(staging, ignore_errors=True)  # of a download that did not end
            if not folder.is_dir():
                os.replace(dataset_class(staging, download=True).raw_folder, folder)
                shutil.rmtree(staging)
            for name, md5 in dataset_class.resources:
                if (folder / name).exists() and hashlib.md5((folder / name).read_bytes()).hexdigest() != md5:
                    raise UserError(f"data.root: {folder / name} is not that of {dataset}; give another folder.")
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"data.root: {dataset} could not be downloaded from {' or '.join(dataset_class.mirrors)} into {folder} "
            f"({error}); connect to the internet, give another folder, or put {', '.join(IDX_FILES)} into it."
        ) from error


def load_idx_folder(folder: Path) -> Images:
    if not folder.is_dir():
        raise UserError(f"data.root: {folder} is not a folder; give one that holds {', '.join(IDX_FILES)}.")
    train_images, train_labels, test_images, test_labels = arrays = [read_idx(folder, name) for name in IDX_FILES]
    for name, images, labels in (IDX_FILES[0], train_images, train_labels), (IDX_FILES[2], test_images, test_labels):
        if len(images) != len(labels):
            raise UserError(f"{folder}: {len(labels)} labels for {len(images)} images of {name}; give one for each.")
    size, test_size = (" x ".join(map(str, images.shape[1:])) for images in (train_images, test_images))
    if size != test_size:
        raise UserError(f"{folder}: its test images are {test_size}, but training images {size}; make them equal.")
    highest, test_highest = train_labels.max(), test_labels.max()
    if train_labels.min() == highest:
        raise UserError(f"{folder}: every training label is {highest}; at least two classes are needed.")
    if test_highest > highest:
        rule = f"is out of range: the largest training label is {highest}"
        raise UserError(f"{folder}: test label {test_highest} {rule}; correct one of the two files.")
    return Images.of_one_channel(arrays)


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Reads an IDX file of bytes: 0x000008, the number of axes, the size of each axis (big-endian), then the data."""
    file = next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)
    if file is None:
        raise UserError(f"data.root: {folder} has no {name} or {name}.gz; put it there, or give another folder.")
    axes, opener = (3 if "idx3" in name else 1), (gzip.open if file.suffix == ".gz" else open)
    try:
        with opener(file, "rb") as stream:
            magic, expected = stream.read(4), bytes([0, 0, 8, axes])
            if magic != expected:
                rule = f"not 0x{expected.hex()} as IDX files of {'images' if axes == 3 else 'labels'} do"
                raise UserError(f"{file}: starts with 0x{magic.hex()}, {rule}; give an IDX file.")
            sizes = [int.from_bytes(stream.read(4)) for _ in range(axes)]
            num_bytes, shape, content = math.prod(sizes), " x ".join(map(str, sizes)), bytearray()
            # In pieces, as a damaged header may ask for more bytes than there is memory; and up to one byte more, as a
            # gzip file may unpack to much more
            while piece := stream.read(min(2**24, num_bytes + 1 - len(content))):
                content += piece
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}); download it again.") from error
    if len(content) != num_bytes:
        problem = "fewer" if len(content) < num_bytes else "more"
        rule = f"holds {problem} bytes than the {num_bytes:,} that {shape} needs"
        raise UserError(f"{file}: {rule}; it is truncated or damaged: download it again.")
    if num_bytes == 0:
        raise UserError(f"{file}: is empty ({shape}); give one with images and labels.")
    return np.frombuffer(content, np.uint8).reshape(sizes)

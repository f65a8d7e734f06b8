"""Loads the images and labels of a data set by its name, and says which of them are held out for validation."""

import contextlib
import functools
import gzip
import hashlib
import io
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import expanded
from quadrant_lstm.kinds import Grid

# Validation


def validation_range(total: int, held_out: int, fold: int | None, num_folds: int, key: str) -> tuple[int, int]:
    """Returns where the validation samples begin and end among the `total` shuffled training samples.

    They are the first `held_out`, which may be 0, or fold number `fold` of `num_folds`, which are as equal as possible.
    Raises UserError that names `key` if no sample would be left to train on, or if there is no such fold.
    """
    if fold is None:
        if held_out >= total:
            raise UserError(f"{key}: {held_out} of {total} training samples leave none to train on; write fewer.")
        return 0, held_out
    if fold >= num_folds:
        raise UserError(
            f"data.fold: {fold}, but data.num_folds={num_folds} makes folds 0 to {num_folds - 1}; write one."
        )
    if num_folds > total:
        raise UserError(f"data.num_folds: {num_folds}, but there are {total} training samples; write fewer.")
    return fold * total // num_folds, (fold + 1) * total // num_folds


# Images


class Images(NamedTuple):
    """Images are uint8 [images, channels, height, width], labels int64 [images]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def without_channels(
        cls, train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
    ) -> "Images":
        """Adds a channel axis to the images, and converts the labels to int64."""
        labels = (train_labels.astype(np.int64), test_labels.astype(np.int64))
        return cls(train_images[:, None], labels[0], test_images[:, None], labels[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def validation_range(self, validation_images: int, fold: int | None, num_folds: int) -> tuple[int, int]:
        return validation_range(len(self.train_images), validation_images, fold, num_folds, "data.validation_images")

    def check_grid(self, grid: Grid) -> None:
        """Raises UserError if the grid does not split the images into equal pieces."""
        _, height, width = self.image_shape
        if height % grid[0] or width % grid[1]:
            raise UserError(
                f"data.grid: {list(grid)} does not split images of {height} x {width} into equal pieces; write "
                "another, or pad or crop the images."
            )

    def check_canvas(self, canvas: Sequence[int]) -> None:
        """Raises UserError if the images are larger than the canvas, height and width."""
        _, height, width = self.image_shape
        if canvas[0] < height or canvas[1] < width:
            raise UserError(
                f"data.canvas: {list(canvas)} is smaller than the images of {height} x {width}; write at least "
                f"[{height},{width}]."
            )

    def sha256(self) -> str:
        """Returns the checksum of all pixels and labels, which does not depend on the file format."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


# Folders with MNIST's four IDX files, gzipped or not


IDX_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def load_idx_folder(folder: Path) -> Images:
    if not folder.is_dir():
        raise UserError(f"data.root: {folder} is not a folder; give one that holds {', '.join(IDX_FILES.values())}.")
    files = {part: find_idx_file(folder, name) for part, name in IDX_FILES.items()}
    arrays = {part: read_idx(file, axes=3 if part.endswith("images") else 1) for part, file in files.items()}
    for half in ("train", "test"):
        images, labels = arrays[f"{half}_images"], arrays[f"{half}_labels"]
        if len(images) != len(labels):
            raise UserError(
                f"{files[f'{half}_labels']}: {len(labels)} labels for the {len(images)} images of "
                f"{files[f'{half}_images'].name}; there must be one per image."
            )
    height, width = arrays["train_images"].shape[1:]
    test_height, test_width = arrays["test_images"].shape[1:]
    if (test_height, test_width) != (height, width):
        raise UserError(
            f"{files['test_images']}: images of {test_height} x {test_width}, but training images have "
            f"{height} x {width}; make them equal."
        )
    lowest, highest = int(arrays["train_labels"].min()), int(arrays["train_labels"].max())
    if lowest == highest:
        raise UserError(f"{files['train_labels']}: every label is {lowest}; at least two classes are needed.")
    if (test_highest := int(arrays["test_labels"].max())) > highest:
        raise UserError(
            f"{files['test_labels']}: label {test_highest} is out of range: the largest training label is {highest}; "
            "correct one of the two files."
        )
    return Images.without_channels(**arrays)


def find_idx_file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise UserError(f"data.root: {folder} has no {name} or {name}.gz; put it there, or give another folder.")


def read_idx(file: Path, axes: int) -> np.ndarray:
    """Reads an IDX file of bytes: 0x000008, the number of axes, the size of each axis (big-endian), then the data."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rb") as stream:
            header = stream.read(4 + 4 * axes)
            magic, expected = header[:4], bytes([0, 0, 8, axes])
            if magic != expected:
                raise UserError(
                    f"{file}: starts with 0x{magic.hex()}, not 0x{expected.hex()} as IDX files of bytes with "
                    f"{axes} {'axis' if axes == 1 else 'axes'} do; give an IDX file."
                )
            if len(header) < 4 + 4 * axes:
                raise EOFError("it ends within its header")
            sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4)]
            num_bytes, shape = math.prod(sizes), " x ".join(map(str, sizes))
            content = read_up_to(stream, num_bytes + 1)  # a gzip file may unpack to much more
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}); download it again.") from error
    if len(content) != num_bytes:
        more = "more than " if len(content) > num_bytes else ""
        raise UserError(
            f"{file}: holds {more}{min(len(content), num_bytes):,} bytes where {shape} needs {num_bytes:,}; it is "
            "truncated or damaged: download it again."
        )
    if num_bytes == 0:
        raise UserError(f"{file}: is empty ({shape}); give one with images and labels.")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def read_up_to(stream: Any, limit: int) -> bytearray:
    """Reads in pieces, as a damaged header may ask for more bytes than there is memory."""
    content = bytearray()
    while len(content) < limit and (piece := stream.read(min(2**24, limit - len(content)))):
        content += piece
    return content


# Downloads, by torchvision
#
# torchvision checks the MD5 of each file. Files are downloaded to a temporary folder next to the final one, which is
# renamed when all are complete. A lock makes processes that start together wait for the first, and what a killed
# process left behind is downloaded again.


def download(dataset: str, folder: Path) -> Path:
    import torchvision.datasets  # here, because its import takes a second

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            staging = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(staging, ignore_errors=True)
            if not folder.is_dir():
                fetch(getattr(torchvision.datasets, dataset), staging, folder)
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be written ({error.strerror}); give another folder.") from error
    return folder


def fetch(dataset_class: Any, staging: Path, folder: Path) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            files = Path(dataset_class(staging, download=True).raw_folder)
        os.replace(files, folder)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"data.dataset: {dataset_class.__name__} could not be downloaded from "
            f"{' or '.join(dataset_class.mirrors)} ({error}); "
            f"connect to the internet, or put {', '.join(IDX_FILES.values())} into {folder}."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# Data sets by their names
#
# mnist                          the bundled mnist.npz, all 70,000 images
# MNIST, FashionMNIST, KMNIST    downloaded once to `root`, by torchvision
# idx                            the folder `root` with MNIST's four file names, gzipped or not


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
        folder = download(dataset, folder)
    return load_idx_folder(folder)


def load_bundled(file: Path = BUNDLED, sha256: str = BUNDLED_SHA256) -> Images:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; install the package again.") from error
    if (checksum := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{file}: its SHA-256 is {checksum[:12]}..., not {sha256[:12]}...; install the package again.")
    with np.load(io.BytesIO(content)) as arrays:
        names = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
        return Images.without_channels(**{part: arrays[name] for part, name in names.items()})

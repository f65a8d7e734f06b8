"""A data set's name, or a folder of IDX files -> checked uint8 images and labels. numpy only, so that a broken folder
is refused before torch is imported.

    mnist                       the bundled mnist.npz, all 70,000 images
    FashionMNIST, KMNIST, ...   any set of torchvision's in MNIST's format, downloaded once to `root`
    idx                         a folder with MNIST's four file names, gzipped or not
"""

import functools
import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quadrant_lstm.errors import UserError

BUNDLED = Path(__file__).with_name("mnist.npz")
BUNDLED_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
IDX_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


class Images(NamedTuple):
    """Images are uint8 [number, channels, height, width], labels int64 [number]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def check_split(self, validation_images: int) -> None:
        if validation_images >= len(self.train_images):
            raise UserError(
                f"data.validation_images: {validation_images} of {len(self.train_images)} training images leave none "
                "to train on; write less."
            )

    def sha256(self) -> str:
        """One checksum over all pixels and labels, whatever files they came from."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def load_images(dataset: str, root: str | None) -> Images:
    """Raises UserError for a folder or file that is missing or broken. A sweep's jobs share one copy: do not write."""
    if dataset == "mnist":
        return load_bundled()
    if root is None:
        raise UserError(f"data.root: null, but data.dataset={dataset} is read from a folder; add data.root=FOLDER.")
    folder = Path(root).expanduser()
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
        return Images(
            arrays["x_train"][:, None],
            arrays["y_train"].astype(np.int64),
            arrays["x_test"][:, None],
            arrays["y_test"].astype(np.int64),
        )


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
                f"{files[f'{half}_images'].name}; there must be one an image."
            )
    height, width = arrays["train_images"].shape[1:]
    if height % 2 or width % 2:
        raise UserError(
            f"{files['train_images']}: images of {height} x {width}; quadrants need an even height and width: "
            "pad or crop the images."
        )
    if arrays["test_images"].shape[1:] != (height, width):
        test_height, test_width = arrays["test_images"].shape[1:]
        raise UserError(
            f"{files['test_images']}: images of {test_height} x {test_width}, but those of training are "
            f"{height} x {width}; make them equal."
        )
    lowest, highest = int(arrays["train_labels"].min()), int(arrays["train_labels"].max())
    if lowest == highest:
        raise UserError(
            f"{files['train_labels']}: every label is {lowest}; a classifier needs images of at least two classes."
        )
    if (wrong := int(arrays["test_labels"].max())) > highest:
        raise UserError(
            f"{files['test_labels']}: label {wrong} is out of range: training's labels end at {highest}; "
            "correct one of the two files."
        )
    return Images(
        arrays["train_images"][:, None],
        arrays["train_labels"].astype(np.int64),
        arrays["test_images"][:, None],
        arrays["test_labels"].astype(np.int64),
    )


def find_idx_file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise UserError(f"data.root: {folder} has no {name} or {name}.gz; put it there, or give another folder.")


def read_idx(file: Path, axes: int) -> np.ndarray:
    """An IDX file of bytes: the magic number 0x08 and the number of axes, the size of each axis (big-endian), data."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rb") as opened:
            header = opened.read(4 + 4 * axes)
            magic, expected = header[:4], bytes([0, 0, 8, axes])
            if magic != expected:
                raise UserError(
                    f"{file}: starts with 0x{magic.hex()}, not 0x{expected.hex()} as IDX files of bytes with "
                    f"{axes} {'axis' if axes == 1 else 'axes'} do; give an IDX file."
                )
            if len(header) < 4 + 4 * axes:
                raise EOFError("it ends in its header")
            sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4)]
            content = read_up_to(opened, math.prod(sizes) + 1)  # no more, whatever it unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({error}); fetch it again.") from error
    if len(content) != math.prod(sizes):
        shape = " x ".join(map(str, sizes))
        more = "more than " if len(content) > math.prod(sizes) else ""
        raise UserError(
            f"{file}: holds {more}{min(len(content), math.prod(sizes)):,} bytes where {shape} needs "
            f"{math.prod(sizes):,}; it was cut short or damaged: fetch it again."
        )
    if math.prod(sizes) == 0:
        raise UserError(f"{file}: holds nothing ({' x '.join(map(str, sizes))}); give one with images and labels.")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def read_up_to(opened: Any, limit: int) -> bytearray:
    """A piece at a time: a header may promise more than there is memory."""
    content = bytearray()
    while len(content) < limit and (piece := opened.read(min(2**24, limit - len(content)))):
        content += piece
    return content

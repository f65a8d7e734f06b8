"""Reads and checks a folder with MNIST's four IDX files, gzipped or not.

It uses numpy only, so that a damaged folder is refused before torch is imported.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from quadrant_lstm.data.images import Images
from quadrant_lstm.errors import UserError

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

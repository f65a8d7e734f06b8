"""Tests that files which promise or unpack to too much are refused with little time and memory."""

import gzip
import resource
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quadrant_lstm.config.check import read_config
from quadrant_lstm.data.image_reader import read_image
from quadrant_lstm.data.images import load_idx_folder
from quadrant_lstm.errors import UserError
from tests.folders import write_idx_folder
from tests.malformed import MALFORMED
from tests.scripts import call_unchecked

SECONDS, MEGABYTES = 5, 100
IMAGES = "train-images-idx3-ubyte"


def idx_header(*sizes: int) -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def write_idx_bomb(folder: Path) -> None:
    """Writes images of a megabyte, which unpack to 150."""
    write_idx_folder(folder)
    (folder / IMAGES).unlink()
    with gzip.open(folder / f"{IMAGES}.gz", "wb", compresslevel=1) as packed:
        packed.write(idx_header(200, 8, 8))
        for _ in range(150):
            packed.write(bytes(2**20))


def write_png_bomb(file: Path, width: int, height: int) -> None:
    """Writes a PNG whose header states that size but which contains only one row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(width + 1))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def check_refusal(read: Callable[[Path], Any], path: Path) -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=path.name):
        read(path)
    assert time.monotonic() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def test_images_are_refused_before_they_are_unpacked(tmp_path):
    write_idx_bomb(tmp_path / "packed")
    promised = write_idx_folder(tmp_path / "promised")
    (promised / IMAGES).write_bytes(idx_header(*[2**32 - 1] * 3))
    for folder in (promised, tmp_path / "packed"):
        call_unchecked(check_refusal, load_idx_folder, folder)
    for width, height in ((60_000, 60_000), (10_000, 9_000)):
        write_png_bomb(tmp_path / "image.png", width, height)
        call_unchecked(check_refusal, partial(read_image, image_shape=(1, 28, 28), invert=None), tmp_path / "image.png")


@pytest.mark.parametrize("name", ["an alias bomb", "an interpolation bomb"])
def test_a_config_is_refused_before_it_is_expanded(name, finished_run, tmp_path):
    config = Path(shutil.copy(finished_run / ".hydra/config.yaml", tmp_path))
    MALFORMED[name][0](config)
    call_unchecked(check_refusal, read_config, config)

"""Tests that input which promises or unpacks to too much costs one line, little time, little memory and no files.

Each case is a process of its own. What else is malformed is tested beside the code that refuses it.
"""

import gzip
import io
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.folders import write_idx_folder
from tests.malformed import MALFORMED
from tests.scripts import ROOT

MEGABYTES = 500
IMAGES = "train-images-idx3-ubyte"
# A small process between pytest and the measured process, because a child's peak memory starts at its parent's.
MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def idx_header(*sizes: int) -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def zeros_gz(header: bytes, megabytes: int) -> bytes:
    """Returns a few kilobytes that unpack to so many megabytes."""
    file = io.BytesIO()
    with gzip.open(file, "wb") as packed:
        packed.write(header)
        for _ in range(megabytes):
            packed.write(bytes(2**20))
    return file.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """Returns a PNG whose header states that size but which contains only one row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


Write = Callable[[Path], object]


def planted(file: str, content: bytes) -> Write:
    return lambda cwd: (cwd / file).write_bytes(content)


def packed_images(cwd: Path) -> None:
    (cwd / "tiny" / IMAGES).unlink()
    (cwd / f"tiny/{IMAGES}.gz").write_bytes(zeros_gz(idx_header(200, 8, 8), 600))


TRAIN, EVALUATE = ("train.py", "data=idx", "data.root=tiny"), ("evaluate.py", "run=run")
PREDICT = ("predict.py", "run=run", "images=image.png")
CASES: dict[str, tuple[Write, tuple[str, ...], str]] = {
    "images that promise 2**96 bytes": (planted(f"tiny/{IMAGES}", idx_header(*[2**32 - 1] * 3)), TRAIN, IMAGES),
    "a gzip bomb": (packed_images, TRAIN, IMAGES),
    "a picture of 3,600 megapixels": (planted("image.png", png_bomb(60_000, 60_000)), PREDICT, "image.png"),
    "a picture of 90 megapixels": (planted("image.png", png_bomb(10_000, 9_000)), PREDICT, "image.png"),
    "deeply nested YAML": (planted("run/.hydra/config.yaml", b"model: " + b"[" * 5000), EVALUATE, "cannot be read ("),
}
for name in ("an alias bomb", "an interpolation bomb"):
    change, message = MALFORMED[name]
    CASES[name] = (lambda cwd, change=change: change(cwd / "run/.hydra/config.yaml"), EVALUATE, message)


def measure(command: tuple[str, ...], cwd: Path) -> tuple[int, str, float, float]:
    """Runs a command and returns its exit status, stderr, seconds and peak megabytes."""
    measuring = [sys.executable, "-S", "-c", MEASURE, sys.executable, ROOT / command[0], *command[1:]]
    start = time.monotonic()
    done = subprocess.run(measuring, cwd=cwd, capture_output=True, text=True)
    seconds = time.monotonic() - start
    status, kilobytes = map(int, done.stdout.splitlines()[-1].split())
    return status, done.stderr, seconds, kilobytes / 1024


@pytest.mark.reliability
@pytest.mark.parametrize("name", CASES)
def test_what_would_take_too_much_costs_one_line(name, finished_run, tmp_path, record_figure):
    write, command, word = CASES[name]
    write_idx_folder(tmp_path / "tiny")
    shutil.copytree(finished_run, tmp_path / "run")
    _, errors, valid, _ = measure(EVALUATE, tmp_path)
    assert not errors
    write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, errors, seconds, megabytes = measure(command, tmp_path)
    record_figure(f"{name}: {seconds:.1f} s, where a valid command takes {valid:.1f} s, and {megabytes:.0f} MB")
    num_lines = 2 if command == PREDICT else 1  # it names each file, and counts them at the end
    assert (status, errors.count("\n")) == (2, num_lines) and word in errors
    assert seconds < 2 * valid and megabytes < MEGABYTES
    assert sorted(tmp_path.rglob("*")) == before

"""Tests that malformed input of every kind costs one line that names it, exit status 2, little time and little memory.

Each case is a process of its own.
"""

import gzip
import io
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.folders import write_idx, write_idx_folder
from tests.malformed import MALFORMED, Touch
from tests.scripts import ROOT

MEGABYTES = 500
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


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


DATA: dict[str, Callable[[Path], object]] = {
    f"{IMAGES}: empty": lambda data: (data / IMAGES).write_bytes(b""),
    f"{IMAGES}: text": lambda data: (data / IMAGES).write_text("these are no images"),
    f"{IMAGES}: half a header": lambda data: (data / IMAGES).write_bytes(idx_header(200, 8, 8)[:7]),
    f"{IMAGES}: no pixels": lambda data: (data / IMAGES).write_bytes(idx_header(200, 8, 8)),
    f"{IMAGES}: cut": lambda data: (data / IMAGES).write_bytes((data / IMAGES).read_bytes()[:-9]),
    f"{IMAGES}: too long": lambda data: (data / IMAGES).write_bytes((data / IMAGES).read_bytes() + b"more"),
    f"{IMAGES}: labels": lambda data: shutil.copy(data / LABELS, data / IMAGES),
    f"{IMAGES}: floats": lambda data: (data / IMAGES).write_bytes(b"\0\0\x0d\3" + bytes(12)),
    f"{IMAGES}: promises 2**96 bytes": lambda data: (data / IMAGES).write_bytes(idx_header(*[2**32 - 1] * 3)),
    f"{IMAGES}: none": lambda data: write_idx(data / IMAGES, np.zeros((0, 8, 8))),
    f"{IMAGES}: odd": lambda data: write_idx(data / IMAGES, np.zeros((200, 9, 8))),
    f"{IMAGES}: a folder": lambda data: ((data / IMAGES).unlink(), (data / IMAGES).mkdir()),
    f"{IMAGES}: missing": lambda data: (data / IMAGES).unlink(),
    f"{IMAGES}: no gzip": lambda data: (data / IMAGES).rename(data / f"{IMAGES}.gz"),
    f"{IMAGES}: a gzip bomb": lambda data: (
        (data / f"{IMAGES}.gz").write_bytes(zeros_gz(idx_header(200, 8, 8), 600)), (data / IMAGES).unlink()),
    f"{LABELS}: too few": lambda data: write_idx(data / LABELS, np.zeros(199)),
    f"{LABELS}: images": lambda data: shutil.copy(data / IMAGES, data / LABELS),
    "t10k-images-idx3-ubyte: smaller": lambda data: write_idx(data / "t10k-images-idx3-ubyte", np.zeros((70, 4, 4))),
    "t10k-labels-idx1-ubyte: unknown": lambda data: write_idx(data / "t10k-labels-idx1-ubyte", np.full(70, 200)),
}  # fmt: skip


def zip_pickle(file: Path) -> None:
    torch.save(Touch(), file)


def tar_pickle(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Touch())
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("weights"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "a flipped byte": lambda file: file.write_bytes(file.read_bytes()[:-300] + b"?" + file.read_bytes()[-299:]),
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Touch())),
    "a pickle in torch's archive": zip_pickle,
    "a pickle in torch's old archive": tar_pickle,
    "somebody's weights": lambda file: torch.save({"state_dict": {"a": torch.ones(1)}}, file),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


def write_png_bomb(file: Path, width: int, height: int) -> None:
    """Writes a PNG whose header states that size but which contains only one row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(width + 1))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def png(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(file, "png", **options)
    return file.getvalue()


IMAGE_FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("a seven"),
    "cut": lambda file: file.write_bytes(png()[:45]),
    "a broken chunk": lambda file: file.write_bytes(png().replace(b"IDAT", b"IDXX")),
    "a bomb": lambda file: write_png_bomb(file, 60_000, 60_000),
    "a smaller bomb": lambda file: write_png_bomb(file, 10_000, 9_000),
    "a page": lambda file: file.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "an array": lambda file: np.save(file.open("wb"), np.zeros(3)),
    "a folder without images": lambda file: file.mkdir(),
}


def measure(command: tuple[str, ...], cwd: Path) -> tuple[int, str, float, float]:
    """Runs a command and returns its exit status, stderr, seconds and peak megabytes."""
    measuring = [sys.executable, "-S", "-c", MEASURE, sys.executable, ROOT / command[0], *command[1:]]
    start = time.monotonic()
    done = subprocess.run(measuring, cwd=cwd, capture_output=True, text=True)
    seconds = time.monotonic() - start
    status, kilobytes = map(int, done.stdout.splitlines()[-1].split())
    return status, done.stderr, seconds, kilobytes / 1024


def prepare(finished_run: Path, folder: Path) -> dict[str, tuple[tuple[str, ...], str, Path]]:
    """Returns by name the command of each case, a part of the line it must print, and its working directory."""
    cases = {}

    def new_cwd(kind: str) -> Path:
        cwd = folder / f"{kind}-{len(cases)}"
        cwd.mkdir()
        return cwd

    for name, break_it in DATA.items():
        cwd = new_cwd("data")
        break_it(write_idx_folder(cwd / "tiny"))
        cases[f"data: {name}"] = (("train.py", "data=idx", "data.root=tiny"), name.partition(":")[0], cwd)
    checkpoints = {name: (change, "best.ckpt") for name, change in CHECKPOINTS.items()}
    for kind, file, broken in (
        ("checkpoint", "checkpoints/best.ckpt", checkpoints), ("config", ".hydra/config.yaml", MALFORMED),
    ):  # fmt: skip
        for name, (change, message) in broken.items():
            cwd = new_cwd(kind)
            shutil.copytree(finished_run, cwd / "run")
            change(cwd / "run" / file)
            cases[f"{kind}: {name}"] = (("evaluate.py", "run=run"), message, cwd)
    for name, break_it in IMAGE_FILES.items():
        cwd = new_cwd("image")
        break_it(cwd / "image.png")
        cases[f"image file: {name}"] = (("predict.py", f"run={finished_run}", "images=image.png"), "image.png", cwd)
    return cases


@pytest.mark.reliability
@pytest.mark.timeout(1800)
def test_malformed_input_costs_one_line(finished_run, tmp_path, record_figure):
    _, errors, valid, _ = measure(("evaluate.py", f"run={finished_run}"), tmp_path)
    assert not errors
    cases, longest, largest, wrong = prepare(finished_run, tmp_path), 0.0, 0.0, []
    for name, (command, word, cwd) in cases.items():
        before = sorted(cwd.rglob("*"))
        status, errors, seconds, megabytes = measure(command, cwd)
        longest, largest = max(longest, seconds), max(largest, megabytes)
        slow, large = seconds > 2 * valid, megabytes > MEGABYTES
        if status != 2 or errors.count("\n") != 1 or word not in errors or slow or large:
            wrong.append(f"{name}: status {status}, {seconds:.1f} s, {megabytes:.0f} MB: {errors}")
        if sorted(cwd.rglob("*")) != before:
            wrong.append(f"{name}: left files")
    figures = f"at most {longest:.1f} s, where a valid command takes {valid:.1f} s, and {largest:.0f} MB"
    record_figure(f"{len(cases)} malformed inputs: {len(wrong)} wrong; {figures}")
    assert not wrong, "\n".join(wrong)

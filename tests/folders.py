"""Writes data sets small enough to train on in a second, and finds the folders, checkpoints and processes that a script
leaves.
"""

import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

TINY = (
    "~trainer.callbacks.dashboard",  # its pictures take longer than the training
    "data.validation_images=40",
    "data.batch_size=16",
    "model.filters=[4]",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=5",
)


def write_idx(file: Path, array: np.ndarray) -> None:
    sizes = struct.pack(f">{array.ndim}i", *array.shape)
    file.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def write_idx_folder(folder: Path, train: int = 200, test: int = 70, size: int = 8, classes: int = 3) -> Path:
    """Writes noise images whose brightness depends on their class, in MNIST's four files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % classes
        images = random.integers(0, 60, (count, size, size)) + 60 * labels[:, None, None]
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    return folder


def tiny_data(cwd: Path, **sizes: int) -> tuple[str, str]:
    """Writes images to cwd/tiny as write_idx_folder does, and returns the arguments that train on them."""
    return "data=idx", f"data.root={write_idx_folder(cwd / 'tiny', **sizes)}"


def run_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs").glob("2*/*")
    return folder


def checkpoint_of(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)


def assert_same_weights(run: Path, other: Path) -> None:
    """Compares the last epochs of two runs."""
    one, two = (checkpoint_of(each)["state_dict"] for each in (run, other))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def remaining_processes(cwd: Path) -> list[str]:
    """Returns the command lines of the processes whose working directory is that folder. One that ends has none."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == cwd:
                commands.append((process / "cmdline").read_text())
        except OSError:
            continue
    return [command for command in commands if command]


def wait_until_no_process_remains(cwd: Path) -> None:
    end = time.monotonic() + 20
    while remaining := remaining_processes(cwd):
        assert time.monotonic() < end, remaining
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Returns the process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sweep_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs/sweeps").glob("*/*")
    return folder

"""What several tests need: a data set small enough to train on in a second, and runs on it."""

import os
import struct
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

import numpy as np
import pytest

from tests.scripts import script

TINY = (
    "~trainer.callbacks.dashboard",  # whose pictures take longer than the training
    "data.validation_images=40",
    "data.batch_size=16",
    "model.filters=[4]",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=5",
)


@pytest.fixture
def record_figure(record_property):
    """A test's figure: pytest ends with a list of them."""

    def record(figure: str) -> None:
        record_property("figure", figure)

    return record


def pytest_terminal_summary(terminalreporter):
    """The figures that tests recorded with record_figure."""
    figures = [
        text
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.line("\n".join(figures))


def write_idx(file: Path, array: np.ndarray) -> None:
    sizes = struct.pack(f">{array.ndim}i", *array.shape)
    file.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def write_idx_folder(folder: Path, train: int = 200, test: int = 70, size: int = 8, classes: int = 3) -> Path:
    """Noise whose brightness tells its class, in MNIST's four files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % classes
        images = random.integers(0, 60, (count, size, size)) + 60 * labels[:, None, None]
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    return write_idx_folder(tmp_path / "tiny")


def run_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs").glob("2*/*")
    return folder


def left_behind(cwd: Path) -> list[str]:
    """Processes that still work in that folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == cwd:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the tiny data set, made by train.py; tests read it and change nothing."""
    cwd = tmp_path_factory.mktemp("finished")
    data = write_idx_folder(cwd / "tiny")
    done = script("train.py", "data=idx", f"data.root={data}", *TINY[1:], cwd=cwd)
    assert done.returncode == 0, done.stderr
    (cwd / "stdout").write_text(done.stdout)
    return run_folder(cwd)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a few batches of MNIST."""
    cwd = tmp_path_factory.mktemp("smoke")
    done = script("train.py", "trainer=smoke", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return run_folder(cwd)

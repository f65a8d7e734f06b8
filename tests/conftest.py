"""Provides fixtures for several tests: a data set small enough to train on in a second, and runs on it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from PIL import Image

from tests.folders import TINY, tiny_data, write_idx_folder
from tests.scripts import succeeds, trained_once

OmegaConf.register_new_resolver("new_folder", os.mkdir)  # an interpolation with an effect, which must not be resolved


@pytest.fixture
def record_figure(record_property):
    """Returns a function that records a measured figure; pytest prints them at the end."""

    def record(figure: str) -> None:
        record_property("figure", figure)

    return record


def pytest_terminal_summary(terminalreporter):
    """Prints the figures that tests recorded with record_figure."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    figures = [text for report in calls for name, text in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.line("\n".join(figures))


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    return write_idx_folder(tmp_path / "tiny")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of all workers of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def finished_run(shared_folder: Path) -> Path:
    """Trains on the tiny data set and returns the run folder, which tests must not change."""
    return trained_once(shared_folder / "finished", lambda cwd: (*tiny_data(cwd), *TINY[1:]))


@pytest.fixture
def tiny(finished_run: Path):
    """Returns the images of the finished run."""
    from quadrant_lstm.data.images import load_idx_folder

    return load_idx_folder(finished_run.parents[2] / "tiny")


@pytest.fixture
def files(tiny, tmp_path: Path) -> list[Path]:
    """Returns PNG files of five of its test images and of a blank one."""
    (tmp_path / "images").mkdir()
    for number, image in enumerate(tiny.test_images[:5, 0]):
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
    Image.new("L", (8, 8)).save(tmp_path / "images/blank.png")
    return sorted((tmp_path / "images").iterdir())


@pytest.fixture
def predictions_of(tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    """Returns a function that predicts files, or the test samples, and returns the rows of the CSV file."""
    from quadrant_lstm.files import read_csv
    from quadrant_lstm.run.predict import predict

    def rows(run: Path, images: object = "test", **options: Any) -> list[dict[str, str]]:
        predict(run, str(images), None, str(tmp_path / "predictions.csv"), **options)
        return read_csv(tmp_path / "predictions.csv")

    return rows


@pytest.fixture(scope="session")
def exported(finished_run: Path, shared_folder: Path) -> Callable[[str], Path]:
    """Returns a function that exports the finished run to the file of a format, unless a worker has done it."""

    def export(format: str) -> Path:
        from quadrant_lstm.run.export import EXPORTED, export

        file = shared_folder / f"exported_{EXPORTED[format]}"
        with FileLock(f"{file}.lock"):
            return file if file.exists() else export(finished_run, format, output=str(file))

    return export


@pytest.fixture(scope="session")
def smoke_run(shared_folder: Path) -> Path:
    """Trains on a few batches of MNIST and returns the run folder, which tests must not change."""
    return trained_once(shared_folder / "smoke", lambda _: ("trainer=smoke",))


@pytest.fixture(scope="session")
def clip_run(shared_folder: Path) -> Path:
    """Trains on clips of moving digits and returns the run folder, which tests must not change."""
    words = ("data=moving_digits", "data.dataset=idx", "data.label=motion", "data.canvas=[12,10]", "data.num_frames=7")
    short = (*TINY[1:], "trainer.max_epochs=1")
    return trained_once(shared_folder / "clips", lambda cwd: (*words, tiny_data(cwd)[1], *short))


VIDEOS = {
    "colour": ("data.sampling=uniform", "data.fps=10", "data.fit=crop", "model.filters=[4]"),
    "grey": (
        "data.channels=1",
        "data.frame_step=2",
        "model=join",
        "model.encoder.filters=[4]",
        "model/recurrent=concat",
    ),
}  # how videos are read by each run on them


@pytest.fixture(scope="session")
def video_run(shared_folder: Path) -> Callable[[str], Path]:
    """Returns a function that trains on the videos of a folder, which it writes, and returns the run folder."""
    pytest.importorskip("av", reason="needs PyAV")

    def train(kind: str) -> Path:
        with FileLock(f"{shared_folder / 'videos'}.lock"):
            from tests.clips import write_video_folder  # here, because jaxtyping has to see the package first

            root = write_video_folder(shared_folder / "videos")
        words = ("data=clips", f"data.root={root}", "data.size=[12,16]", "data.num_frames=4", "data.test_windows=2")
        options = ("data.layout=THWC", "data.num_workers=0", "~trainer.callbacks.dashboard", "trainer.max_epochs=1")
        return trained_once(shared_folder / f"videos_{kind}", lambda _: (*words, *VIDEOS[kind], *options))

    return train


@pytest.fixture(scope="session")
def exported_videos(video_run: Callable[[str], Path], shared_folder: Path) -> Callable[[str], Path]:
    """Returns a function that exports such a run as ONNX."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")

    def export(kind: str) -> Path:
        file = shared_folder / f"videos_{kind}.onnx"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                succeeds("export.py", f"run={video_run(kind)}", f"output={file}", cwd=shared_folder)
        return file

    return export

"""Tests the loggers for Weights & Biases, MLflow and CSV with the real packages, without a network."""

import csv
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hydra.utils import instantiate
from lightning.pytorch.loggers import MLFlowLogger

from quadrant_lstm.dashboard.loggers import command_to_view, logger_arguments, start_tracking
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import TINY, run_folder, tiny_data
from tests.scripts import FORKSERVER, Script, script

pytest.importorskip("wandb", reason='needs pip install -e ".[trackers]"')
pytest.importorskip("mlflow", reason='needs pip install -e ".[trackers]"')

WITH_PICTURES = [option for option in TINY if option != "~trainer.callbacks.dashboard"]
EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


def train(cwd, *options):
    done = script("train.py", *tiny_data(cwd), *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done


@pytest.fixture(autouse=True)
def _tracking_uri():
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, for processes that a test starts later


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Trains with all loggers and with the dashboard, and resumes for one more epoch."""
    cwd = tmp_path_factory.mktemp("tracked")
    loggers = "trainer/logger@trainer.logger=[tensorboard,csv,wandb,mlflow]"
    printed = train(cwd, *WITH_PICTURES, loggers, "model.dropout=0.5").stdout
    ids = json.loads((run_folder(cwd) / "trackers.json").read_text())
    resumed = script("train.py", "run=latest", "trainer.max_epochs=4", cwd=cwd)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run_folder(cwd) / "trackers.json").read_text()) == ids
    return cwd, printed, ids


def query(cwd, sql, *values):
    with closing(sqlite3.connect(cwd / "outputs/mlflow.db")) as database:
        return database.execute(sql, values).fetchall()


def test_mlflow_has_each_epoch_of_a_resumed_run_once(tracked):
    cwd, _, ids = tracked
    assert query(cwd, "select run_uuid, status from runs") == [(ids["mlflow"], "FINISHED")]
    rows = read_rows(run_folder(cwd) / "metrics.csv")
    assert len(rows) == 4
    for name in EPOCH_METRICS:
        values = [value for (value,) in query(cwd, "select value from metrics where key = ? order by step", name)]
        assert values == pytest.approx([float(row[name]) for row in rows], abs=1e-6)


def test_mlflow_has_the_config_the_results_and_the_pictures(tracked):
    cwd, _, ids = tracked
    assert query(cwd, "select value from params where key = 'model/dropout'") == [("0.5",)]
    results = read_results(run_folder(cwd))
    tested = query(cwd, "select value from metrics where key = 'test/accuracy' order by step")
    assert tested[-1][0] == pytest.approx(results["test/accuracy"])
    assert (cwd / "outputs/mlflow" / ids["mlflow"] / "artifacts/test/confusion.png").exists()


def test_wandb_continues_a_resumed_run_under_the_same_id(tracked):
    cwd, _, ids = tracked
    files = sorted((run_folder(cwd) / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == 2 * [f"run-{ids['wandb']}.wandb"]
    first, second = (file.read_bytes() for file in files)
    for words in (b"val/accuracy", b"train/batch_loss", b"test/accuracy", b"trainer/global_step"):
        assert words in first and words in second, words
    assert list((run_folder(cwd) / "wandb").glob("*/files/media/images/test/confusion_*.png"))


def test_csv_has_the_points_within_epochs_too(tracked):
    cwd, _, _ = tracked
    with (run_folder(cwd) / "csv/version_0/metrics.csv").open() as opened:
        points = list(csv.DictReader(opened))
    steps = [int(point["step"]) for point in points if point["train/batch_loss"]]
    assert steps == [*range(0, 30, 5)]
    epochs = [float(point["val/accuracy"]) for point in points if point["val/accuracy"]]
    rows = read_rows(run_folder(cwd) / "metrics.csv")[:3]  # the fourth epoch, of the resumed run, is in version_1
    assert epochs == pytest.approx([float(row["val/accuracy"]) for row in rows], abs=1e-6)


def test_the_summary_tells_how_to_look(tracked):
    cwd, printed, _ = tracked
    commands = [line.split(maxsplit=1)[1] for line in printed.splitlines() if line.startswith("dashboard ")]
    assert commands[0] == "tensorboard --logdir outputs"
    assert commands[1] == f"wandb sync {run_folder(cwd).relative_to(cwd)}/wandb/offline-run-*"
    assert commands[2] == "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db"


def test_without_loggers_nothing_is_written_but_the_run(tmp_path):
    printed = train(tmp_path, *TINY, "trainer.logger=false").stdout
    assert "dashboard" not in printed
    assert {file.name for file in run_folder(tmp_path).iterdir()} == {
        *(".hydra", ".lock", "checkpoints", "metrics.csv", "provenance.json", "results.json", "train.log")
    }


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path):
    options = (f"trainer/logger={package}", "trainer=smoke")
    done = Script("train.py", *options, cwd=tmp_path, before=f"import sys; sys.modules[{package!r}] = None").wait()
    assert done.returncode == 2
    assert done.stderr.startswith(f"trainer.logger.{package}: needs {package}, which is not installed; install it with")
    assert '".[trackers]"' in done.stderr


def test_a_tracked_run_that_mlflow_does_not_know_is_one_line(tmp_path):
    train(tmp_path, *TINY, "trainer/logger=mlflow")
    (tmp_path / "outputs/mlflow.db").unlink()
    resumed = script("train.py", "run=latest", "trainer.max_epochs=4", cwd=tmp_path)
    assert resumed.returncode == 2
    assert len(resumed.stderr.splitlines()) == 1
    assert f"or delete {run_folder(tmp_path).relative_to(tmp_path)}/trackers.json to track a new run" in resumed.stderr


def start_mlflow(folder: Path, uri: str | None = None) -> MLFlowLogger:
    node = {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "experiment_name": "together", "tracking_uri": uri}
    logger = instantiate(logger_arguments(node, folder))
    start_tracking(logger, {"seed": 1}, folder, 0)
    return logger


def test_mlflow_uses_the_database_of_its_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    logger = start_mlflow(tmp_path)
    assert (tmp_path / "other.db").exists() and not (tmp_path / "outputs/mlflow.db").exists()
    assert command_to_view(logger, tmp_path) == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/other.db"


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_file_of_ids_is_one_line(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trackers.json").write_text(content)
    with pytest.raises(UserError, match="trackers.json: .* restore or delete"):
        start_mlflow(tmp_path)


def test_a_file_that_is_no_database_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.db").write_text("no database" * 100)
    with pytest.raises(UserError, match="trainer.logger.mlflow: .*; correct its tracking_uri"):
        start_mlflow(tmp_path, f"sqlite:///{tmp_path}/other.db")


def start_in_own_folder(folder: Path) -> None:
    os.chdir(folder.parent)
    folder.mkdir()
    start_mlflow(folder)


def test_jobs_that_start_at_once_share_one_experiment(tmp_path):
    jobs = [FORKSERVER.Process(target=start_in_own_folder, args=(tmp_path / str(number),)) for number in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(100)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert query(tmp_path, "select count(*) from runs") == [(2,)]
    assert query(tmp_path, "select count(*) from experiments where name = 'together'") == [(1,)]


def test_two_processes_track_one_run(tmp_path):
    train(tmp_path, *TINY, "trainer/logger=[wandb,mlflow]", "trainer.devices=2", "trainer.accelerator=cpu")
    assert query(tmp_path, "select count(*) from runs") == [(1,)]
    (file,) = (run_folder(tmp_path) / "wandb").glob("offline-run-*/*.wandb")
    assert b"val/accuracy" in file.read_bytes()
    assert query(tmp_path, "select count(*) from metrics where key = 'val/accuracy'") == [(3,)]

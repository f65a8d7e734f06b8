"""Tests the loggers for Weights & Biases, MLflow and CSV with the real packages, without a network."""

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hydra.utils import instantiate
from lightning.pytorch.loggers import MLFlowLogger

from quadrant_lstm.dashboard.loggers import logger_arguments, start_tracking
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_csv
from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import TINY, run_folder, tiny_data
from tests.scripts import FORKSERVER, script, succeeds

pytest.importorskip("wandb", reason='needs pip install -e ".[trackers]"')
pytest.importorskip("mlflow", reason='needs pip install -e ".[trackers]"')


@pytest.fixture(autouse=True)
def _tracking_uri():
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, for processes that a test starts later


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Trains with all loggers, and resumes for one more epoch."""
    cwd = tmp_path_factory.mktemp("tracked")
    orderings = "[[1,2,3,4],[4,3,2,1],[1,3,2,4],[4,2,3,1]]"
    few_pictures = (f"data.test_orderings={orderings}", "model.shared_tiles=false")
    loggers = "trainer/logger=[tensorboard,csv,wandb,mlflow]"
    words = (*tiny_data(cwd), *TINY[1:], loggers, *few_pictures)
    trained = script("train.py", *words, cwd=cwd, MLFLOW_DISABLE_TELEMETRY="true")
    assert (trained.returncode, trained.stderr) == (0, "")
    ids = json.loads((run_folder(cwd) / "trackers.json").read_text())
    succeeds("train.py", "run=latest", "trainer.max_epochs=4", TINY[0], cwd=cwd, MLFLOW_DISABLE_TELEMETRY="true")
    assert json.loads((run_folder(cwd) / "trackers.json").read_text()) == ids
    return cwd, ids


def query(database, sql, *values):
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(sql, values).fetchall()


def test_mlflow_has_each_epoch_of_a_resumed_run_once_and_its_config_results_and_pictures(tracked):
    cwd, ids = tracked
    database = cwd / "outputs/mlflow.db"
    assert query(database, "select run_uuid, status from runs") == [(ids["mlflow"], "FINISHED")]
    rows = read_rows(run_folder(cwd) / "metrics.csv")
    assert len(rows) == 4
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        values = [value for (value,) in query(database, "select value from metrics where key = ? order by step", name)]
        assert values == pytest.approx([float(row[name]) for row in rows], rel=1e-5)
    assert query(database, "select value from params where key = 'model/dropout'") == [("0.25",)]
    tested = query(database, "select value from metrics where key = 'test/accuracy' order by step")
    assert tested[-1][0] == pytest.approx(read_results(run_folder(cwd))["test/accuracy"])
    assert (cwd / "outputs/mlflow" / ids["mlflow"] / "artifacts/test/confusion.png").exists()


def test_wandb_continues_a_resumed_run_under_the_same_id(tracked):
    cwd, ids = tracked
    files = sorted((run_folder(cwd) / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == 2 * [f"run-{ids['wandb']}.wandb"]
    first, second = (file.read_bytes() for file in files)
    for words in (b"val/accuracy", b"train/batch_loss", b"test/accuracy", b"trainer/global_step"):
        assert words in first and words in second, words
    assert list((run_folder(cwd) / "wandb").glob("*/files/media/images/test/confusion_*.png"))


def test_csv_has_the_points_within_epochs_too(tracked):
    cwd, _ = tracked
    points = read_csv(run_folder(cwd) / "csv/version_0/metrics.csv")
    assert [int(point["step"]) for point in points if point["train/batch_loss"]] == [*range(0, 30, 5)]
    epochs = [float(point["val/accuracy"]) for point in points if point["val/accuracy"]]
    rows = read_rows(run_folder(cwd) / "metrics.csv")[:3]  # the fourth epoch, of the resumed run, is in version_1
    assert epochs == pytest.approx([float(row["val/accuracy"]) for row in rows], abs=1e-6)


@pytest.mark.parametrize(("package", "logger"), [("wandb", "WandbLogger"), ("mlflow", "MLFlowLogger")])
def test_a_missing_package_is_named_with_its_extra(package, logger, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'^trainer\.logger\.{package}: needs {package}, .* "\.\[trackers\]"'):
        logger_arguments({"_target_": f"lightning.pytorch.loggers.{logger}"}, tmp_path)


def start_mlflow(folder: Path, uri: str | None = None) -> MLFlowLogger:
    folder.mkdir(exist_ok=True)
    os.chdir(folder.parent)
    node = {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "experiment_name": "together", "tracking_uri": uri}
    logger = instantiate(logger_arguments(node, folder))
    start_tracking(logger, {"seed": 1}, folder, 0)
    return logger


def test_mlflows_variable_names_the_database_and_a_run_that_it_lacks_is_refused(tracked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tracked[0] / "outputs/mlflow.db", "other.db")
    uri = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    logger = start_mlflow(tmp_path / "run")
    assert not (tmp_path / "outputs/mlflow.db").exists()
    assert query("other.db", "select count(*) from runs") == [(2,)]
    ids = tmp_path / "run/trackers.json"
    ids.write_text(ids.read_text().replace(logger.run_id, "unknown"))
    with pytest.raises(UserError, match="or delete run/trackers.json to track a new run"):
        start_mlflow(tmp_path / "run")


@pytest.mark.reliability  # each process makes the tables of a database, which takes seconds
def test_jobs_that_start_at_once_share_a_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [FORKSERVER.Process(target=start_mlflow, args=(tmp_path / number, "sqlite:///jobs.db")) for number in "12"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(100)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert query("jobs.db", "select count(*) from runs") == [(2,)]
    assert query("jobs.db", "select count(*) from experiments where name = 'together'") == [(1,)]


def test_a_file_that_is_no_database_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.db").write_text("no database" * 100)
    with pytest.raises(UserError, match="trainer.logger.mlflow: .*; correct its tracking_uri"):
        start_mlflow(tmp_path, f"sqlite:///{tmp_path}/other.db")

"""Tests early stopping with train.py, on the tiny data set."""

import shutil

import pytest

from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import run_folder
from tests.scripts import script, train_tiny

NINE_EPOCHS = ("trainer.max_epochs=9", "trainer/callbacks=early_stopping")
STUCK = (*NINE_EPOCHS, "optimizer.lr=1e-30", "model.dropout=0")  # nothing improves
PATIENCE, MONITOR = "trainer.callbacks.early_stopping.patience", "trainer.callbacks.early_stopping.monitor"


def epochs(run):
    return [int(row["epoch"]) for row in read_rows(run / "metrics.csv")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("stopped")
    done = train_tiny(cwd, *STUCK, f"{PATIENCE}=2")
    assert "val/accuracy has not improved for 2 epochs; training stops" in done.stdout
    return cwd


@pytest.fixture
def stopped_run(trained, tmp_path):
    """Returns a copy, which a test may change; its data stay where they are."""
    return shutil.copytree(run_folder(trained), tmp_path / "outputs/2026-01-01/00-00-00")


def test_training_stops_after_patience_epochs_without_improvement(stopped_run):
    assert epochs(stopped_run) == [1, 2, 3]
    results = read_results(stopped_run)
    assert results["stopped_early"] is True
    assert results["epochs"] == 3


def test_training_goes_on_while_a_loss_falls(tmp_path):
    train_tiny(tmp_path, *NINE_EPOCHS, "trainer.callbacks.early_stopping.monitor=val/loss", f"{PATIENCE}=1")
    assert epochs(run_folder(tmp_path)) == [*range(1, 10)]
    assert "stopped_early" not in read_results(run_folder(tmp_path))


def test_a_run_that_stopped_early_is_resumed_only_with_more_patience_or_none(stopped_run, tmp_path):
    refused = script("train.py", f"run={stopped_run}", cwd=tmp_path)
    assert refused.returncode == 2
    assert f"has finished its 3 epochs, by early stopping; to train longer, raise {PATIENCE}" in refused.stderr
    assert script("train.py", f"run={stopped_run}", f"{PATIENCE}=3", cwd=tmp_path).returncode == 0
    assert epochs(stopped_run) == [1, 2, 3, 4]
    assert script("train.py", f"run={stopped_run}", "~trainer.callbacks.early_stopping", cwd=tmp_path).returncode == 0
    assert epochs(stopped_run) == [*range(1, 10)]


def test_a_run_that_was_interrupted_after_it_stopped_trains_no_more(stopped_run, tmp_path):
    (stopped_run / "results.json").unlink()
    assert script("train.py", f"run={stopped_run}", cwd=tmp_path).returncode == 0
    assert epochs(stopped_run) == [1, 2, 3]
    assert read_results(stopped_run)["stopped_early"] is True


def test_an_improvement_must_be_larger_than_min_delta(tmp_path):
    loss = ("trainer.callbacks.early_stopping.monitor=val/loss", "trainer.callbacks.early_stopping.min_delta=10")
    train_tiny(tmp_path, *NINE_EPOCHS, *loss, f"{PATIENCE}=1")
    assert epochs(run_folder(tmp_path)) == [1, 2]


def test_patience_that_ends_with_the_last_epoch_stops_nothing_early(tmp_path):
    done = train_tiny(tmp_path, *STUCK, f"{PATIENCE}=8")
    assert "training stops" not in done.stdout
    run = run_folder(tmp_path)
    assert "stopped_early" not in read_results(run)
    assert "to train longer, add e.g. trainer.max_epochs=10" in script("train.py", f"run={run}", cwd=tmp_path).stderr


def test_a_run_that_resumes_can_be_given_early_stopping(tmp_path):
    train_tiny(tmp_path, "trainer.max_epochs=1", "optimizer.lr=1e-30", "model.dropout=0")
    words = ("trainer/callbacks=early_stopping", f"{PATIENCE}=2", "trainer.max_epochs=9")
    done = script("train.py", "run=latest", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert epochs(run_folder(tmp_path)) == [1, 2, 3, 4]


def test_another_metric_starts_from_its_own_values(tmp_path):
    train_tiny(tmp_path, "trainer.max_epochs=2", "trainer/callbacks=early_stopping", f"{MONITOR}=val/loss")
    words = (f"{MONITOR}=train/accuracy", f"{PATIENCE}=1", "trainer.max_epochs=4")
    done = script("train.py", "run=latest", *words, cwd=tmp_path)  # a loss above 1 would be higher than any accuracy
    assert (done.returncode, done.stderr) == (0, "")
    assert epochs(run_folder(tmp_path))[2:] == [3, 4]

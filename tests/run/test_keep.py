"""Which epoch of a run is kept: the best on validation images, or the last."""

import re
import shutil

import pytest
import torch

from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import TINY, run_folder, sweep_folder, tiny_data
from tests.scripts import script


def kept(run) -> tuple[dict, int]:
    """Returns the results and the number of the epoch in best.ckpt."""
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    return read_results(run), checkpoint["epoch"] + 1


def succeed(cwd, *words):
    done = script("train.py", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def test_without_validation_images_all_are_trained_on_and_the_last_epoch_is_tested(tmp_path):
    words = ("data.validation_images=0", "data.batch_size=50", "trainer.max_epochs=2")
    done = succeed(tmp_path, *tiny_data(tmp_path), *TINY[1:], *words)
    run = run_folder(tmp_path)
    results, epoch = kept(run)
    assert (epoch, results["best_epoch"], results["keep"]) == (2, 2, "last")
    assert "val/accuracy" not in results
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2 * 200 / 50
    assert "last epoch 2 of 2" in done.stdout
    assert not re.search("lightning", done.stderr, re.IGNORECASE)
    assert all(row["val/accuracy"] == "" for row in read_rows(run / "metrics.csv"))
    report = (run / "report.html").read_text()
    assert "Last epoch, which was tested<td>2 of 2" in report
    assert "Validation accuracy" not in report


def test_the_last_epoch_is_kept_on_request_and_the_following_ones_are_compared(finished_run, tmp_path):
    before, epoch_before = kept(finished_run)
    for keep in ("best", "last"):
        shutil.copytree(finished_run, tmp_path / keep)
        words = ("trainer.max_epochs=4", "optimizer.lr=1000", f"keep={keep}")  # no network survives this rate
        succeed(tmp_path, f"run={keep}", *words, TINY[0])
    best, best_epoch = kept(tmp_path / "best")
    assert (best["val/accuracy"], best_epoch, best["keep"]) == (before["val/accuracy"], epoch_before, "best")
    last, last_epoch = kept(tmp_path / "last")
    accuracy = float(read_rows(tmp_path / "last/metrics.csv")[-1]["val/accuracy"])
    assert (last["val/accuracy"], last_epoch, last["keep"]) == (accuracy, 4, "last")
    assert accuracy < before["val/accuracy"]
    succeed(tmp_path, "run=last", "trainer.max_epochs=6", "optimizer.lr=1e-12", "keep=best")
    accuracies = [float(row["val/accuracy"]) for row in read_rows(tmp_path / "last/metrics.csv")]
    results, epoch = kept(tmp_path / "last")
    assert (results["val/accuracy"], epoch) == max((accuracies[number - 1], number) for number in (5, 6))


def test_a_sweep_over_seeds_needs_no_validation_images(tmp_path):
    words = ("-m", "seed=1,2", "data.validation_images=0", "trainer.max_epochs=1")
    done = succeed(tmp_path, *tiny_data(tmp_path), *TINY, *words)
    assert "best           all seeds  test accuracy " in done.stdout
    page = (sweep_folder(tmp_path) / "sweep.html").read_text()
    assert "None" not in page
    assert "ranked" not in page


STOP = "+trainer.callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-m", "model.lstm_units=5,6"), "but a sweep over model.lstm_units ranks its jobs by val/accuracy; hold some"),
        (("-m", "experiment=search"), "but a search over optimizer.lr, .* ranks its jobs by val/accuracy; hold some"),
        (
            ("-m", "hydra/sweeper=optuna", "seed=range(1,4)", "hydra.sweeper.n_trials=2"),
            "but a search over seed ranks its jobs by val/accuracy; hold some",
        ),
        ((STOP, "+trainer.callbacks.stop.monitor=val/loss"), "but trainer.callbacks.stop.monitor=val/loss needs valid"),
    ],
)
def test_what_compares_on_validation_images_refuses_to_do_without(words, line, tmp_path):
    done = script("train.py", "data.validation_images=0", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert re.match(f"data.validation_images: 0, {line}", done.stderr)
    assert not list(tmp_path.glob("outputs/*"))

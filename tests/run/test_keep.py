"""Which epoch of a run is kept: the best on validation images, or the last."""

import re
import shutil

import pytest
import torch

from quadrant_lstm.run_folder import read_results, read_rows
from tests.folders import TINY, run_folder, sweep_folder, write_idx_folder
from tests.scripts import script


def kept(run) -> tuple[dict, int]:
    """Returns the results and the number of the epoch in best.ckpt."""
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    return read_results(run), checkpoint["epoch"] + 1


def tiny(cwd, *words):
    root = write_idx_folder(cwd / "data")
    done = script("train.py", "data=idx", f"data.root={root}", *TINY[1:], *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def test_without_validation_images_all_are_trained_on_and_the_last_epoch_is_tested(tmp_path):
    done = tiny(tmp_path, "data.validation_images=0", "data.batch_size=50", "trainer.max_epochs=2")
    run = run_folder(tmp_path)
    results, epoch = kept(run)
    assert (epoch, results["best_epoch"], results["keep"]) == (2, 2, "last")
    assert "val/accuracy" not in results
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2 * 200 / 50
    assert "last epoch 2 of 2" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "Lightning" in line or "lightning" in line]
    assert all(row["val/accuracy"] == "" for row in read_rows(run / "metrics.csv"))
    report = (run / "report.html").read_text()
    assert "Last epoch, which was tested<td>2 of 2" in report
    assert "Validation accuracy" not in report
    again = script("evaluate.py", "run=latest", cwd=tmp_path)
    assert f"{'test/accuracy':20}  {results['test/accuracy']}\n" in again.stdout


def test_the_last_epoch_is_kept_on_request_even_if_it_is_worse(tmp_path):
    tiny(tmp_path, "optimizer.lr=0.01", "~trainer.callbacks.dashboard")
    before, epoch_before = kept(run_folder(tmp_path))
    shutil.copytree(tmp_path / "outputs", tmp_path / "copy/outputs")
    for cwd, keep in ((tmp_path, "best"), (tmp_path / "copy", "last")):
        words = ("trainer.max_epochs=4", "optimizer.lr=1000", f"keep={keep}")  # no network survives this rate
        assert script("train.py", "run=latest", *words, cwd=cwd).returncode == 0
    best, best_epoch = kept(run_folder(tmp_path))
    assert (best["val/accuracy"], best_epoch, best["keep"]) == (before["val/accuracy"], epoch_before, "best")
    last, last_epoch = kept(run_folder(tmp_path / "copy"))
    accuracy = float(read_rows(run_folder(tmp_path / "copy") / "metrics.csv")[-1]["val/accuracy"])
    assert (last["val/accuracy"], last_epoch, last["keep"]) == (accuracy, 4, "last")
    assert accuracy < before["val/accuracy"]


def test_a_resumed_run_that_kept_the_last_epoch_compares_the_following_ones(tmp_path):
    tiny(tmp_path, "keep=last", "optimizer.lr=0.01", "~trainer.callbacks.dashboard")
    done = script("train.py", "run=latest", "trainer.max_epochs=5", "keep=best", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results, epoch = kept(run_folder(tmp_path))
    accuracies = [float(row["val/accuracy"]) for row in read_rows(run_folder(tmp_path) / "metrics.csv")]
    assert (results["val/accuracy"], epoch) == max((accuracies[number - 1], number) for number in (4, 5))


def test_a_sweep_over_seeds_needs_no_validation_images(tmp_path):
    words = ("data.validation_images=0", "trainer.max_epochs=1", "~trainer.callbacks.dashboard")
    done = tiny(tmp_path, "-m", "seed=1,2", *words)
    assert "best           all seeds  test accuracy " in done.stdout
    page = (sweep_folder(tmp_path) / "sweep.html").read_text()
    assert "None" not in page
    assert "ranked" not in page
    assert script("train.py", "sweep=latest", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-m", "model.lstm_units=5,6"), "but a sweep over model.lstm_units ranks its jobs by val/accuracy; hold some"),
        (("-m", "data.fold=null,0"), "but a sweep over data.fold ranks its jobs by val/accuracy; hold some"),
        (("-m", "experiment=search"), "but a search over optimizer.lr, .* ranks its jobs by val/accuracy; hold some"),
        (
            ("-m", "hydra/sweeper=optuna", "seed=range(1,4)", "hydra.sweeper.n_trials=2"),
            "but a search over seed ranks its jobs by val/accuracy; hold some",
        ),
        (
            ("trainer/callbacks=early_stopping",),
            "but trainer.callbacks.early_stopping.monitor=val/accuracy needs valid",
        ),
        (
            (
                "+trainer.callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
                "+trainer.callbacks.stop.monitor=val/loss",
            ),
            "but trainer.callbacks.stop.monitor=val/loss needs valid",
        ),
    ],
)
def test_what_compares_on_validation_images_refuses_to_do_without(words, line, tmp_path):
    done = script("train.py", "data.validation_images=0", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("data.validation_images: 0, ")
    assert re.search(line, done.stderr)
    assert not list(tmp_path.glob("outputs/*"))


def test_an_invalid_value_in_a_sweep_without_validation_is_reported(tmp_path):
    words = (
        "-m",
        "data.validation_images=0",
        "trainer/callbacks=early_stopping",
        "trainer.callbacks.early_stopping.monitor=5",
    )
    done = script("train.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "trainer.callbacks.early_stopping.monitor: 5 is not one of val/accuracy, val/loss," in done.stderr

import csv

from quadrant_lstm.callbacks.checkpoints import write_row
from quadrant_lstm.run_folder import last_epoch

COLUMNS = ("epoch", "train/loss", "val/loss")


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [(row["epoch"], row["train/loss"]) for row in csv.DictReader(file)]


def test_each_epoch_appends_a_row(tmp_path):
    write_row(tmp_path / "metrics.csv", COLUMNS, {"epoch": 1, "train/loss": 0.25})
    write_row(tmp_path / "metrics.csv", COLUMNS, {"epoch": 2, "train/loss": 0.125})
    assert rows(tmp_path) == [("1", "0.25"), ("2", "0.125")]


def test_a_repeated_epoch_replaces_its_row_and_the_later_ones(tmp_path):
    for epoch in (1, 2, 3):
        write_row(tmp_path / "metrics.csv", COLUMNS, {"epoch": epoch, "train/loss": 0.5})
    write_row(tmp_path / "metrics.csv", COLUMNS, {"epoch": 2, "train/loss": 0.25})
    assert rows(tmp_path) == [("1", "0.5"), ("2", "0.25")]
    assert last_epoch(tmp_path)["train/loss"] == "0.25"


def test_a_run_without_a_finished_epoch_has_no_last_epoch(tmp_path):
    assert last_epoch(tmp_path) is None

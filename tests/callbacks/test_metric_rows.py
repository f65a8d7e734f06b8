from quadrant_lstm.callbacks.checkpoints import write_row
from quadrant_lstm.run_folder import last_epoch, read_rows


def test_an_epoch_appends_a_row_and_a_repeated_one_replaces_its_row_and_the_later_ones(tmp_path):
    assert last_epoch(tmp_path) is None
    for epoch in (1, 2, 3):
        write_row(tmp_path / "metrics.csv", ("epoch", "train/loss"), {"epoch": epoch, "train/loss": 0.5})
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.csv")] == ["1", "2", "3"]
    write_row(tmp_path / "metrics.csv", ("epoch", "train/loss"), {"epoch": 2, "train/loss": 0.25})
    assert [row["train/loss"] for row in read_rows(tmp_path / "metrics.csv")] == ["0.5", "0.25"]
    assert last_epoch(tmp_path)["train/loss"] == "0.25"

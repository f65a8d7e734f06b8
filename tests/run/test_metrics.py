import csv

from quadrant_lstm.run.metrics import EpochMetrics, last_epoch


def log_epoch(metrics: EpochMetrics, epoch: int, loss: float) -> None:
    """As Lightning does: validation first; epochs from 0."""
    metrics.log_metrics({"val/loss": loss, "val/accuracy": 0.5, "epoch": epoch})
    metrics.log_metrics({"train/batch_loss": 9.0, "epoch": epoch}, step=1)
    metrics.log_metrics({"train/loss": loss, "train/samples_per_second": 1.0, "epoch": epoch})


def test_a_row_is_an_epoch_and_counts_from_1(tmp_path):
    metrics = EpochMetrics(tmp_path, max_epochs=2)
    log_epoch(metrics, 0, 0.25)
    log_epoch(metrics, 1, 0.125)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["train/loss"], row["val/loss"]) for row in rows] == [
        ("1", "0.25", "0.25"),
        ("2", "0.125", "0.125"),
    ]


def test_an_epoch_done_again_replaces_its_row_and_those_after_it(tmp_path):
    metrics = EpochMetrics(tmp_path, max_epochs=9)
    for epoch in range(3):
        log_epoch(metrics, epoch, 0.5)
    log_epoch(EpochMetrics(tmp_path, max_epochs=9), 1, 0.25)
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 3  # the header and two epochs
    assert last_epoch(tmp_path)["val/loss"] == "0.25"


def test_a_run_without_an_epoch_has_no_last_one(tmp_path):
    assert last_epoch(tmp_path) is None

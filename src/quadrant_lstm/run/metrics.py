"""What Lightning logs -> metrics.csv, a row an epoch, and a line an epoch on the terminal and in train.log.

Epochs count from 1. A run that goes on keeps the rows of the epochs it does not repeat.
"""

import csv
import logging
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from quadrant_lstm.run.folder import METRICS

log = logging.getLogger(__name__)
COLUMNS = (
    "epoch",
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "train/learning_rate",
    "train/samples_per_second",
)


class EpochMetrics(Logger):
    name = version = ""

    def __init__(self, folder: Path, max_epochs: int):
        super().__init__()
        self.file = folder / METRICS
        self.max_epochs = max_epochs
        self.row: dict[str, Any] = {}
        self.start = time.perf_counter()

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in .hydra/config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.row |= {name: round(value, 6) for name, value in metrics.items() if name in COLUMNS}
        if "train/loss" in metrics:  # Lightning logs it last
            self.row["epoch"] = int(metrics["epoch"]) + 1
            self.write(self.row)
            self.row = {}

    def write(self, row: dict[str, Any]) -> None:
        rows = []
        if self.file.exists():
            with self.file.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
        staged = self.file.with_suffix(".tmp")
        with staged.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows([*rows, row])
        os.replace(staged, self.file)
        seconds, self.start = time.perf_counter() - self.start, time.perf_counter()
        log.info(
            f"epoch {row['epoch']}/{self.max_epochs}  "
            + "  ".join(f"{name} {row[name]:.4f}" for name in COLUMNS[1:5] if name in row)
            + f"  {row['train/samples_per_second']:,.0f} images/s  {seconds:.0f} s"
        )


def last_epoch(folder: Path) -> dict[str, str] | None:
    """The last row of a run's metrics.csv."""
    if not (folder / METRICS).exists():
        return None
    with (folder / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))[-1]

"""The end of an epoch -> a row of metrics.csv, points in the loggers, last.ckpt, and a line on the terminal and in
train.log; in this order.

So an epoch of which there is a line is safe, and one that was cut off before its checkpoint is done once more and its
row and points replaced: a run that was interrupted has a row for each epoch, and one only. Epochs count from 1.
"""

import csv
import io
import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from quadrant_lstm.callbacks.checkpoint_io import read_checkpoint
from quadrant_lstm.data.frames import after_steps
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import BEST, LAST, METRICS, last_epoch, read_rows, write_whole

log = logging.getLogger(__name__)
COLUMNS = (
    "epoch",
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    *after_steps("val"),
    "train/learning_rate",
    "train/weight_norm",
    "train/samples_per_second",
    "train/epoch_seconds",
)
OVER_THE_ONE_BEFORE: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}


class AtEpochEnd(ModelCheckpoint):
    """A checkpoint in the run folder, wherever that has been moved since an interruption."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir)
        self.dirpath = str(self.folder / BEST.parent)
        super().setup(trainer, pl_module, stage)

    @property
    def state_key(self) -> str:
        """The same for any arguments, so that a run resumes after a change of them."""
        return type(self).__name__


class Best(AtEpochEnd):
    """best.ckpt, by val/accuracy, of equals the later: it has been trained for longer, and a schedule has calmed it.
    Also where the run's folder has been moved since it was interrupted.
    """

    def __init__(self) -> None:
        super().__init__(filename=BEST.stem, monitor="val/accuracy", mode="max", **OVER_THE_ONE_BEFORE)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        here: dict[str, Any] = {"dirpath": self.dirpath}
        if state["best_model_path"]:
            file = str(Path(self.dirpath or "", BEST.name))
            here |= {"best_model_path": file, "kth_best_model_path": file}
            here["best_k_models"] = {file: state["best_model_score"]}
        super().load_state_dict(state | here)

    def results(self) -> dict[str, Any]:
        if self.best_model_score is None:
            raise UserError("trainer: it stopped before an epoch was done and validated; let it train for longer.")
        best_epoch = read_checkpoint(Path(self.best_model_path))["epoch"] + 1
        return {"val/accuracy": round(self.best_model_score.item(), 6), "best_epoch": best_epoch}


class EpochEnd(AtEpochEnd):
    """Also measures train/samples_per_second, of all processes, validation left out, and the seconds that the run has
    trained for, before an interruption and after it.
    """

    def __init__(self) -> None:
        super().__init__(filename=LAST.stem, **OVER_THE_ONE_BEFORE)
        self.seconds_before = 0.0
        self.began: float | None = None  # not at all, where all epochs were done before

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds_before = state["seconds"]

    @property
    def seconds(self) -> float:
        return self.seconds_before + (0.0 if self.began is None else time.perf_counter() - self.began)

    def results(self) -> dict[str, Any]:
        last = last_epoch(self.folder) or {}
        return {
            "epochs": int(last["epoch"]),
            "seconds": round(self.seconds, 1),
            "samples_per_second": float(last["train/samples_per_second"]),
        }

    def on_train_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        self.images = 0
        self.start = self.end = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.images += len(batch[1])
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: pl.LightningModule) -> None:
        samples_per_second = self.images * trainer.world_size / (self.end - self.start)
        metrics = trainer.callback_metrics  # in all processes: they add up here
        points = {name: metrics[name].item() for name in COLUMNS if name in metrics}
        points["train/samples_per_second"] = samples_per_second
        points["train/epoch_seconds"] = time.perf_counter() - self.start
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1}
        row |= {name: round(value, 6) for name, value in points.items()}
        if trainer.is_global_zero:
            write_row(self.folder / METRICS, row)
        for logger in trainer.loggers:
            logger.log_metrics(points, trainer.global_step - 1)
            logger.save()
        super().on_train_epoch_end(trainer, module)
        log.info(
            f"epoch {row['epoch']}/{trainer.max_epochs}  "
            + "  ".join(f"{name} {row[name]:.4f}" for name in COLUMNS[1:5] if name in row)
            + f"  {samples_per_second:,.0f} images/s  {points['train/epoch_seconds']:.0f} s"
        )


def write_row(file: Path, row: dict[str, Any]) -> None:
    """In place of that epoch's and all after it."""
    before = [old for old in read_rows(file) if int(old["epoch"]) < row["epoch"]]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*before, row])
    write_whole(file, text.getvalue().encode())

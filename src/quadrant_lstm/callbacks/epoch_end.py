"""Records each finished epoch: a row of metrics.csv, points in the loggers, a checkpoint and a log line, in this order.

So an epoch whose line was logged is saved, and an epoch that was interrupted before its checkpoint is trained again and
its row and points are replaced: a resumed run has exactly one row per epoch. Epochs count from 1.
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
from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import BEST, LAST, METRICS, last_epoch, read_rows, write_atomically

log = logging.getLogger(__name__)
CSV_COLUMNS = (
    *("epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", *step_accuracy_names("val")),
    *("train/learning_rate", "train/weight_norm", "train/samples_per_second", "train/epoch_seconds"),
)
REPLACE_PREVIOUS: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}


class EpochCheckpoint(ModelCheckpoint):
    """Saves into the run folder, also after the folder was moved."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir)
        self.dirpath = str(self.folder / BEST.parent)
        super().setup(trainer, pl_module, stage)

    @property
    def state_key(self) -> str:
        """Contains no arguments, unlike Lightning's, so that a run can be resumed after they have changed."""
        return type(self).__name__


class Best(EpochCheckpoint):
    """Saves best.ckpt, by val/accuracy. Ties go to the later epoch, which has been trained for longer."""

    def __init__(self) -> None:
        super().__init__(filename=BEST.stem, monitor="val/accuracy", mode="max", **REPLACE_PREVIOUS)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        is_tie = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return is_tie or super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        moved: dict[str, Any] = {"dirpath": self.dirpath}  # the state holds the paths from before a move
        if state["best_model_path"]:
            file = str(Path(self.dirpath or "", BEST.name))
            moved |= {"best_model_path": file, "kth_best_model_path": file}
            moved["best_k_models"] = {file: state["best_model_score"]}
        super().load_state_dict(state | moved)

    def results(self) -> dict[str, Any]:
        if self.best_model_score is None:
            raise UserError("trainer: training stopped before an epoch was finished and validated; train for longer.")
        best_epoch = read_checkpoint(Path(self.best_model_path))["epoch"] + 1
        return {"val/accuracy": round(self.best_model_score.item(), 6), "best_epoch": best_epoch}


class EpochEnd(EpochCheckpoint):
    """Saves last.ckpt and records the metrics of each epoch.

    Also measures train/samples_per_second, over all processes and without validation, and the training time in seconds,
    including that before an interruption.
    """

    def __init__(self) -> None:
        super().__init__(filename=LAST.stem, **REPLACE_PREVIOUS)
        self.seconds_before = 0.0
        self.train_start: float | None = None  # stays None where no epoch was left to train

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds_before = state["seconds"]

    @property
    def seconds(self) -> float:
        return self.seconds_before + (0.0 if self.train_start is None else time.perf_counter() - self.train_start)

    def results(self) -> dict[str, Any]:
        last = last_epoch(self.folder) or {}
        return {
            "epochs": int(last["epoch"]),
            "seconds": round(self.seconds, 1),
            "samples_per_second": float(last["train/samples_per_second"]),
        }

    def on_train_start(self, *_: Any) -> None:
        self.train_start = time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        self.images = 0
        self.start = self.end = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.images += len(batch[1])
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: pl.LightningModule) -> None:
        samples_per_second = self.images * trainer.world_size / (self.end - self.start)
        metrics = trainer.callback_metrics  # read in every process, because reading reduces them over all
        points = {name: metrics[name].item() for name in CSV_COLUMNS if name in metrics}
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
            + "  ".join(f"{name} {row[name]:.4f}" for name in CSV_COLUMNS[1:5] if name in row)
            + f"  {samples_per_second:,.0f} images/s  {points['train/epoch_seconds']:.0f} s"
        )


def write_row(file: Path, row: dict[str, Any]) -> None:
    """Appends the row, after removing the rows of that epoch and of later ones."""
    earlier = [old for old in read_rows(file) if int(old["epoch"]) < row["epoch"]]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*earlier, row])
    write_atomically(file, text.getvalue().encode())

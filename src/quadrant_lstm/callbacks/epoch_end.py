"""Records each finished epoch: a row of metrics.csv, points in the loggers, a checkpoint and a log line, in this order.

So an epoch whose line was logged is saved, and an epoch that was interrupted before its checkpoint is trained again and
its row and points are replaced: a resumed run has exactly one row per epoch. Epochs count from 1.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from quadrant_lstm.callbacks.checkpoint_io import read_checkpoint
from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.errors import UserError
from quadrant_lstm.run_folder import BEST, LAST, METRICS, csv_text, read_rows, write_atomically

log = logging.getLogger(__name__)
LOGGED = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")  # in the line of the epoch
OTHERS = ("train/learning_rate", "train/weight_norm", "train/samples_per_second", "train/epoch_seconds")


class Best(ModelCheckpoint):
    """Saves best.ckpt, by val/accuracy. Ties go to the later epoch, which has been trained for longer."""

    state_key = "Best"  # Lightning's contains the arguments, which may change between versions

    def __init__(self) -> None:
        overwrite: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        super().__init__(filename=BEST.stem, monitor="val/accuracy", mode="max", **overwrite)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir, BEST.parent))
        super().setup(trainer, pl_module, stage)

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


class EpochEnd(Checkpoint):
    """Saves last.ckpt and records the metrics of each epoch.

    train/epoch_seconds includes validation; train/samples_per_second does not, and counts the images of all processes.
    Lightning calls a Checkpoint after other callbacks. This one comes after Best, whose state last.ckpt contains.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir)

    def results(self) -> dict[str, Any]:
        rows = read_rows(self.folder / METRICS)
        seconds = sum(float(row["train/epoch_seconds"]) for row in rows)
        speed = float(rows[-1]["train/samples_per_second"])
        return {"epochs": int(rows[-1]["epoch"]), "seconds": round(seconds, 1), "samples_per_second": speed}

    def on_train_epoch_start(self, *_: Any) -> None:
        self.images = 0
        self.start = self.end = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.images += len(batch[1])
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        samples_per_second = self.images * trainer.world_size / (self.end - self.start)
        metrics = trainer.callback_metrics  # read in every process, because reading reduces them over all
        columns = ("epoch", *LOGGED, *step_accuracy_names("val", module.spec.num_steps), *OTHERS)
        points = {name: metrics[name].item() for name in columns if name in metrics}
        points["train/samples_per_second"] = samples_per_second
        points["train/epoch_seconds"] = time.perf_counter() - self.start
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1}
        row |= {name: round(value, 6) for name, value in points.items()}
        if trainer.is_global_zero:
            write_row(self.folder / METRICS, columns, row)
        for logger in trainer.loggers:
            logger.log_metrics(points, trainer.global_step - 1)
            logger.save()
        trainer.save_checkpoint(self.folder / LAST)
        log.info(
            f"epoch {row['epoch']}/{trainer.max_epochs}  "
            + "  ".join(f"{name} {row[name]:.4f}" for name in LOGGED if name in row)
            + f"  {samples_per_second:,.0f} images/s  {points['train/epoch_seconds']:.0f} s"
        )


def write_row(file: Path, columns: Sequence[str], row: dict[str, Any]) -> None:
    """Appends the row, after removing the rows of that epoch and of later ones."""
    earlier = [old for old in read_rows(file) if int(old["epoch"]) < row["epoch"]]
    write_atomically(file, csv_text(columns, [*earlier, row]).encode())

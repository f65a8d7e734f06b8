"""Records each finished epoch: best.ckpt if it is the best one, a row of metrics.csv, points in the loggers, last.ckpt
and a log line, in this order.

So an epoch whose line was logged is saved, and an epoch that was interrupted before its checkpoint is trained again and
its row and points are replaced: a resumed run has exactly one row per epoch. Epochs count from 1.
"""

import hashlib
import io
import logging
import math
import pickle
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_text, write_atomically
from quadrant_lstm.kinds import Keep, Monitor
from quadrant_lstm.run_folder import BEST, LAST, METRICS, REPORT, RESULTS, check_present, read_rows
from quadrant_lstm.signals import signals_deferred
from quadrant_lstm.text import NUM_CLASSES_OF_TOP5, step_accuracy_names

# Checkpoints, which are written atomically with a checksum
#
# A checkpoint is the zip archive that torch.save makes, and torch.load reads it. The archive's comment is the SHA-256
# of everything before it, so that a file that was damaged later is refused.


CHECKSUM_PREFIX = b"sha256:"
COMMENT_LENGTH = len(CHECKSUM_PREFIX) + 64  # bytes


def write_checkpoint(checkpoint: dict[str, Any], file: Path) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    archive = buffer.getvalue()
    assert archive.endswith(b"\0\0")  # a zip archive without a comment ends with the comment's length, 0
    archive = archive[:-2] + struct.pack("<H", COMMENT_LENGTH)
    write_atomically(file, archive + CHECKSUM_PREFIX + hashlib.sha256(archive).hexdigest().encode())


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Raises UserError for a file that is missing, damaged, or was not written by write_checkpoint."""
    if not file.is_file():
        remedy = f"resume the run with: python train.py run={file.parent.parent}"
        raise UserError(f"{file}: is missing: no epoch of this run has finished; {remedy}")
    try:
        content = file.read_bytes()
        archive, checksum = content[:-COMMENT_LENGTH], content[-COMMENT_LENGTH:]
        if checksum != CHECKSUM_PREFIX + hashlib.sha256(archive).hexdigest().encode():
            raise ValueError("its checksum does not match")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: cannot be read ({reason}); it is damaged: restore it, or train again.") from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """A plugin for Lightning's Trainer."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


# The end of an epoch


log = logging.getLogger(__name__)
LOGGED = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")  # in the line of the epoch
OF_CLASSES = ("val/balanced_accuracy", "val/macro_f1", "val/top5_accuracy")
OTHERS = ("train/learning_rate", "train/weight_norm", "train/samples_per_second", "train/epoch_seconds")


class Checkpoints(Checkpoint):
    """Saves last.ckpt and best.ckpt, and records the metrics of each epoch.

    best.ckpt is the epoch that is best by `monitor`, or the last one with keep="last" or without validation. Ties go to
    the later epoch, which has been trained for longer. If a run resumes with another metric, later epochs are compared
    by it with the epoch in best.ckpt; with none that has it, the next epoch is kept. train/epoch_seconds includes
    validation; train/samples_per_second does not, and counts the samples of all processes.

    Lightning calls a Checkpoint after other callbacks.
    """

    def __init__(self, keep: Keep, monitor: Monitor):
        self.keep, self.monitor = keep, monitor
        self.kept: dict[str, float] = {}  # the validation metrics of the epoch in best.ckpt

    def setup(self, trainer: Any, pl_module: pl.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir)
        if not len(trainer.datamodule.validation_indices):
            self.keep = "last"

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continues the training with the weights, of which `state_dict` may be an average (training.py)."""
        if trainer.state.fn == TrainerFn.FITTING and "current_model_state" in checkpoint:
            module.load_state_dict(checkpoint["current_model_state"])

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = state_dict["kept"]

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Forgets which epoch was kept if best.ckpt holds a later one, which a kill has lost and is trained again."""
        if (self.folder / BEST).exists() and read_checkpoint(self.folder / BEST)["epoch"] >= trainer.current_epoch:
            self.kept = {}

    def results(self) -> dict[str, Any]:
        """Returns best_epoch, keep ("best" or "last"), monitor, the metrics of the kept epoch if it was validated, the
        number of epochs, their seconds, and the speed of the last one.
        """
        if not (self.folder / BEST).exists():
            raise UserError("trainer: training stopped before an epoch was finished and validated; train for longer.")
        epoch, rows = read_checkpoint(self.folder / BEST)["epoch"] + 1, read_rows(self.folder / METRICS)
        kept = next((row for row in rows if int(row["epoch"]) == epoch), None)
        if kept is None:
            raise UserError(f"{self.folder / METRICS}: has no row of epoch {epoch}, which was kept; restore it.")
        names = [name for name in kept if name.startswith("val/") and "_step_" not in name]
        return {name: float(kept[name]) for name in names if kept[name]} | {
            "best_epoch": epoch,
            "keep": self.keep,
            "monitor": self.monitor,
            "epochs": int(rows[-1]["epoch"]),
            "seconds": round(sum(float(row["train/epoch_seconds"]) for row in rows), 1),
            "samples_per_second": float(rows[-1]["train/samples_per_second"]),
        }

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            for file in (RESULTS, REPORT):  # of a run that had finished, and is trained for longer
                (self.folder / file).unlink(missing_ok=True)
        self.samples = 0
        self.start = self.end = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.samples += len(batch.labels)
        if trainer.is_last_batch and module.device.type == "cuda":
            torch.cuda.synchronize(module.device)  # the last steps may only be queued
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not trainer.is_last_batch:  # Lightning's Timer, for example, has stopped the training
            return log.info(f"epoch {trainer.current_epoch + 1} was stopped, and is not saved")
        metrics = trainer.callback_metrics  # read in every process, because reading reduces them over all
        columns = metric_columns(module.spec)
        points = {name: metrics[name].item() for name in columns if name in metrics}
        points["train/samples_per_second"] = self.samples * trainer.world_size / (self.end - self.start)
        points["train/epoch_seconds"] = time.perf_counter() - self.start
        row = {"epoch": trainer.current_epoch + 1, **{name: float(f"{value:.6g}") for name, value in points.items()}}
        if trainer.is_global_zero:
            check_present(self.folder)
        value, best = points.get(self.monitor), self.kept.get(self.monitor)
        sign = -1 if self.monitor.endswith("loss") else 1
        if self.keep == "last" or (value is not None and (best is None or sign * value >= sign * best)):
            self.kept = {name: x for name, x in points.items() if name.startswith("val/") and math.isfinite(x)}
            trainer.save_checkpoint(self.folder / BEST)
        if trainer.is_global_zero:
            write_row(self.folder / METRICS, columns, row)
        log_points(trainer, points, trainer.global_step - 1, save=True)
        trainer.save_checkpoint(self.folder / LAST)
        logged = dict.fromkeys((*LOGGED, self.monitor))
        shown = "  ".join(f"{name} {row[name]:.4f}" for name in logged if name in row)
        speed = f"{points['train/samples_per_second']:,.0f} samples/s  {points['train/epoch_seconds']:.0f} s"
        log.info(f"epoch {row['epoch']}/{trainer.max_epochs}  {shown}  {speed}")


@signals_deferred()
def log_points(trainer: pl.Trainer, points: dict[str, float], step: int, save: bool) -> None:
    """Signals are deferred: an exception raised inside the queue of TensorBoard's writer can leave the writer's thread
    asleep until its next flush, which is up to two minutes later, and the run would wait for it.
    """
    for logger in trainer.loggers:
        logger.log_metrics(points, step)
        if save:
            logger.save()


def metric_columns(spec: SequenceSpec) -> tuple[str, ...]:
    """Returns the columns of metrics.csv."""
    of_classes = OF_CLASSES if spec.num_classes >= NUM_CLASSES_OF_TOP5 else OF_CLASSES[:2]
    return ("epoch", *LOGGED, *of_classes, *step_accuracy_names("val", spec.num_steps), *OTHERS)


def write_row(file: Path, columns: Sequence[str], row: dict[str, Any]) -> None:
    """Appends the row, after removing the rows of that epoch and of later ones."""
    earlier = [old for old in read_rows(file) if int(old["epoch"]) < row["epoch"]]
    write_atomically(file, csv_text(columns, [*earlier, row]).encode())

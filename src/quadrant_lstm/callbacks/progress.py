"""Shows a progress bar with the loss, the accuracy, the samples per second and the time left for the whole run.

It is drawn on a terminal only; epoch_end.py logs one line per epoch, which files get too.
"""

import time
from typing import Any

import lightning.pytorch as pl
import rich
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import ProgressColumn

from quadrant_lstm.text import duration

UPDATE_INTERVAL = 20  # batches; each update of the values waits for the device


class Progress(RichProgressBar):
    def __init__(self) -> None:
        super().__init__(refresh_rate=10 if rich.get_console().is_terminal else 0)
        self.shown: dict[str, str] = {}

    def configure_columns(self, trainer: pl.Trainer) -> list[ProgressColumn]:
        return super().configure_columns(trainer)[:-2]  # without the epoch's time and batches per second

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    def on_train_epoch_start(self, *arguments: Any) -> None:
        self.samples, self.start = 0, time.perf_counter()
        super().on_train_epoch_start(*arguments)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.is_disabled:
            return
        losses, logits, labels = module.epoch_outputs["train"][-1]
        self.samples += len(labels) * trainer.world_size
        if batch_idx % UPDATE_INTERVAL == 0:
            correct = (logits[:, -1].argmax(1) == labels).float().mean()
            seconds = time.perf_counter() - self.start
            epochs = (trainer.max_epochs or 0) - trainer.current_epoch
            batches = epochs * self.total_train_batches - (batch_idx + 1)
            self.shown = {
                "loss": f"{losses.mean().item():.3f}",
                "accuracy": f"{correct.item():.3f}",
                "samples/s": f"{self.samples / seconds:,.0f}",
                "left": duration(batches * seconds / (batch_idx + 1)),
            }
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def get_metrics(self, *_: Any) -> dict[str, Any]:
        return self.shown

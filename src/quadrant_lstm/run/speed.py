"""An epoch's training batches -> train/samples_per_second: images of all processes, validation left out."""

import time
from typing import Any

import lightning.pytorch as pl


class Speed(pl.Callback):
    def on_train_epoch_start(self, *_: Any) -> None:
        self.images = 0
        self.start = self.end = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *_: Any):
        self.images += len(batch[1])
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        samples_per_second = self.images * trainer.world_size / (self.end - self.start)
        module.log("train/samples_per_second", samples_per_second, rank_zero_only=True)

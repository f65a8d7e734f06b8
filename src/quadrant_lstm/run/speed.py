"""An epoch's training batches -> train/samples_per_second: images of all processes, validation left out; and the
seconds that a run has trained for, before an interruption and after it.
"""

import time
from typing import Any

import lightning.pytorch as pl


class Speed(pl.Callback):
    def __init__(self) -> None:
        self.seconds_before = 0.0

    def on_train_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.seconds_before = state["seconds"]

    def on_train_epoch_start(self, *_: Any) -> None:
        self.images = 0
        self.start = self.end = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *_: Any):
        self.images += len(batch[1])
        self.end = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        samples_per_second = self.images * trainer.world_size / (self.end - self.start)
        module.log("train/samples_per_second", samples_per_second, rank_zero_only=True)

"""Seeds torch at the start of each epoch, so that a resumed run draws the random numbers of an uninterrupted one."""

from typing import Any

import lightning.pytorch as pl
import torch

from quadrant_lstm.data.datamodule import epoch_seed


class Reseed(pl.Callback):
    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, trainer.global_rank))

"""Weights and batch-norm statistics, averaged over the steps -> what is validated, tested and saved.

Lightning's callback, with a decay that starts low: after n steps the average has a memory of about n / 10 steps, up to
1 / (1 - decay), so that the first weights are soon forgotten.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from quadrant_lstm.config.values import Probability


class EMA(WeightAveraging):
    def __init__(self, decay: Probability):
        super().__init__(multi_avg_fn=self.average)
        self.decay = decay

    def average(self, averages: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        """In place; all are of one type. What is no average of numbers, like an index, is copied."""
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, current)
            return
        number = float(steps)
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(averages, current, 1 - decay)

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """To test, the average stays what was loaded; Lightning would put the last step's weights in its place."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, module, checkpoint)

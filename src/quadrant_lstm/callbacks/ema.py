"""Averages weights and batch-norm statistics over the training steps, and validates, tests and saves the average.

EMA is Lightning's WeightAveraging with two differences. The decay starts low: after n training steps the average has a
memory of about n / 9 of them, up to 1 / (1 - decay), so that it soon forgets the initial weights. And its training
steps are counted on the host: torch's AveragedModel reads its counter from the device in every step, so that each of
them would wait for the device.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn


class EMA(WeightAveraging):
    """`decay` is the limit of the decay per training step; None turns averaging off."""

    def __init__(self, decay: float | None):
        super().__init__()
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.decay is not None:
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._average_model is not None:
            # Lightning copies the module before it converts its dtype, e.g. for trainer.precision=64-true
            self._average_model.to(module.device, next(module.parameters()).dtype)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self._average_model is None:
            return
        if (steps := trainer.global_step) > self._latest_update_step:  # a step may accumulate several batches
            self.update(self._average_model.module, module, steps)
            self._average_model.n_averaged.fill_(steps)
            self._latest_update_step = steps

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.decay is not None:
            super().on_train_end(trainer, pl_module)

    @torch.no_grad()
    def update(self, average: nn.Module, module: nn.Module, steps: int) -> None:
        """Moves the average towards the module's values; the first step, and integers such as counts, are copied."""
        assert self.decay is not None
        decay = min(self.decay, steps / (9 + steps)) if steps > 1 else 0.0
        (averages, copies), (floats, integers) = floats_and_integers(average), floats_and_integers(module)
        torch._foreach_lerp_(averages, floats, 1 - decay)
        for copy, integer in zip(copies, integers, strict=True):
            copy.copy_(integer)

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the loaded average for a test, where Lightning would replace it by the weights of the last step."""
        if self.decay is not None and trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, module, checkpoint)


def floats_and_integers(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    values = [*module.parameters(), *module.buffers()]
    floats = [value for value in values if value.is_floating_point()]
    return floats, [value for value in values if not value.is_floating_point()]

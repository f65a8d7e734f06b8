"""Weights and batch-norm statistics, averaged over the steps -> what is validated, tested and saved.

Lightning's callback, with a decay that starts low: after n steps the average has a memory of about n / 10 steps, up to
1 / (1 - decay), so that the first weights are soon forgotten. And with an average that lies on the module's device and
is counted on the host: Lightning's lies where the module was made, a CPU, and at each step the device is waited for.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from quadrant_lstm.config.values import Probability


class EMA(WeightAveraging):
    def __init__(self, decay: Probability):
        super().__init__()
        self.decay = decay

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        assert self._average_model is not None
        if (steps := trainer.global_step) > self._latest_update_step:  # gradients may add up over several batches
            self.update(self._average_model.module, module, steps)
            self._average_model.n_averaged.fill_(steps)
            self._latest_update_step = steps

    @torch.no_grad()
    def update(self, average: nn.Module, module: nn.Module, steps: int) -> None:
        """After the first step, and what is no average of numbers, like an index: as in the module."""
        decay = min(self.decay, steps / (9 + steps)) if steps > 1 else 0.0
        (averages, others), (numbers, indices) = numbers_and_others(average), numbers_and_others(module)
        torch._foreach_lerp_(averages, numbers, 1 - decay)
        for other, index in zip(others, indices, strict=True):
            other.copy_(index)

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """To test, the average stays what was loaded; Lightning would put the last step's weights in its place."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, module, checkpoint)


def numbers_and_others(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    values = [*module.parameters(), *module.buffers()]
    numbers = [value for value in values if value.is_floating_point()]
    return numbers, [value for value in values if not value.is_floating_point()]

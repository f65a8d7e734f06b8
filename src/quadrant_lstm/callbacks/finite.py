"""Ends a run when a loss or gradient is non-finite, and logs the loss and the gradient norm every few training steps.

On the CPU each training step is checked before it changes a weight. On a GPU, where a check waits for the device, they
are checked when they are logged and at the end of the epoch, before anything of the epoch is saved. In fp16, the
gradient scaler skips training steps with a non-finite gradient. So only two things are checked there: the loss of the
validation, and that the last training step of an epoch has a sample with a finite loss.
"""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.linalg import vector_norm

from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier, is_constant, weights_of


class Finite(pl.Callback):
    def __init__(self) -> None:
        self.unchecked: list[tuple[Tensor, Tensor]] = []  # losses and gradient norms of the steps since the last check

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: torch.optim.Optimizer) -> None:
        gradients = [weights.grad for weights in weights_of(optimizer) if weights.grad is not None]
        losses, norms = module.epoch_outputs["train"][-1].losses, torch.stack(torch._foreach_norm(gradients))
        self.unchecked.append((losses, norms))
        logged = module.global_step % trainer.log_every_n_steps == 0
        if logged or self.can_check_for_free(module) or trainer.is_last_batch:
            if trainer.scaler is None:
                self.check_steps(module)
            elif trainer.is_last_batch and not losses.isfinite().any():
                check_finite(module, "train: the loss", losses.mean(), f"at training step {module.global_step + 1}")
            self.unchecked.clear()
        if logged:
            # a fused optimizer divides the gradients by the scale of fp16 itself, later
            scale = trainer.scaler.get_scale() if trainer.scaler and optimizer.defaults.get("fused") else 1.0
            norm = vector_norm(norms).item() / scale
            points = {"train/batch_loss": losses.mean().item(), "train/gradient_norm": norm}
            for logger in trainer.loggers:
                logger.log_metrics(points, module.global_step)

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        loss = torch.cat([batch.losses for batch in module.epoch_outputs["val"]]).mean()
        check_finite(module, "val: the loss", loss, f"after training step {module.global_step}")

    def can_check_for_free(self, module: Classifier) -> bool:
        """Returns whether a tensor of the module can be read without waiting for queued kernels."""
        return module.device.type == "cpu"

    def check_steps(self, module: Classifier) -> None:
        """Raises UserError for the first recorded step that is non-finite."""
        if not math.isfinite(sum(losses.sum() + norms.sum() for losses, norms in self.unchecked)):
            for steps_ago, (losses, norms) in zip(reversed(range(len(self.unchecked))), self.unchecked, strict=True):
                place = f"at training step {module.global_step + 1 - steps_ago}"
                check_finite(module, "train: the loss", losses.mean(), place)
                check_finite(module, "train: the norm of the gradient", vector_norm(norms), place)


def check_finite(module: Classifier, name: str, value: Tensor, place: str) -> None:
    if not value.isfinite():
        remedy = "start a new run with a lower optimizer.lr"
        if is_constant(module.trainer.lr_scheduler_configs[0].scheduler):
            remedy = "lower optimizer.lr; run=FOLDER resumes after the last finished epoch"
        raise UserError(
            f"{name} is {value.item()} in epoch {module.current_epoch + 1}, {place}, and this epoch was not saved; "
            f"{remedy}."
        )

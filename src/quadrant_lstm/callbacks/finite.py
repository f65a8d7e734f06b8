"""Losses and norm of the gradient of each step -> points in the loggers, now and then; not finite: the end of the run,
before they change a weight. On a GPU, which would have to be waited for, before anything of the epoch is kept.
"""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.linalg import vector_norm

from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier, weights_of


class Finite(pl.Callback):
    def __init__(self) -> None:
        self.unchecked: list[tuple[Tensor, Tensor]] = []  # of a few steps: losses, norms of each gradient

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: torch.optim.Optimizer) -> None:
        losses, norms = self.note(module, optimizer)
        logged = module.global_step % trainer.log_every_n_steps == 0
        if logged or self.can_look(module) or trainer.is_last_batch:
            # fp16 has an answer of its own: a gradient that is not finite makes its scaler skip the step
            if trainer.scaler is None:
                self.check_steps(module)
            self.unchecked.clear()
        if logged:
            points = {"train/batch_loss": losses.mean().item(), "train/gradient_norm": vector_norm(norms).item()}
            for logger in trainer.loggers:
                logger.log_metrics(points, module.global_step)

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        check_finite(module, "val", "loss", torch.cat([losses for losses, *_ in module.seen["val"]]).mean())

    def note(self, module: Classifier, optimizer: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
        """Of the step whose gradients are there."""
        gradients = [weights.grad for weights in weights_of(optimizer) if weights.grad is not None]
        self.unchecked.append((module.seen["train"][-1][0], torch.stack(torch._foreach_norm(gradients))))
        return self.unchecked[-1]

    def can_look(self, module: Classifier) -> bool:
        """At a value on the device, without waiting for what is in its queue."""
        return module.device.type == "cpu"

    def check_steps(self, module: Classifier) -> None:
        """Those that are noted."""
        if not math.isfinite(sum(norms.sum() for _, norms in self.unchecked)):
            for ago, (losses, norms) in zip(reversed(range(len(self.unchecked))), self.unchecked, strict=True):
                check_finite(module, "train", "loss", losses.mean(), ago)
                check_finite(module, "train", "norm of the gradient", vector_norm(norms), ago)


def check_finite(module: Classifier, stage: str, name: str, value: Tensor, steps_ago: int = 0) -> None:
    if not value.isfinite():
        epoch, step = module.current_epoch + 1, module.global_step + 1 - steps_ago
        raise UserError(
            f"{stage}: the {name} is {value.item()} in epoch {epoch}, at step {step}; nothing of it was kept. "
            "Lower optimizer.lr; run=FOLDER goes on from the last finished epoch."
        )

"""Callbacks of a training: the average of the weights, non-finite losses, seeds, early stopping, the progress bar."""

import logging
import math
from typing import Any, Literal

import lightning.pytorch as pl
import rich
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from quadrant_lstm.callbacks.checkpoints import log_points
from quadrant_lstm.data.datamodule import epoch_seed
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import BelowOne, Count, Monitor, Natural, NonNegative
from quadrant_lstm.model.classifier import Classifier, is_constant, weights_of
from quadrant_lstm.text import counted

# Torch is seeded at the start of each epoch, so that a resumed run draws the numbers of an uninterrupted one


class Reseed(pl.Callback):
    def __init__(self, seed: Natural):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, trainer.global_rank))


# Weights and batch-norm statistics are averaged over the training steps
#
# The decay starts low: after n training steps the average has a memory of about n / 9 of them, up to 1 / (1 - decay),
# so that it soon forgets the initial weights. In checkpoints, `state_dict` is the average; training continues with the
# weights in `current_model_state`.


class EMA(pl.Callback):
    """Validates, tests and saves an exponential moving average of the weights. `decay` is the limit of the decay per
    training step; None turns averaging off.
    """

    def __init__(self, decay: BelowOne | None):
        self.decay = decay
        self.average: dict[str, Tensor] = {}  # empty if averaging is off
        self.names: dict[str, str] = {}  # of all weights: that in `average`, because a layer may have several names

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING and "current_model_state" in checkpoint:
            self.average = checkpoint["state_dict"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        state = {} if self.decay is None else module.state_dict()  # which shares the memory of the module's weights
        first: dict[Any, str] = {}
        for name, own in state.items():
            self.names[name] = first.setdefault((own.data_ptr(), own.shape, own.dtype), name)
        self.weights = {name: state[name] for name in first.values()}
        self.average = {name: self.average.get(name, own).to(own, copy=True) for name, own in self.weights.items()}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.num_steps = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Moves the average towards the weights; the first step, and integers such as counts, are copied."""
        if self.decay is None or trainer.global_step == self.num_steps:  # a step may accumulate several batches
            return
        self.num_steps = number = trainer.global_step
        decay = min(self.decay, number / (9 + number)) if number > 1 else 0.0
        floats = [name for name, weight in self.weights.items() if weight.is_floating_point()]
        lerp = get_ema_multi_avg_fn(decay)
        lerp([self.average[name] for name in floats], [self.weights[name] for name in floats], number)
        for name in self.weights.keys() - floats:
            self.average[name].copy_(self.weights[name])

    @torch.no_grad()
    def swap(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, average in self.average.items():
            weights = self.weights[name].clone()
            self.weights[name].copy_(average)
            average.copy_(weights)

    on_validation_epoch_start = on_validation_epoch_end = on_train_end = swap

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.average:
            average = {name: self.average[first] for name, first in self.names.items()}
            checkpoint |= {"current_model_state": checkpoint["state_dict"], "state_dict": average}


# Non-finite losses and gradients end a run
#
# On the CPU each training step is checked before it changes a weight. On a GPU, where a check waits for the device,
# they are checked when they are logged and at the end of the epoch, before anything of the epoch is saved. In fp16, the
# gradient scaler skips training steps with a non-finite gradient. So only two things are checked there: the loss of the
# validation, and that the last training step of an epoch has a sample with a finite loss.


class Finite(pl.Callback):
    def __init__(self) -> None:
        self.unchecked: list[tuple[Tensor, Tensor]] = []  # losses and gradient norms of the steps since the last check

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: torch.optim.Optimizer) -> None:
        gradients = [weights.grad for weights in weights_of(optimizer) if weights.grad is not None]
        losses, norm = module.scores["train"][-1].losses, get_total_norm(gradients)
        self.unchecked.append((losses, norm))
        logged = module.global_step % trainer.log_every_n_steps == 0
        if logged or module.device.type == "cpu" or trainer.is_last_batch:
            if trainer.scaler is None:
                self.check_steps(module)
            elif trainer.is_last_batch and not losses.isfinite().any():
                check_finite(module, "train: the loss", losses.mean(), f"at training step {module.global_step + 1}")
            self.unchecked.clear()
        if logged:
            # a fused optimizer divides the gradients by the scale of fp16 itself, later
            scale = trainer.scaler.get_scale() if trainer.scaler and optimizer.defaults.get("fused") else 1.0
            points = {"train/batch_loss": losses.mean().item(), "train/gradient_norm": norm.item() / scale}
            log_points(trainer, points, module.global_step, save=False)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if "val/loss" in trainer.callback_metrics:
            place = f"after training step {module.global_step}"
            check_finite(module, "val: the loss", trainer.callback_metrics["val/loss"], place)

    def check_steps(self, module: Classifier) -> None:
        """Raises UserError for the first recorded step that is non-finite."""
        if not math.isfinite(sum(losses.sum() + norm for losses, norm in self.unchecked)):
            for steps_ago, (losses, norm) in zip(reversed(range(len(self.unchecked))), self.unchecked, strict=True):
                place = f"at training step {module.global_step + 1 - steps_ago}"
                check_finite(module, "train: the loss", losses.mean(), place)
                check_finite(module, "train: the norm of the gradient", norm, place)


def check_finite(module: Classifier, name: str, value: Tensor, place: str) -> None:
    if not value.isfinite():
        remedy = "start a new run with a lower optimizer.lr"
        if is_constant(module.trainer.lr_scheduler_configs[0].scheduler):
            remedy = "lower optimizer.lr; run=FOLDER resumes after the last finished epoch"
        where = f"in epoch {module.current_epoch + 1}, {place}"
        raise UserError(f"{name} is {value.item()} {where}, and this epoch was not saved; {remedy}.")


# A training stops when a metric has not improved for some epochs


log = logging.getLogger(__name__)
AnyMonitor = Literal[Monitor, "train/accuracy", "train/loss"]


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, except that a resumed run uses the patience of its config and stops at once if it is exhausted."""

    ended_training = False

    def __init__(self, monitor: AnyMonitor, patience: Count, min_delta: NonNegative):
        super().__init__(monitor, min_delta, patience, mode="min" if monitor.endswith("loss") else "max")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        trainer.should_stop |= self.is_exhausted

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_last_batch:  # else the epoch was stopped, and is trained again
            super().on_train_epoch_end(trainer, pl_module)

    @property
    def is_exhausted(self) -> bool:
        return self.wait_count >= self.patience

    def results(self) -> dict[str, Any]:
        return {"stopped_early": True} if self.ended_training else {}

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.ended_training = self.is_exhausted and trainer.current_epoch < (trainer.max_epochs or 0)
        if self.ended_training:
            log.info(f"{self.monitor} has not improved for {counted(self.wait_count, 'epoch')}; training stops")


# The progress bar
#
# It is drawn on a terminal only; checkpoints.py logs one line per epoch, which files get too.


UPDATE_INTERVAL = 20  # batches; each update of the values waits for the device


class Progress(RichProgressBar):
    def __init__(self) -> None:
        super().__init__(refresh_rate=10 if rich.get_console().is_terminal else 0)
        self.shown: dict[str, str] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        super().on_train_epoch_start(trainer, module)
        if self.progress and self.train_progress_bar_id is not None:
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.progress.update(self.train_progress_bar_id, description=description)

    def get_metrics(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        scores = pl_module.scores["train"]  # of the batches so far
        if len(scores) % UPDATE_INTERVAL == 1:
            losses, labels, predicted, _ = scores[-1]
            values = {"loss": losses.mean(), "accuracy": (predicted[:, -1] == labels).float().mean()}
            self.shown = {name: f"{value.item():.3f}" for name, value in values.items()}
        return self.shown

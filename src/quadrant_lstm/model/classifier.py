"""Any network that maps frames to logits -> something Lightning can train: loss, metrics, optimizer."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from quadrant_lstm.data.frames import STEPS, Shape, after_steps
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.protocols import LogitsPerStep

LENGTHS = ("total_steps", "T_max")  # what torch's schedules call the steps of a training; others go by epochs
STAGES = ("train", "val", "test")
Batch = tuple[Float[Tensor, "batch steps channels height width"], Int64[Tensor, " batch"]]


class Classifier(LightningModule):
    """`optimizer` is called with the parameters, `schedule` with the optimizer; `frame_shape` and `num_classes` go into
    checkpoints, for load_run.

    Logs {train,val,test}/loss, means over images, and {train,val,test}/accuracy; also {val,test}/accuracy_step_1 to
    accuracy_step_4, if the network has LogitsPerStep. The metrics add up over processes before they divide, so that
    each image counts once however unevenly they share them. They see an epoch at once, at its end: their own work and
    that of Lightning's log for each batch takes longer than a step of some networks.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[..., LRScheduler],
        frame_shape: Shape,
        num_classes: int,
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.save_hyperparameters({"frame_shape": list(frame_shape), "num_classes": num_classes}, logger=False)
        self.network = network
        self.optimizer = optimizer
        self.metrics = nn.ModuleDict()
        for stage in STAGES:
            self.metrics[f"{stage}/loss"] = MeanMetric(nan_strategy="disable")  # which waits for no device
            for name in (f"{stage}/accuracy", *after_steps(stage)):
                self.metrics[name] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        # losses, logits (of one step or all) and labels of the batches of an epoch
        self.seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {stage: [] for stage in STAGES}

    def forward(self, frames: Float[Tensor, "batch steps channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.network(frames)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        return self.measure("train", batch)

    def on_train_epoch_end(self) -> None:
        self.log_metrics("train")
        optimizer = self.trainer.optimizers[0]
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"], logger=False)
        self.log("train/weight_norm", get_total_norm(weights_of(optimizer)), logger=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("val", batch)

    def on_validation_epoch_end(self) -> None:
        self.log_metrics("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("test", batch)

    def on_test_epoch_end(self) -> None:
        # of this process: what it said after each step, or after the last
        self.test_logits: Float[Tensor, "images said classes"]
        self.test_labels: Int64[Tensor, " images"]
        self.test_logits, self.test_labels = self.log_metrics("test")
        self.confusion.update(self.test_logits[:, -1], self.test_labels)
        self.test_confusion: Int64[Tensor, "classes classes"] = self.confusion.compute()
        self.confusion.reset()

    def test_results(self) -> dict[str, Any]:
        """The metrics of the test just done, of all processes together."""
        right, images = int(self.test_confusion.diagonal().sum()), int(self.test_confusion.sum())
        metrics = self.trainer.callback_metrics
        results = {"test/accuracy": right / images, "test/loss": metrics["test/loss"].item(), "test/images": images}
        steps = [name for name in after_steps("test") if name in metrics]
        return results | {name: round(metrics[name].item() * images) / images for name in steps}

    def measure(self, stage: str, batch: Batch) -> Float[Tensor, ""]:
        frames, labels = batch
        frames = frames.to(self.dtype)  # other than float32 with trainer.precision=64-true and its like
        if stage != "train" and isinstance(self.network, LogitsPerStep):
            logits = self.network.logits_per_step(frames)
        else:
            logits = self(frames)[:, None]
        smoothing = self.label_smoothing if stage == "train" else 0.0
        losses = cross_entropy(logits[:, -1], labels, reduction="none", label_smoothing=smoothing)
        self.seen[stage].append((losses.detach(), logits.detach(), labels))
        return losses.mean()

    def log_metrics(self, stage: str) -> tuple[Float[Tensor, "images said classes"], Int64[Tensor, " images"]]:
        """Returns the logits and labels that they were taken of."""
        losses, steps, labels = (torch.cat(batches) for batches in zip(*self.seen[stage], strict=True))
        self.seen[stage].clear()
        self.metric(f"{stage}/loss").update(losses)
        logits = {f"{stage}/accuracy": steps[:, -1]}
        if steps.shape[1] == STEPS:
            logits |= dict(zip(after_steps(stage), steps.unbind(1), strict=True))
        for name, values in logits.items():
            self.metric(name).update(values, labels)
        for name in (f"{stage}/loss", *logits):
            self.log(
                name, self.metric(name), logger=None if stage == "test" else False
            )  # run/epoch_end.py hands on the others
        return steps, labels

    def metric(self, name: str) -> Metric:
        return cast(Metric, self.metrics[name])

    def on_train_start(self) -> None:
        """A run that goes on restores its optimizer's state; its values are those of the config, where one may have
        been changed, but for a learning rate that follows a schedule.
        """
        (optimizer,), (config,) = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        values = dict(optimizer.defaults)
        if not isinstance(config.scheduler, ConstantLR):
            del values["lr"]
        for group in optimizer.param_groups:
            group.update(values)
        planned, steps = length(config.scheduler), self.trainer.estimated_stepping_batches
        if planned not in (None, steps):
            raise UserError(
                f"trainer.max_epochs: {steps:,} steps, but this run's schedule was made for {planned:,} and cannot be "
                "stretched; start a new run."
            )

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        takes = inspect.signature(self.schedule).parameters
        steps = {name: self.trainer.estimated_stepping_batches for name in LENGTHS if name in takes}
        schedule = {"scheduler": self.schedule(optimizer, **steps), "interval": "step" if steps else "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weights for group in optimizer.param_groups for weights in group["params"]]


def length(scheduler: Any) -> int | None:
    """The steps it was made for, if it knows them."""
    return next((getattr(scheduler, name) for name in LENGTHS if hasattr(scheduler, name)), None)

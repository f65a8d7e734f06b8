"""Turns any network that maps frames to logits into a LightningModule with a loss, metrics, optimizer and schedule."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int64
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.orderings import SequenceSpec
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.encoder import Backbone
from quadrant_lstm.model.protocols import Frames, Lengths, as_argument, logits_after_steps
from quadrant_lstm.model.teachers import Teachers
from quadrant_lstm.text import NUM_CLASSES_OF_TOP5, measured_steps, step_accuracy_names

# The optimizer and the schedule


TOTAL_ARGUMENTS = ("total_steps", "T_max")  # torch's schedules without one of these are advanced once per epoch


def total_arguments(schedule: Callable[..., LRScheduler]) -> list[str]:
    """Returns the arguments that fix the number of steps of a schedule; without any, a run can train for longer."""
    known = inspect.signature(schedule).parameters
    return [name for name in TOTAL_ARGUMENTS if name in known]


def make(group: str, factory: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls the factory of an optimizer or schedule. Raises UserError if it refuses the values of the config."""
    try:
        return factory(*arguments, **options)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{group}: {str(error).rstrip('.')}; change a value of {group}.") from error


def is_constant(scheduler: Any) -> bool:
    return isinstance(scheduler, ConstantLR) and scheduler.factor == 1


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    return [weights for group in optimizer.param_groups for weights in group["params"]]


# The LightningModule


SPLITS = ("train", "val", "test")
Logits = Float[Tensor, "batch steps classes"]
Labels = Int64[Tensor, " batch"]


class Scores(NamedTuple):
    """Those of a batch."""

    losses: Float[Tensor, " batch"]
    labels: Labels
    predicted: Int64[Tensor, "batch steps"]  # after every step, or after the last step only
    in_top5: Bool[Tensor, " batch"] | None  # in validation and test, if there are enough classes


def means_over_classes(confusion: Int64[Tensor, "classes classes"]) -> dict[str, float]:
    """Returns the means of recall and of F1 over the classes that have samples. Those of torchmetrics 1.9 count a class
    without samples as 0 if it was predicted.
    """
    confusion = confusion.cpu()  # which has float64 everywhere
    samples, correct = confusion.sum(1), confusion.diagonal().double()
    recall, f1 = correct / samples, 2 * correct / (samples + confusion.sum(0))
    return {"balanced_accuracy": recall[samples > 0].mean().item(), "macro_f1": f1[samples > 0].mean().item()}


def average_windows(logits: Float[Tensor, "windows steps classes"], num_samples: int) -> Logits:
    """Returns the logarithms of the mean probabilities of each sample's windows, or the logits of its only one. In
    bf16, the means of several classes would often be equal.
    """
    if len(logits) == num_samples:
        return logits
    dtype = torch.promote_types(logits.dtype, torch.float32)
    by_sample = logits.log_softmax(2, dtype=dtype).unflatten(0, (num_samples, -1))
    return by_sample.logsumexp(1) - math.log(by_sample.shape[1])


class Classifier(LightningModule):
    """Trains and tests `network`. `optimizer` is called with the parameters, `schedule` with the optimizer. Checkpoints
    store `spec`, for `load_run`.

    Logs {train,val,test}/loss (means over images) and {train,val,test}/accuracy, and {val,test}/accuracy_step_1 and so
    on for networks with logits_per_step; for val and test also balanced_accuracy, macro_f1 and, from ten classes on,
    top5_accuracy. Sums are reduced over processes before they are divided, so images count once even if processes have
    different numbers of them. Metrics are updated once per epoch, from the scores of its batches: updating and logging
    them for every batch takes longer than a training step of a small network.

    In training, a sample's loss is multiplied by the weight of its class. The loss of a batch is the plain mean of
    these products: in the mean of torch's cross_entropy, which is divided by the weights in the batch, the influence of
    a sample would depend on the others of its batch, and on the number of processes.

    With `teachers`, the loss of the training is mixed with the divergence from their probabilities.
    """

    teachers: Teachers | None = None
    unreached: Sequence[tuple[nn.Parameter, Tensor]] = ()  # kernels, and masks of weights that meet only padding

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[..., LRScheduler],
        spec: SequenceSpec,
        label_smoothing: float = 0.0,
        class_weights: Float[Tensor, " classes"] | None = None,
    ):
        super().__init__()
        self.optimizer, self.schedule, self.label_smoothing = optimizer, schedule, label_smoothing
        stored = {key: list(value) if isinstance(value, tuple) else value for key, value in spec._asdict().items()}
        self.save_hyperparameters(stored, logger=False)
        self.network, self.spec = network, spec
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.metrics = nn.ModuleDict()
        for split in SPLITS:
            steps = step_accuracy_names(split, spec.num_steps)
            for name in (f"{split}/loss", f"{split}/accuracy", f"{split}/top5_accuracy", *steps):
                self.metrics[name] = MeanMetric(nan_strategy="disable")  # checking for NaN waits for the device
        self.confusion = MulticlassConfusionMatrix(spec.num_classes, validate_args=False)
        self.scores: dict[str, list[Scores]] = {split: [] for split in SPLITS}  # of the batches of an epoch

    def forward(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch classes"]:
        return self.network(frames, **as_argument(lengths))

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        frames, labels = batch.frames.to(self.dtype), batch.labels  # float64 with precision=64-true
        logits = self.network(frames, **self.options_of(batch))
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if self.teachers:
            losses = self.teachers.mixed(losses, logits, frames, batch.lengths)
        losses = losses if self.class_weights is None else losses * self.class_weights[labels]
        self.scores["train"].append(Scores(losses.detach(), labels, logits.detach().argmax(1, keepdim=True), None))
        return losses.mean()

    def on_fit_start(self) -> None:
        for teacher in self.teachers.networks if self.teachers else ():
            teacher.to(next(self.parameters()))  # its device and its type

    def on_train_epoch_start(self) -> None:
        for encoder in self.backbones():
            encoder.start_epoch(self.current_epoch)

    def on_after_backward(self) -> None:
        for kernel, mask in self.unreached:
            if kernel.grad is not None:
                kernel.grad.masked_fill_(mask.to(kernel.grad.device), 0.0)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.learning_rate = optimizer.param_groups[0]["lr"]  # a schedule changes it before the epoch ends

    def on_train_epoch_end(self) -> None:
        self.log_metrics("train")
        self.log("train/learning_rate", self.learning_rate, logger=False)
        self.log("train/weight_norm", get_total_norm(weights_of(self.trainer.optimizers[0])), logger=False)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.score("val", self.step_logits_of(batch), batch.labels)

    def on_validation_epoch_end(self) -> None:
        self.log_metrics("val")

    def on_test_epoch_start(self) -> None:
        self.tested: list[tuple[Tensor, Tensor]] = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        labels = batch.labels
        logits = average_windows(self.step_logits_of(batch), len(labels))
        self.score("test", logits, labels)
        self.tested.append((logits.cpu(), labels.cpu()))

    def on_test_epoch_end(self) -> None:
        self.log_metrics("test")
        # of this process only, on the CPU
        self.test_logits, self.test_labels = (torch.cat(batches) for batches in zip(*self.tested, strict=True))
        self.test_confusion: Int64[Tensor, "classes classes"] = self.confusion.compute()

    def test_results(self) -> dict[str, Any]:
        """Returns the metrics of the last test, over the images of all processes."""
        correct, images = int(self.test_confusion.diagonal().sum()), int(self.test_confusion.sum())
        metrics = self.trainer.callback_metrics
        results = {"test/accuracy": correct / images, "test/loss": metrics["test/loss"].item(), "test/images": images}
        results |= {f"test/{name}": value for name, value in means_over_classes(self.test_confusion).items()}
        shares = ("test/top5_accuracy", *step_accuracy_names("test", self.spec.num_steps))
        return results | {name: round(metrics[name].item() * images) / images for name in shares if name in metrics}

    def step_logits_of(self, batch: Batch) -> Logits:
        return logits_after_steps(self.network, batch.frames.to(self.dtype), **self.options_of(batch))

    def options_of(self, batch: Batch) -> dict[str, Tensor]:
        kept = {} if batch.features is None else {"encoded": batch.features.to(self.dtype)}
        return {**as_argument(batch.lengths), **kept}

    def score(self, split: str, logits: Logits, labels: Labels) -> None:
        """Keeps the scores of a batch of the validation or the test."""
        last, in_top5 = logits[:, -1], None
        if self.spec.num_classes >= NUM_CLASSES_OF_TOP5:
            in_top5 = (last.topk(5).indices == labels[:, None]).any(1)
        losses = cross_entropy(last.float(), labels, reduction="none")
        self.scores[split].append(Scores(losses, labels, logits.argmax(2), in_top5))

    def log_metrics(self, split: str) -> None:
        """Logs the metrics of the epoch's scores, and clears these."""
        losses, labels, predicted, in_top5 = zip(*self.scores[split], strict=True)
        self.scores[split].clear()
        true, predictions = torch.cat(labels), torch.cat(predicted)
        correct = predictions == true[:, None]
        values = {f"{split}/loss": torch.cat(losses), f"{split}/accuracy": correct[:, -1]}
        if split != "train":
            if correct.shape[1] == self.spec.num_steps:
                after = (correct[:, step - 1] for step in measured_steps(self.spec.num_steps))
                values |= dict(zip(step_accuracy_names(split, self.spec.num_steps), after, strict=True))
            if in_top5[0] is not None:
                values[f"{split}/top5_accuracy"] = torch.cat(in_top5)
            self.confusion.reset()
            self.confusion.update(predictions[:, -1], true)
            for name, mean in means_over_classes(self.confusion.compute()).items():
                self.log(f"{split}/{name}", mean, logger=False)
        metrics = cast(Mapping[str, Metric], self.metrics)
        for name, scores in values.items():
            metrics[name].set_dtype(torch.float32).update(scores)  # bf16 has steps of 1/256
            self.log(name, metrics[name], logger=False)  # callbacks/checkpoints.py and the dashboard log them

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.teachers:
            checkpoint["teachers"] = self.teachers.checksum

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError if a run resumes whose schedule was made for another number of training steps, or whose
        teachers have changed.
        """
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        if checkpoint.get("teachers") != (self.teachers.checksum if self.teachers else None):
            raise UserError("teacher: holds other networks than when this run began; restore them, or start a new run.")
        (schedule,), num_steps = checkpoint["lr_schedulers"], self.trainer.estimated_stepping_batches
        planned = next((schedule[name] for name in TOTAL_ARGUMENTS if name in schedule), num_steps)
        if planned != num_steps:
            rule = f"{num_steps:,} steps, but this run's schedule was made for {planned:,}"
            raise UserError(f"trainer.max_epochs: {rule}; restore it and the samples, or start a new run with init=.")

    def on_train_start(self) -> None:
        """Replaces the settings that resuming has restored by those of the config, except those that are scheduled."""
        (optimizer,), (config,) = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        scheduler = config.scheduler
        scheduled = set() if is_constant(scheduler) else {"lr"}
        scheduled |= {"betas", "momentum"} if getattr(scheduler, "cycle_momentum", False) else set()
        known = inspect.signature(type(optimizer)).parameters  # some keep numbers of their own beside these
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
        settings = {name: value for name, value in optimizer.defaults.items() if takes_any or name in {"lr", *known}}
        for group in optimizer.param_groups:
            for name in ("amsgrad", "centered"):
                if optimizer.defaults.get(name) and not group.get(name):
                    raise UserError(f"optimizer.{name}: needs averages that this run has not kept; start a new run.")
            group.update({name: value for name, value in settings.items() if name not in scheduled})
            group["lr"] *= 1.0 if "lr" in scheduled else group.get("lr_factor", 1.0)

    def backbones(self) -> Iterator[Backbone]:
        return (part for part in self.network.modules() if isinstance(part, Backbone))

    def configure_optimizers(self) -> Any:
        # The factor of the learning rate, and whether weights are trained later: SGD needs a group of these
        kinds: dict[nn.Parameter, tuple[float, bool]] = {}
        for encoder in self.backbones():
            kind = encoder.lr_factor, 0 < encoder.frozen_epochs < math.inf
            kinds |= dict.fromkeys(encoder.parameters(), kind)
        groups: dict[Any, list[nn.Parameter]] = {(1.0, False): []}  # first, because its learning rate is logged
        for weight in self.parameters():
            if weight.requires_grad:
                groups.setdefault(kinds.get(weight, (1.0, False)), []).append(weight)
        named = [{"params": weights, "lr_factor": factor} for (factor, _), weights in groups.items()]
        optimizer = make("optimizer", self.optimizer, named)
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_factor"]
        given, factors = getattr(self.schedule, "keywords", {}), [factor for factor, _ in groups]
        if given.get("eta_min") and {*factors} != {1.0}:
            rule = f"{given['eta_min']} is one rate for all weights, but model.encoder.lr_factor scales some"
            raise UserError(f"schedule.eta_min: {rule}; write 0.")
        names = total_arguments(self.schedule)
        options: dict[str, Any] = dict.fromkeys(names, self.trainer.estimated_stepping_batches) if names else {}
        for rate in given.keys() & {"max_lr", "base_lr"}:  # one for each group
            options[rate] = [given[rate] * factor for factor in factors]
        scheduler = make("schedule", self.schedule, optimizer, **options)
        interval = "step" if names else "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

"""What a run shows in TensorBoard besides its scalars. A picture is one function in a module of its own; to add one,
call it here at the moment it belongs to.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm.dashboard.augmentation import draw_augmentation
from quadrant_lstm.dashboard.confusion import draw_confusion
from quadrant_lstm.dashboard.mistakes import draw_mistakes
from quadrant_lstm.dashboard.orderings import draw_orderings
from quadrant_lstm.dashboard.tensorboard import undisturbed

STEPS = [f"val/accuracy_step_{step}" for step in range(1, 5)]
CHARTS = {  # of the tab Custom Scalars: several curves in one
    "validation": {"accuracy after each step": ["Multiline", STEPS]},
    "training and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy"]],
    },
}


class Dashboard(pl.Callback):
    def on_fit_start(self, trainer: Any, module: pl.LightningModule) -> None:
        for writer in writers(trainer):
            writer.add_custom_scalars(CHARTS)
        data = trainer.datamodule
        shown = (data.train_orderings or data.orderings)[: len(data.orderings)]
        add(trainer, "data/orderings", draw_orderings(data.test[0][0], shown))
        images = data.train[data.train_indices[:6]][0]
        if data.augmentation(images) is not images:
            add(trainer, "data/augmentation", draw_augmentation(images, data.augmentation))

    def on_test_end(self, trainer: Any, module: Any) -> None:
        add(trainer, "test/confusion", draw_confusion(module.test_confusion))
        order = torch.cat([*trainer.test_dataloaders.sampler])[: len(module.test_labels)]
        images = trainer.datamodule.test[order][0]
        add(trainer, "test/mistakes", draw_mistakes(images, module.test_labels, module.test_logits[:, -1]))


def add(trainer: pl.Trainer, tag: str, figure: Figure) -> None:
    for writer in writers(trainer):
        with undisturbed():
            writer.add_figure(tag, figure, trainer.global_step)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []

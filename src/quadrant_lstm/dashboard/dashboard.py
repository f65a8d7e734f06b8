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
from quadrant_lstm.dashboard.belief import draw_belief
from quadrant_lstm.dashboard.calibration import draw_calibration
from quadrant_lstm.dashboard.classes import draw_classes
from quadrant_lstm.dashboard.confusion import draw_confusion
from quadrant_lstm.dashboard.hidden import draw_hidden, with_a_quadrant_hidden, with_an_ordering_hidden
from quadrant_lstm.dashboard.mistakes import draw_mistakes, surest_mistakes
from quadrant_lstm.dashboard.orderings import draw_orderings
from quadrant_lstm.dashboard.tensorboard import undisturbed
from quadrant_lstm.data.orderings import sequences

SHOWN = 6  # images
PROBED = 1000  # images that are shown with parts hidden
TITLES = {"belief/first": "the first test images", "belief/mistakes": "test images that it is surest to be another"}
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
        data, steps, labels = trainer.datamodule, module.test_logits, module.test_labels
        order = torch.cat([*trainer.test_dataloaders.sampler])[: len(labels)]
        images, logits = data.test[order][0].to(labels.device), steps[:, -1]
        add(trainer, "test/confusion", draw_confusion(module.test_confusion))
        add(trainer, "test/classes", draw_classes(module.test_confusion))
        add(trainer, "test/calibration", draw_calibration(logits, labels))
        add(trainer, "test/mistakes", draw_mistakes(images, labels, logits))
        if data.test_orderings:
            return  # the others show frames, or make some, and each image has its own
        if steps.shape[1] == 4:
            surest = surest_mistakes(logits, labels)[:SHOWN]
            for tag, some in (("belief/first", torch.arange(SHOWN)), ("belief/mistakes", surest.cpu())):
                frames = sequences(images[some], data.orderings)
                add(trainer, tag, draw_belief(frames, steps[some], labels[some], TITLES[tag]))
        module.network.eval()
        some, known = images[:PROBED], labels[:PROBED]
        quadrants = with_a_quadrant_hidden(module.network, some, known, data.orderings)
        orderings = with_an_ordering_hidden(module.network, some, known, data.orderings)
        names = ["".join(map(str, ordering)) for ordering in data.orderings]
        accuracy = (logits[:PROBED].argmax(1) == known).float().mean().item()
        add(trainer, "test/hidden", draw_hidden(quadrants, orderings, names, known, accuracy))


def add(trainer: pl.Trainer, tag: str, figure: Figure) -> None:
    for writer in writers(trainer):
        with undisturbed():
            writer.add_figure(tag, figure, trainer.global_step)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []

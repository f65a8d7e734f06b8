"""Writes the pictures of a run to its loggers, beside the scalars.

The functions in pictures/ draw them. To add one, call its function here and give its tag a caption in report.py.
"""

import io
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm.dashboard.pictures import occlusion
from quadrant_lstm.dashboard.pictures.belief import draw_belief
from quadrant_lstm.dashboard.pictures.calibration import draw_calibration
from quadrant_lstm.dashboard.pictures.confusion import draw_classes, draw_confusion
from quadrant_lstm.dashboard.pictures.data import draw_augmentation, draw_orderings
from quadrant_lstm.dashboard.pictures.inside import draw_features, draw_gates
from quadrant_lstm.dashboard.pictures.mistakes import COLUMNS, ROWS, draw_mistakes, most_confident_mistakes
from quadrant_lstm.dashboard.tabs import BATCH_SIZE, add_graph, add_precision_recall, add_states
from quadrant_lstm.dashboard.tensorboard import TensorBoard
from quadrant_lstm.dashboard.trackers import Tracker
from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.protocols import Inspectable, in_full
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.processes.signals import signals_deferred
from quadrant_lstm.run_folder import CONFIG

log = logging.getLogger(__name__)
NUM_BELIEFS = 6  # images, and as many mistakes, whose class probabilities are drawn after each step
NUM_OCCLUDED = 1000  # images on which occlusion is measured
MAX_MISTAKE_PAGES = 3
NUM_PROJECTED = 2000  # images whose last hidden state is shown in the Projector tab
CHARTS = {  # of the Custom Scalars tab; each curve of a chart is a regular expression
    "training and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/accuracy$", "val/accuracy$"]],
    },
}


class Dashboard(pl.Callback):
    """Logs the pictures, and keeps them as PNGs, by their tags, for report.html."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self.network = ""  # the table of the network's stages

    @signals_deferred()
    def on_fit_start(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule
        self.network = str(describe(module.network, torch.zeros(1, *data.batch_shape[1:])))
        steps = {"accuracy after each step": ["Multiline", list(step_accuracy_names("val", data.num_steps))]}
        for writer in writers(trainer):
            writer.add_custom_scalars({"validation": steps} | CHARTS)
            writer.add_text("run/network", as_markdown(self.network), trainer.global_step)
            if (config := Path(writer.log_dir) / CONFIG).exists():
                writer.add_text("run/config", as_markdown(config.read_text()), trainer.global_step)
        shown = (data.train_orderings or data.orderings)[: len(data.orderings)]
        self.add(trainer, "data/orderings", draw_orderings(data.test[0][0], shown, data.grid))
        images = data.train[data.train_indices[:6]][0]
        if data.augmentation(images) is not images:
            self.add(trainer, "data/augmentation", draw_augmentation(images, data.augmentation))

    @signals_deferred()
    def on_test_end(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data, steps, labels = trainer.datamodule, module.test_logits, module.test_labels
        indices = torch.cat([*trainer.test_dataloaders.sampler])[: len(labels)]  # of this process
        images, logits = data.test[indices][0].to(labels.device), steps[:, -1]
        mistakes = most_confident_mistakes(logits, labels)
        self.add(trainer, "test/confusion", draw_confusion(module.test_confusion))
        self.add(trainer, "test/classes", draw_classes(module.test_confusion))
        self.add(trainer, "test/calibration", draw_calibration(logits, labels))
        for page in range(min(MAX_MISTAKE_PAGES, max(1, -(-len(mistakes) // (ROWS * COLUMNS))))):
            figure = draw_mistakes(images, labels, logits, start=page * ROWS * COLUMNS)
            self.add(trainer, f"test/mistakes_{page + 1}", figure)
        for writer in writers(trainer):
            add_precision_recall(writer, logits, labels, trainer.global_step)
        if data.test_orderings:  # each image has its own ordering, and the pictures below show frames of data.orderings
            return
        if steps.shape[1] == data.num_steps:
            self.show_beliefs(trainer, indices, images, labels, steps, mistakes.tolist())
        self.show_network(trainer, module.network.eval(), images, labels, (logits.argmax(1) == labels).long())

    def show_beliefs(
        self, trainer: Any, indices: Tensor, images: Tensor, labels: Tensor, steps: Tensor, mistakes: list[int]
    ) -> None:
        """`indices` are those of the test set, `steps` the logits after each step, `mistakes` places in `images`."""
        for name, places in (("image", list(range(len(labels)))), ("mistake", mistakes)):
            for number, place in enumerate(places[:NUM_BELIEFS], start=1):
                frames = frames_of(trainer, images[place : place + 1])[0]
                label = int(labels[place])
                title = f"test image {indices[place]} of class {label}: predictions after each step"
                self.add(trainer, f"belief/{name}_{number}", draw_belief(frames, steps[place], label, title))

    def show_network(self, trainer: Any, network: nn.Module, images: Tensor, labels: Tensor, correct: Tensor) -> None:
        """`correct` is 1 for each image that is classified correctly when nothing is occluded."""
        orderings, grid = trainer.datamodule.orderings, trainer.datamodule.grid
        some, of_some, unoccluded = (values[:NUM_OCCLUDED] for values in (images, labels, correct))
        by_piece = occlusion.correct_by_occluded_piece(network, some, of_some, orderings, grid)
        any_frames = in_full(network)
        by_ordering = occlusion.correct_by_occluded_ordering(any_frames, some, of_some, orderings, grid)
        self.add(trainer, "test/occluded_piece", occlusion.draw_occluded_pieces(by_piece, of_some, grid))
        figure = occlusion.draw_occluded_orderings(by_ordering, orderings, grid, unoccluded)
        self.add(trainer, "test/occluded_ordering", figure)
        for writer in writers(trainer):
            try:
                add_graph(writer, any_frames, frames_of(trainer, images[:2]))
            except (RuntimeError, torch.jit.TracingCheckError) as error:
                reason = str(error).partition("\n")[0]
                log.warning(f"dashboard: torch.jit cannot trace the graph of this network: {reason}")
        if isinstance(network, Inspectable):
            self.show_inside(trainer, network, images[:NUM_PROJECTED], labels[:NUM_PROJECTED])

    def show_inside(self, trainer: Any, network: Inspectable, images: Tensor, labels: Tensor) -> None:
        frames = frames_of(trainer, images[:1])
        for name, figure in draw_features(network, frames).items():
            self.add(trainer, f"inside/{name}", figure)
        if isinstance(network.recurrent, LSTM):
            title = f"LSTM on the first test image, of class {labels[0]}"
            self.add(trainer, "inside/gates", draw_gates(network, frames, title))
        for writer in writers(trainer):
            batches = (frames_of(trainer, batch) for batch in images.split(BATCH_SIZE))
            add_states(writer, network, batches, images, labels, trainer.global_step)

    def add(self, trainer: Any, tag: str, figure: Figure) -> None:
        self.pictures[tag] = as_png(figure, SCALE)
        pixels = np.asarray(Image.open(io.BytesIO(self.pictures[tag])).convert("RGB").reduce(SCALE))
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.add_picture(tag, pixels, trainer.global_step)


def frames_of(trainer: Any, images: Tensor) -> Tensor:
    return sequences(images, trainer.datamodule.orderings, trainer.datamodule.grid)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def as_markdown(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())  # a code block

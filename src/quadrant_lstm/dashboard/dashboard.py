"""Writes the pictures of a run to its loggers, beside the scalars.

The functions in pictures/ draw them. To add one, call its function here and give its tag a caption in report.py.
"""

import io
import logging
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm.dashboard.inputs import BATCH_SIZE
from quadrant_lstm.dashboard.pictures import occlusion
from quadrant_lstm.dashboard.pictures.belief import draw_belief
from quadrant_lstm.dashboard.pictures.calibration import draw_calibration
from quadrant_lstm.dashboard.pictures.clips import draw_clips
from quadrant_lstm.dashboard.pictures.confusion import draw_classes, draw_confusion
from quadrant_lstm.dashboard.pictures.data import draw_augmentation, draw_orderings
from quadrant_lstm.dashboard.pictures.inside import draw_features, draw_gates
from quadrant_lstm.dashboard.pictures.mistakes import ROWS, columns_for, draw_mistakes, most_confident_mistakes
from quadrant_lstm.dashboard.pictures.step_occlusion import (
    accuracy_by_blank_step,
    accuracy_by_order,
    draw_occluded_steps,
)
from quadrant_lstm.dashboard.tabs import add_graph, add_precision_recall, add_states
from quadrant_lstm.dashboard.tensorboard import TensorBoard
from quadrant_lstm.dashboard.trackers import Tracker
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.scans import shown_orderings
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.protocols import Inspectable, in_full
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.processes.signals import signals_deferred
from quadrant_lstm.run_folder import CONFIG

log = logging.getLogger(__name__)
NUM_CLIPS = 4  # that are drawn before training
NUM_BELIEFS = 6  # samples, and as many mistakes, whose class probabilities are drawn after each step
NUM_OCCLUDED = 1000  # samples on which occlusion is measured
MAX_BYTES = 100_000_000  # of frames; fewer samples are used if their frames are large
MAX_MISTAKE_PAGES = 3
NUM_PROJECTED = 2000  # samples whose last hidden state is shown in the Projector tab
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
        self.stages = ""  # the table of the network's stages

    @signals_deferred()
    def on_fit_start(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule
        self.stages = str(describe(module.network, torch.zeros(1, *data.batch_shape[1:])))
        charts = {"accuracy after each step": ["Multiline", list(step_accuracy_names("val", data.spec.num_steps))]}
        for writer in writers(trainer):
            writer.add_custom_scalars({"validation": charts} | CHARTS)
            writer.add_text("run/network", as_markdown(self.stages), trainer.global_step)
            if (config := Path(writer.log_dir) / CONFIG).exists():
                writer.add_text("run/config", as_markdown(config.read_text()), trainer.global_step)
        self.show_data(trainer, data)

    def show_data(self, trainer: Any, data: SequenceDataModule) -> None:
        if not isinstance(data, ImageSequences):
            samples = data.test_samples(torch.arange(min(NUM_CLIPS, len(data.test))))
            names = [data.spec.class_names[label] for label in samples.labels.tolist()]
            self.add(trainer, "data/clips", draw_clips(samples.unpadded(), names))
            return
        shown = shown_orderings(data.orderings, data.train_orderings)
        self.add(trainer, "data/orderings", draw_orderings(data.test_pictures(torch.arange(1))[0], shown, data.grid))
        images = data.train[data.train_indices[:6]][0]
        if data.augmentation(images) is not images:
            self.add(trainer, "data/augmentation", draw_augmentation(images, data.augmentation))

    @signals_deferred()
    def on_test_end(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule
        tensors = (module.test_logits, module.test_labels, module.test_confusion)
        steps, labels, confusion = (tensor.cpu() for tensor in tensors)
        names, logits = data.spec.class_names, steps[:, -1]
        indices = torch.cat([*trainer.test_dataloaders.sampler]).cpu()[: len(labels)]  # of this process
        mistakes = most_confident_mistakes(logits, labels)
        self.add(trainer, "test/confusion", draw_confusion(confusion, names))
        self.add(trainer, "test/classes", draw_classes(confusion, names))
        self.add(trainer, "test/calibration", draw_calibration(logits, labels))
        per_page = ROWS * columns_for(*data.test_pictures(indices[:1]).shape[2:])
        for page in range(1, min(MAX_MISTAKE_PAGES, max(1, -(-len(mistakes) // per_page))) + 1):
            figure = draw_mistakes(
                lambda some: data.test_pictures(indices[some]), mistakes, labels, logits, names, page
            )
            self.add(trainer, f"test/mistakes_{page}", figure)
        for writer in writers(trainer):
            add_precision_recall(writer, logits, labels, names, trainer.global_step)
        if isinstance(data, ImageSequences) and data.test_orderings:
            return  # each image has its own ordering, and the pictures below show frames of data.orderings
        if steps.shape[1] == data.spec.num_steps:
            self.show_beliefs(trainer, data, indices, steps, mistakes)
        network = module.network.eval()
        fitting = MAX_BYTES // math.prod(data.batch_shape[1:])
        some = indices[: max(1, min(NUM_OCCLUDED, fitting))]
        if isinstance(data, ImageSequences):
            self.show_occlusion(trainer, network, data, some, (logits.argmax(1) == labels).long())
        else:
            samples = data.test_samples(some)
            by_step, by_order = accuracy_by_blank_step(network, samples), accuracy_by_order(network, samples)
            figure = draw_occluded_steps(by_step, by_order, len(samples.labels))
            self.add(trainer, "test/occluded_step", figure)
        self.show_network(trainer, network, data, indices[: max(2, min(NUM_PROJECTED, fitting))])

    def show_beliefs(
        self, trainer: Any, data: SequenceDataModule, indices: Tensor, steps: Tensor, mistakes: Tensor
    ) -> None:
        """`indices` are those of the test set, `steps` the logits after each step, `mistakes` places among them."""
        names = data.spec.class_names
        for name, places in (("example", torch.arange(len(indices))), ("mistake", mistakes)):
            some = places[:NUM_BELIEFS]
            samples = data.test_samples(indices[some])
            shown = zip(some.tolist(), samples.unpadded(), samples.labels.tolist(), strict=True)
            for number, (place, clip, label) in enumerate(shown, start=1):
                title = f"test sample {indices[place]} of class {names[label]}: predictions after each step"
                figure = draw_belief(clip, steps[place, : len(clip)], label, names, title)
                self.add(trainer, f"belief/{name}_{number}", figure)

    def show_occlusion(
        self, trainer: Any, network: nn.Module, data: ImageSequences, indices: Tensor, correct: Tensor
    ) -> None:
        """`correct` is 1 for each image that is classified correctly when nothing is occluded."""
        images, labels = data.test[indices][:2]
        orderings, grid = data.orderings, data.grid
        by_piece = occlusion.correct_by_occluded_piece(network, images, labels, orderings, grid)
        by_ordering = occlusion.correct_by_occluded_ordering(in_full(network), images, labels, orderings, grid)
        figure = occlusion.draw_occluded_pieces(by_piece, labels, grid, data.spec.class_names)
        self.add(trainer, "test/occluded_piece", figure)
        figure = occlusion.draw_occluded_orderings(by_ordering, orderings, grid, correct[: len(images)])
        self.add(trainer, "test/occluded_ordering", figure)

    def show_network(self, trainer: Any, network: nn.Module, data: SequenceDataModule, indices: Tensor) -> None:
        """`indices` are those of the test samples in the Projector tab."""
        device = trainer.strategy.root_device
        first = data.test_samples(indices[:2]).to(device)
        for writer in writers(trainer):
            try:
                add_graph(writer, in_full(network), first.frames)
            except (RuntimeError, torch.jit.TracingCheckError) as error:
                reason = str(error).partition("\n")[0]
                log.warning(f"dashboard: torch.jit cannot trace the graph of this network: {reason}")
        if not isinstance(network, Inspectable):
            return
        frames = first.unpadded()[0][None]
        for name, figure in draw_features(network, frames).items():
            self.add(trainer, f"inside/{name}", figure)
        if isinstance(network.recurrent, LSTM):
            title = f"LSTM on the first test sample, of class {data.spec.class_names[int(first.labels[0])]}"
            self.add(trainer, "inside/gates", draw_gates(network, frames, title))
        for writer in writers(trainer):
            batches = (data.test_samples(some).to(device) for some in indices.split(BATCH_SIZE))
            add_states(
                writer, network, batches, data.test_pictures(indices), data.spec.class_names, trainer.global_step
            )

    def add(self, trainer: Any, tag: str, figure: Figure) -> None:
        self.pictures[tag] = as_png(figure, SCALE)
        pixels = np.asarray(Image.open(io.BytesIO(self.pictures[tag])).convert("RGB").reduce(SCALE))
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.add_picture(tag, pixels, trainer.global_step)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def as_markdown(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())  # a code block

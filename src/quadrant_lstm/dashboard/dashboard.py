"""Writes the pictures of a run, which gallery.py yields, to its loggers, and to TensorBoard also texts, charts, curves,
the graph of the network and its states.
"""

import io
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm.dashboard import gallery
from quadrant_lstm.dashboard.network_inputs import BATCH_SIZE
from quadrant_lstm.dashboard.tabs import add_graph, add_precision_recall, add_states
from quadrant_lstm.dashboard.tensorboard_logger import TensorBoard
from quadrant_lstm.dashboard.tracker import Tracker
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.files import yaml_with_short_lists
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.protocols import Inspectable, in_full
from quadrant_lstm.plotting import SCALE, as_png, undrawable
from quadrant_lstm.run_folder import CONFIG
from quadrant_lstm.signals import signals_deferred
from quadrant_lstm.text import step_accuracy_names

log = logging.getLogger(__name__)
NUM_PROJECTED = 2000  # samples whose last hidden state is shown in the Projector tab
CHARTS = {  # of the Custom Scalars tab; each curve of a chart is a regular expression
    "training and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/accuracy$", "val/accuracy$"]],
    },
}


class Dashboard(pl.Callback):
    """Logs the pictures, and keeps them as PNGs, by their tags, for report.html.

    Signals are deferred while a picture is drawn, because matplotlib turns any exception in its transformations into a
    ValueError, and while something is written to a logger; not while it is computed, which may take long.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self.stages: list[tuple[str, ...]] = []  # the table of the network's stages
        self.numbered: dict[str, str] = {}  # the names of the classes that pictures show by their numbers

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule
        description = describe(module.network, torch.zeros(1, *data.batch_shape[1:]))
        self.stages = description.rows()
        self.number_classes(data)
        steps = {"accuracy after each step": ["Multiline", list(step_accuracy_names("val", data.spec.num_steps))]}
        charts = {"validation": steps} | CHARTS if len(data.validation_indices) else CHARTS
        for writer in writers(trainer):
            with signals_deferred():
                writer.add_custom_scalars(charts)
                writer.add_text("run/network", as_markdown(str(description)), trainer.global_step)
                if (config := Path(writer.log_dir) / CONFIG).exists():
                    writer.add_text("run/config", as_markdown(yaml_with_short_lists(config)), trainer.global_step)
        self.add(trainer, gallery.data_pictures(data))

    def on_test_end(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data, network = trainer.datamodule, module.network.eval()
        tensors = (module.test_logits, module.test_labels, module.test_confusion)
        logits, labels, confusion = (tensor.cpu() for tensor in tensors)
        indices = torch.cat([*trainer.test_dataloaders.sampler]).cpu()[: len(labels)]  # of this process
        tested = gallery.TestOutputs(indices, logits, labels, confusion)
        self.add(trainer, gallery.prediction_pictures(data, tested))
        for writer in writers(trainer):
            add_precision_recall(writer, tested.logits, labels, data.spec.class_names, trainer.global_step)
        if isinstance(data, ImageSequences) and data.test_orderings:
            return  # each image was tested in one of these orderings, and not in data.orderings
        self.add(trainer, gallery.network_pictures(network, data, tested))
        for writer in writers(trainer):
            add_network(writer, network, data, indices, trainer.global_step)

    def number_classes(self, data: SequenceDataModule) -> None:
        """Warns once of classes whose names no font can write."""
        drawn = zip(gallery.drawn_names(data), data.spec.class_names, strict=True)
        self.numbered = {number: name for number, name in drawn if number != name}
        for number, name in list(self.numbered.items())[:1]:
            log.warning(
                f"dashboard: no font of this machine has {', '.join(undrawable(name))}; pictures show {number} instead "
                f"of {name}, and so on. To see the names, install a font that has them, e.g. Debian's fonts-noto-cjk."
            )

    def add(self, trainer: Any, pictures: gallery.Pictures) -> None:
        for tag, figure in pictures:
            with signals_deferred():
                self.pictures[tag] = as_png(figure, SCALE)
            pixels = np.asarray(Image.open(io.BytesIO(self.pictures[tag])).convert("RGB").reduce(SCALE))
            for logger in trainer.loggers:
                if isinstance(logger, Tracker):
                    with signals_deferred():
                        logger.add_picture(tag, pixels, trainer.global_step)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def add_network(
    writer: SummaryWriter, network: nn.Module, data: SequenceDataModule, indices: Int64[Tensor, " samples"], step: int
) -> None:
    """Writes what the tabs Graphs and Projector show. `indices` are those of test samples."""
    try:
        add_graph(writer, in_full(network), data.test_samples(indices[:2]).frames)
    except (RuntimeError, torch.jit.TracingCheckError) as error:
        reason = str(error).partition("\n")[0]
        log.warning(f"dashboard: torch.jit cannot trace the graph of this network: {reason}")
    if isinstance(network, Inspectable):
        some = indices[: data.num_that_fit(NUM_PROJECTED)]
        batches = map(data.test_samples, some.split(BATCH_SIZE))
        add_states(writer, network, batches, data.test_pictures(some), data.spec.class_names, step)


def as_markdown(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())  # a code block

"""Writes the pictures of a run, which gallery.py yields, to its loggers, and to TensorBoard also texts, charts, curves,
the graph of the network and its states.
"""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Int64, Num
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from quadrant_lstm import files, plotting, run_folder, text
from quadrant_lstm.config.check import OF_TEACHER
from quadrant_lstm.dashboard import gallery
from quadrant_lstm.dashboard.loggers import add_picture
from quadrant_lstm.dashboard.pictures.network import as_arguments, as_inputs
from quadrant_lstm.data.datamodule import SequenceDataModule, num_at_once
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import scaled
from quadrant_lstm.model.describe import describe
from quadrant_lstm.model.protocols import Inspectable, in_full
from quadrant_lstm.signals import signals_deferred

# TensorBoard's tabs Graphs, PR Curves, Projector and HParams


log = logging.getLogger(__name__)
MAX_CLASSES = 20  # that have a precision-recall curve
NUM_PROJECTED = 2000  # samples whose last hidden state is shown in the Projector tab
BEST_ACCURACY = "val/best_accuracy"  # a curve of its own: of val/accuracy, HParams would show the last value


@signals_deferred()
def add_graph(writer: SummaryWriter, network: nn.Module, frames: Num[Tensor, "batch steps ..."]) -> None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # a picture may hold for this input only
            warnings.filterwarnings("ignore", "`torch.jit.trace", FutureWarning)  # TensorBoard has no other way
            writer.add_graph(network, as_inputs(frames, network))
    except (RuntimeError, torch.jit.TracingCheckError) as error:
        reason = str(error).partition("\n")[0]
        log.warning(f"dashboard: torch.jit cannot trace the graph of this network: {reason}")


@signals_deferred()
def add_precision_recall(writer: SummaryWriter, tested: gallery.TestOutputs, names: Sequence[str], step: int) -> None:
    probabilities = tested.logits.float().softmax(1)
    for label, name in enumerate(names[:MAX_CLASSES]):
        writer.add_pr_curve(f"precision_recall/{name}", tested.labels == label, probabilities[:, label], step)


def add_states(
    writer: SummaryWriter, network: Inspectable, data: SequenceDataModule, indices: Int64[Tensor, " samples"], step: int
) -> None:
    """Writes the recurrent layer's last output for test samples, with the name of its class and a picture of each."""
    indices = indices[gallery.spread(len(indices), data.num_that_fit(NUM_PROJECTED))]
    states, labels = [], []
    with torch.inference_mode():
        for batch in map(data.test_samples, indices.split(num_at_once(data.batch_shape[1:]))):
            frames, options = as_arguments(batch, network)
            states.append(network.outputs_per_step(frames, **options)[:, -1])
            labels += [data.spec.class_names[label] for label in batch.labels.tolist()]
    pictures = scaled(data.test_pictures(indices))
    pictures = 1 - pictures if pictures.shape[1] == 1 else pictures  # what is drawn is dark, as in other pictures
    with signals_deferred():
        writer.add_embedding(torch.cat(states).float(), labels, pictures, step, tag="last_state")


@signals_deferred()
def log_results(trainer: pl.Trainer, values: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Logs the final metrics, and in TensorBoard's tab HParams the values of the hyperparameters beside them."""
    final = {"test/accuracy": results["test/accuracy"], "test/loss": results["test/loss"]}
    final |= {BEST_ACCURACY: results["val/accuracy"]} if "val/accuracy" in results else {}
    known = {*final, "test/images"}
    others = {name: results[name] for name in results if name.startswith("test/") and name not in known}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_metrics(others, trainer.global_step)
            logger.log_hyperparams(dict(values), final, trainer.global_step)
        else:
            logger.log_metrics(final | others | {"best_epoch": results["best_epoch"]}, trainer.global_step)
        logger.save()


def hyperparameters(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the values of the keys that the run's sweep varies; without a sweep, of all keys of data, model,
    optimizer and schedule, and a few others, that are neither turned off nor interpolated from another key.
    `overrides` are those that the run was started with: they name the chosen options of config groups.
    """
    if cfg.swept:
        typed, values = text.assigned(overrides), {key: OmegaConf.select(cfg, key) for key in cfg.swept}
        choices = (DictConfig, type(None))
        return {key: typed.get(key) if isinstance(value, choices) else value for key, value in values.items()}
    shown = {"seed": cfg.seed} | {key: cfg.get(key) or None for key in ("label_smoothing", "class_weights")}
    shown |= {key: cfg[key] for key in ("teacher", *OF_TEACHER) if cfg.get("teacher")}
    shown |= {key: OmegaConf.select(cfg, key) for key in ("trainer.max_epochs", "trainer.callbacks.ema.decay")}
    shown |= {group: OmegaConf.to_container(cfg[group]) for group in ("data", "model", "optimizer", "schedule")}
    return flattened("", shown)


def flattened(key: str, value: Any) -> dict[str, Any]:
    """Flattens nested dicts into dotted keys, without `_target_`, null, interpolations and augmentation that is off."""
    if isinstance(value, dict):
        named = {f"{key}.{name}".lstrip("."): child for name, child in value.items() if not name.startswith("_")}
        return {name: leaf for path, child in named.items() for name, leaf in flattened(path, child).items()}
    is_off = value is None or (key.startswith("data.augmentation.") and not value)
    if is_off or (isinstance(value, str) and "${" in value):
        return {}
    return {key: value}


# The dashboard


CODE_BLOCK = " " * 4  # before each line, in Markdown
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
        data, step = trainer.datamodule, trainer.global_step
        description = describe(module.network, torch.zeros(1, *data.batch_shape[1:]))
        self.stages = description.rows()
        drawn = zip(gallery.drawn_names(data), data.spec.class_names, strict=True)
        self.numbered = {number: name for number, name in drawn if number != name}
        steps = {"accuracy after each step": ["Multiline", list(text.step_accuracy_names("val", data.spec.num_steps))]}
        charts = {"validation": steps} | CHARTS if len(data.validation_indices) else CHARTS
        for writer in writers(trainer):
            with signals_deferred():
                writer.add_custom_scalars(charts)
                writer.add_text("run/network", indent(str(description), CODE_BLOCK), step)
                if (config := Path(writer.log_dir) / run_folder.CONFIG).exists():
                    writer.add_text("run/config", indent(files.yaml_with_short_lists(config), CODE_BLOCK), step)
        self.add(trainer, gallery.data_pictures(data))

    def on_test_end(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        data, network, step = trainer.datamodule, module.network.eval(), trainer.global_step
        logits, labels = module.test_logits.cpu(), module.test_labels.cpu()
        indices = torch.cat([*trainer.test_dataloaders.sampler]).cpu()[: len(labels)]  # of this process
        tested = gallery.TestOutputs(indices, logits, labels, module.test_confusion.cpu())
        self.add(trainer, gallery.prediction_pictures(data, tested))
        for writer in writers(trainer):
            add_precision_recall(writer, tested, data.spec.class_names, step)
        if isinstance(data, ImageSequences) and data.test_orderings:
            return  # each image was tested in one of these orderings, and not in data.orderings
        self.add(trainer, gallery.network_pictures(network, data, tested))
        for writer in writers(trainer):
            add_graph(writer, in_full(network), data.test_samples(indices[:2]).frames)
            if isinstance(network, Inspectable):
                add_states(writer, network, data, indices, step)

    @plotting.style
    def add(self, trainer: Any, pictures: gallery.Pictures) -> None:
        for tag, figure in pictures:
            with signals_deferred():
                self.pictures[tag] = plotting.as_png(figure, plotting.SCALE)
            pixels = np.asarray(Image.open(io.BytesIO(self.pictures[tag])).convert("RGB").reduce(plotting.SCALE))
            for logger in trainer.loggers:
                with signals_deferred():
                    add_picture(logger, tag, pixels, trainer.global_step)


def writers(trainer: pl.Trainer) -> list[SummaryWriter]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]

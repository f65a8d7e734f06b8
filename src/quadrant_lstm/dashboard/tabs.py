"""Writes the events of TensorBoard's tabs Graphs, PR Curves, Projector and HParams."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard._pytorch_graph import graph
from torch.utils.tensorboard.summary import hparams

from quadrant_lstm.dashboard.network_inputs import as_arguments, as_inputs
from quadrant_lstm.data.datamodule import Batch
from quadrant_lstm.data.orderings import scaled
from quadrant_lstm.model.protocols import Inspectable
from quadrant_lstm.signals import signals_deferred
from quadrant_lstm.text import assigned

MAX_CLASSES = 20  # that have a precision-recall curve
BEST_ACCURACY = "val/best_accuracy"  # a curve of its own: of val/accuracy, HParams would show the last value


@signals_deferred()
def add_graph(
    writer: SummaryWriter, network: nn.Module, frames: UInt8[Tensor, "batch steps channels height width"]
) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # a picture may hold for this input only
        definition, stats = graph(network, as_inputs(frames, network))
    prefix = f"{type(network).__name__}/"
    for node in definition.node:
        node.name = short_name(node.name, prefix)
        node.input[:] = [short_name(name, prefix) for name in node.input]
    writer._get_file_writer().add_graph((definition, stats))


def short_name(node: str, prefix: str) -> str:
    """Shortens CNNLSTM/SharedTiles[encoder]/... to encoder/..., so that the names fit into the graph's boxes."""
    return re.sub(r"\w+\[(\w+)\]", r"\1", node.removeprefix(prefix))


@signals_deferred()
def add_precision_recall(
    writer: SummaryWriter, logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"],
    names: Sequence[str], step: int,
) -> None:  # fmt: skip
    probabilities = logits.float().softmax(1)
    for label, name in enumerate(names[:MAX_CLASSES]):
        writer.add_pr_curve(f"precision_recall/{name}", labels == label, probabilities[:, label], step)


def add_states(
    writer: SummaryWriter, network: Inspectable, batches: Iterable[Batch],
    pictures: UInt8[Tensor, "samples channels height width"], names: Sequence[str], step: int,
) -> None:  # fmt: skip
    """Writes the recurrent layer's last output for each sample, with the name of its class and a picture of it."""
    states, labels = [], []
    with torch.inference_mode():
        for batch in batches:
            frames, padded = as_arguments(batch.frames, batch.lengths, network)
            states.append(network.outputs_per_step(frames, **padded)[:, -1])
            labels += [names[label] for label in batch.labels.tolist()]
    with signals_deferred():
        writer.add_embedding(torch.cat(states).float(), labels, 1 - scaled(pictures), step, tag="last_state")


@signals_deferred()
def write_hyperparameters(
    writer: SummaryWriter, values: Mapping[str, Any], results: Mapping[str, Any], step: int
) -> None:
    metrics = {"test/accuracy": results["test/accuracy"], "test/loss": results["test/loss"]}
    validated = {BEST_ACCURACY: results["val/accuracy"]} if "val/accuracy" in results else {}
    for summary in hparams(values, metrics | validated):
        writer._get_file_writer().add_summary(summary)  # add_hparams would make a run of its own
    for name, accuracy in validated.items():  # the test has written the others
        writer.add_scalar(name, accuracy, step)
    writer.flush()


def hyperparameters(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the values of the keys that the run's sweep varies; without a sweep, of all keys of data, model,
    optimizer and schedule, and a few others, that are neither turned off nor interpolated from another key.
    `overrides` are those that the run was started with: they name the chosen options of config groups.
    """
    if cfg.swept:
        typed = assigned(overrides)
        return {key: swept_value(OmegaConf.select(cfg, key), typed.get(key)) for key in cfg.swept}
    values = {"seed": cfg.seed, "trainer.max_epochs": cfg.trainer.max_epochs}
    values |= {"label_smoothing": cfg.label_smoothing} if cfg.label_smoothing else {}
    values |= leaves("trainer.callbacks.ema.decay", OmegaConf.select(cfg, "trainer.callbacks.ema.decay"))
    for group in ("data", "model", "optimizer", "schedule"):
        values |= leaves(group, OmegaConf.to_container(cfg[group]))
    return values


def swept_value(value: Any, typed: str | None) -> int | float | str:
    return as_hparam(typed if value is None or isinstance(value, DictConfig) else value)


def leaves(key: str, value: Any) -> dict[str, Any]:
    """Flattens nested dicts into dotted keys, without `_target_`, null, interpolations and augmentation that is off."""
    if isinstance(value, dict):
        parts = [leaves(f"{key}.{name}", part) for name, part in value.items() if not name.startswith("_")]
        return {name: leaf for part in parts for name, leaf in part.items()}
    is_off = value is None or (key.startswith("data.augmentation.") and not value)
    if is_off or (isinstance(value, str) and "${" in value):
        return {}
    return {key: as_hparam(value)}


def as_hparam(value: Any) -> int | float | str:
    return value if isinstance(value, int | float | str) else str(value)

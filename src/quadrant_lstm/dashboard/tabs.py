"""Writes the events of TensorBoard's tabs Graphs, PR Curves and Projector."""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard._pytorch_graph import graph

from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.model.protocols import Inspectable

BATCH_SIZE = 250
MAX_CLASSES = 20  # that have a precision-recall curve


def add_graph(
    writer: SummaryWriter, network: nn.Module, frames: UInt8[Tensor, "batch steps channels height width"]
) -> None:
    with torch.no_grad():
        definition, stats = graph(network, as_inputs(frames, network))
    prefix = f"{type(network).__name__}/"
    for node in definition.node:
        node.name = short_name(node.name, prefix)
        node.input[:] = [short_name(name, prefix) for name in node.input]
    writer._get_file_writer().add_graph((definition, stats))


def short_name(node: str, prefix: str) -> str:
    """Shortens CNNLSTM/SharedTiles[encoder]/... to encoder/..., so that the names fit into the graph's boxes."""
    return re.sub(r"\w+\[(\w+)\]", r"\1", node.removeprefix(prefix))


def add_precision_recall(
    writer: SummaryWriter, logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"], step: int
) -> None:
    probabilities = logits.float().softmax(1)
    for label in range(min(logits.shape[1], MAX_CLASSES)):
        writer.add_pr_curve(f"precision_recall/{label}", labels == label, probabilities[:, label], step)


def add_states(
    writer: SummaryWriter, network: Inspectable, images: UInt8[Tensor, "images channels height width"],
    labels: Int64[Tensor, " images"], orderings: Sequence[Sequence[int]], step: int,
) -> None:  # fmt: skip
    """Writes the recurrent layer's last output for each image, with the image's label and a thumbnail of it."""
    with torch.inference_mode():
        batches = [as_inputs(sequences(batch, orderings), network.encoder) for batch in images.split(BATCH_SIZE)]
        states = torch.cat([network.outputs_per_step(frames)[:, -1] for frames in batches])
    writer.add_embedding(states.float(), labels.tolist(), 1 - scaled(images), step, tag="last_state")


def as_inputs(frames: UInt8[Tensor, "..."], network: nn.Module) -> Float[Tensor, "..."]:
    """Scales frames to the network's dtype, which is not float32 with e.g. trainer.precision=64-true."""
    return scaled(frames, next(network.parameters()).dtype)

"""What TensorBoard shows in tabs of its own: the network's graph, PR Curves, the Projector."""

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

BATCH = 250
MOST_CLASSES = 20


def add_graph(
    writer: SummaryWriter, network: nn.Module, frames: UInt8[Tensor, "batch steps channels height width"]
) -> None:
    with torch.no_grad():
        definition, stats = graph(network, scaled(frames))
    whole = f"{type(network).__name__}/"
    for node in definition.node:
        node.name = short(node.name, whole)
        node.input[:] = [short(name, whole) for name in node.input]
    writer._get_file_writer().add_graph((definition, stats))


def short(node: str, whole: str) -> str:
    """CNNLSTM/SharedTiles[encoder]/... -> encoder/...: no box around all, and names that fit into theirs."""
    return re.sub(r"\w+\[(\w+)\]", r"\1", node.removeprefix(whole))


def add_precision_recall(
    writer: SummaryWriter, logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"], step: int
) -> None:
    probabilities = logits.float().softmax(1)
    for label in range(min(logits.shape[1], MOST_CLASSES)):
        writer.add_pr_curve(f"precision_recall/{label}", labels == label, probabilities[:, label], step)


def add_states(
    writer: SummaryWriter, network: Inspectable, images: UInt8[Tensor, "images channels height width"],
    labels: Int64[Tensor, " images"], orderings: Sequence[Sequence[int]], step: int,
) -> None:  # fmt: skip
    """What the recurrent layer gives to the classifier, with each image as its picture."""
    with torch.inference_mode():
        batches = [scaled(sequences(some, orderings)) for some in images.split(BATCH)]
        states = torch.cat([network.outputs_per_step(frames)[:, -1] for frames in batches])
    writer.add_embedding(states.float(), labels.tolist(), 1 - scaled(images), step, tag="last_state")

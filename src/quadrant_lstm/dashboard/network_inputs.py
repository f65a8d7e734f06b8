"""Prepares frames for a network whose predictions are drawn."""

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from quadrant_lstm.data.orderings import scaled
from quadrant_lstm.model.protocols import Lengths, as_argument

BATCH_SIZE = 250  # samples that a network reads at once


def as_inputs(frames: UInt8[Tensor, "..."], network: Any) -> Float[Tensor, "..."]:
    """Scales frames, and moves them to the network's device and dtype, e.g. float64 with trainer.precision=64-true."""
    weights = next(network.parameters())
    return scaled(frames.to(weights.device), weights.dtype)


def as_arguments(
    frames: UInt8[Tensor, "..."], lengths: Lengths, network: Any
) -> tuple[Float[Tensor, "..."], dict[str, Tensor]]:
    """Returns the frames and the keyword argument that the network is called with."""
    inputs = as_inputs(frames, network)
    return inputs, as_argument(None if lengths is None else lengths.to(inputs.device))

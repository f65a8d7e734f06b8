"""Prepares frames for a network whose predictions are drawn."""

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from quadrant_lstm.data.orderings import scaled

BATCH_SIZE = 250


def as_inputs(frames: UInt8[Tensor, "..."], network: Any) -> Float[Tensor, "..."]:
    """Scales frames to the dtype of the network, which is not float32 with e.g. trainer.precision=64-true."""
    return scaled(frames, next(network.parameters()).dtype)

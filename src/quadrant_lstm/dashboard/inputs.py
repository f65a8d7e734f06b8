"""Prepares frames for a network whose predictions are drawn."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from quadrant_lstm.data.orderings import scaled

BATCH_SIZE = 250  # samples that a network reads at once


def as_inputs(frames: UInt8[Tensor, "..."], network: Any) -> Float[Tensor, "..."]:
    """Scales frames, and moves them to the network's device and dtype, e.g. float64 with trainer.precision=64-true."""
    weights = next(network.parameters())
    return scaled(frames.to(weights.device), weights.dtype)


def device_of(network: Any) -> torch.device:
    return next(network.parameters()).device

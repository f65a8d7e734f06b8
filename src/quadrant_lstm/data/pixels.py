"""Scales pixels to the range that networks take."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def scaled(pixels: Shaped[Tensor, "..."], dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
    """Returns pixels from 0 to 255 as floats from 0 to 1."""
    return pixels.to(dtype) / 255

"""Frame -> feature maps: 3x3 convs without padding, ReLU after each, one max-pool at the end."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.geometry import Shape, encoder_stages


class ConvEncoder(nn.Sequential):
    """[batch, channels, height, width] -> [batch, filters[-1], rows, columns]."""

    def __init__(self, frame_shape: Shape, filters: Sequence[int], kernel_size: int, pool_size: int):
        stages = encoder_stages(frame_shape, filters, kernel_size, pool_size)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = frame_shape[0]
        for number, count in enumerate(filters, start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, count, kernel_size)
            layers[f"relu{number}"] = nn.ReLU()
            channels = count
        layers["pool"] = nn.MaxPool2d(pool_size)
        super().__init__(layers)
        self.num_features, rows, columns = stages["pool"]
        self.num_positions = rows * columns

    def forward(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features rows columns"]:
        return super().forward(frames.contiguous(memory_format=torch.channels_last))

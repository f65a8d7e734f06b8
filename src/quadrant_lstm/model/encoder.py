"""Encodes frames as feature maps: convs without padding, a ReLU after each, and one max-pool at the end.

The last ReLU follows the pool: max(relu(x)) = relu(max(x)), and after a 2x2 pool only a quarter of the values is left.
"""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.model.sizes import encoded_shape


class ConvEncoder(nn.Sequential):
    """Maps [batch, channels, height, width] to [batch, filters[-1], rows, columns], channels last in memory."""

    def __init__(self, frame_shape: Shape, filters: Sequence[int], kernel_size: int, pool_size: int):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = frame_shape[0]
        for number, num_filters in enumerate(filters, start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, num_filters, kernel_size)
            if number == len(filters):
                layers["pool"] = nn.MaxPool2d(pool_size)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            channels = num_filters
        super().__init__(layers)
        self.num_features, rows, columns = encoded_shape(frame_shape, filters, kernel_size, pool_size)
        self.num_positions = rows * columns

    def forward(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features rows columns"]:
        return super().forward(channels_last(frames))


def channels_last(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Returns a copy that is channels last in memory, also for a single channel.

    `contiguous(memory_format=torch.channels_last)` keeps the strides of a single channel. Convs and all later layers
    then take the maps to be channels first, which is a third slower.
    """
    batch, channels, height, width = maps.shape
    return maps.permute(0, 2, 3, 1).flatten().view(batch, height, width, channels).permute(0, 3, 1, 2)

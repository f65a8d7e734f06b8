"""Frame -> feature maps: 3x3 convs without padding, ReLU after each, one max-pool at the end.

The last ReLU comes after the pool: the largest of some numbers, cut off at zero, is the largest of the numbers cut
off at zero, and a quarter are left to cut.
"""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.model.sizes import encoder_stages


class ConvEncoder(nn.Sequential):
    """[batch, channels, height, width] -> [batch, filters[-1], rows, columns], channels last in memory."""

    def __init__(self, frame_shape: Shape, filters: Sequence[int], kernel_size: int, pool_size: int):
        stages = encoder_stages(frame_shape, filters, kernel_size, pool_size)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = frame_shape[0]
        for number, count in enumerate(filters, start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, count, kernel_size)
            if number == len(filters):
                layers["pool"] = nn.MaxPool2d(pool_size)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            channels = count
        super().__init__(layers)
        self.num_features, rows, columns = stages["pool"]
        self.num_positions = rows * columns

    def forward(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features rows columns"]:
        return super().forward(channels_last(frames))


def channels_last(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """For convs: `contiguous(memory_format=torch.channels_last)` leaves the strides of a single channel as they are,
    takes them for channels first, and every layer behind does the same, a third slower."""
    batch, channels, height, width = maps.shape
    return maps.permute(0, 2, 3, 1).flatten().view(batch, height, width, channels).permute(0, 3, 1, 2)

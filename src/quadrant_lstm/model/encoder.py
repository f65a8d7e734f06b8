"""Defines encoders of convolutions, which map an image or a frame to feature maps."""

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Encoder(nn.Sequential):
    """The common base: layers that are given maps channels last in memory, where convs are faster."""

    def forward(
        self, frames: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features rows columns"]:
        return super().forward(channels_last(frames))


class ConvEncoder(Encoder):
    """Convs without padding, a ReLU after each, and one max-pool at the end. Maps [batch, channels, height, width] to
    [batch, filters[-1], rows, columns], channels last in memory.

    The last ReLU follows the pool: max(relu(x)) = relu(max(x)), and after a 2x2 pool only a quarter of the values is
    left.
    """

    def __init__(self, in_channels: int, filters: Sequence[int], kernel_size: int, pool_size: int):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, num_filters in enumerate(filters, start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, num_filters, kernel_size)
            if number == len(filters):
                layers["pool"] = nn.MaxPool2d(pool_size)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            channels = num_filters
        super().__init__(layers)


class PaddedEncoder(Encoder):
    """Blocks of padded 3x3 convs. Maps [batch, channels, height, width] to [batch, blocks[-1][-1], rows, columns].

    A block lists the filters of its convs, each with batch norm and ReLU, and ends in a 2x2 max-pool that keeps an odd
    last row and column. The maps are channels last in memory.
    """

    def __init__(self, in_channels: int, blocks: Sequence[Sequence[int]]):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for block, filters in enumerate(blocks, start=1):
            for number, num_filters in enumerate(filters, start=1):
                name = f"{block}_{number}"
                layers[f"conv{name}"] = nn.Conv2d(channels, num_filters, 3, padding=1, bias=False)  # as norm has one
                layers[f"norm{name}"] = nn.BatchNorm2d(num_filters)
                layers[f"relu{name}"] = nn.ReLU(inplace=True)
                channels = num_filters
            layers[f"pool{block}"] = nn.MaxPool2d(2, ceil_mode=True)
        super().__init__(layers)


def channels_last(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Returns the maps channels last in memory, also for a single channel; copies them unless they are.

    `contiguous(memory_format=torch.channels_last)` keeps the strides of a single channel. Convs and all later layers
    then take the maps to be channels first, which is a third slower.
    """
    batch, channels, height, width = maps.shape
    return maps.permute(0, 2, 3, 1).flatten().view(batch, height, width, channels).permute(0, 3, 1, 2)

"""Defines encoders, which map an image or a frame to feature maps or features."""

import copy
import difflib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torch.hub import get_dir
from torch.nn.functional import interpolate
from torchvision.models import get_model, get_model_weights, list_models

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Blocks, Count, Counts, Grid
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.model.time_distributed import TimeDistributed

# Convolutions


Maps = Float[Tensor, "batch channels height width"]


class Encoder(nn.Sequential):
    """The common base: layers that are given maps channels last in memory, where convs are faster."""

    def forward(self, frames: Maps) -> Float[Tensor, "batch features rows columns"]:
        # `contiguous(memory_format=torch.channels_last)` keeps the strides of a single channel. Convs and all later
        # layers then take the maps to be channels first, which is a third slower.
        last = frames.permute(0, 2, 3, 1)
        return super().forward(last.flatten().view(last.shape).permute(0, 3, 1, 2))


class ConvEncoder(Encoder):
    """Convs without padding, a ReLU after each, and one max-pool at the end. Maps [batch, channels, height, width] to
    [batch, filters[-1], rows, columns], channels last in memory.

    The last ReLU follows the pool: max(relu(x)) = relu(max(x)), and after a 2x2 pool only a quarter of the values is
    left.
    """

    def __init__(self, in_channels: int, filters: Counts, kernel_size: Count, pool_size: Count):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, num_filters in enumerate(filters, start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, num_filters, kernel_size)
            if number == len(filters):
                layers["pool"] = nn.MaxPool2d(pool_size)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            channels = num_filters
        super().__init__(layers)
        self.sizes = {"kernel_size": kernel_size, "pool_size": pool_size}

    def encoded_shape(self, frame_shape: Shape, group: str) -> torch.Size:
        """Returns the shape of the maps. Raises UserError for a kernel or pool that is larger than its input; `group`
        is that of the keys which the error names.
        """
        maps = torch.empty(*frame_shape, device="meta")
        for name, layer in copy.deepcopy(self).to("meta").named_children():
            try:
                maps = layer(maps)
            except RuntimeError as error:
                key = "pool_size" if name == "pool" else "kernel_size"
                raise UserError(
                    f"{group}.{key}: {self.sizes[key]} does not fit stage {name}, whose input is "
                    f"{' x '.join(map(str, maps.shape))} (channels x height x width); write a smaller {key} or fewer "
                    f"{group}.filters."
                ) from error
        return maps.shape


class PaddedEncoder(Encoder):
    """Blocks of padded 3x3 convs. Maps [batch, channels, height, width] to [batch, blocks[-1][-1], rows, columns].

    A block lists the filters of its convs, each with batch norm and ReLU, and ends in a 2x2 max-pool that keeps an odd
    last row and column. The maps are channels last in memory.
    """

    def __init__(self, in_channels: int, blocks: Blocks):
        super().__init__(padded_blocks(in_channels, blocks, [nn.MaxPool2d(2, ceil_mode=True) for _ in blocks]))


def padded_blocks(
    in_channels: int, blocks: Sequence[Sequence[int]], pools: Sequence[nn.Module]
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for block, (filters, pool) in enumerate(zip(blocks, pools, strict=True), start=1):
        for number, num_filters in enumerate(filters, start=1):
            name = f"{block}_{number}"
            layers[f"conv{name}"] = nn.Conv2d(channels, num_filters, 3, padding=1, bias=False)  # as norm has one
            layers[f"norm{name}"] = nn.BatchNorm2d(num_filters)
            layers[f"relu{name}"] = nn.ReLU(inplace=True)
            channels = num_filters
        layers[f"pool{block}"] = pool
    return layers


class PooledEncoder(Encoder):
    """Padded 3x3 convs with stride 2, batch norm and ReLU, whose maps are averaged to `grid` rows and columns, whatever
    the size of the frame. Maps [batch, channels, height, width] to [batch, filters[-1], *grid].

    A coarse grid keeps where things are, so that a recurrent layer sees them move, and has few features to overfit to.
    """

    def __init__(self, in_channels: int, filters: Counts, grid: Grid):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (channels, num_filters) in enumerate(pairwise([in_channels, *filters]), start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, num_filters, 3, stride=2, padding=1, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(num_filters)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
        layers["pool"] = nn.AdaptiveAvgPool2d(tuple(grid))
        super().__init__(layers)


def plain_pool_size(pool: Any) -> list[int] | None:
    """Returns the rows and columns of an nn.MaxPool2d without overlap, padding or dilation, or None for another."""
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    size, *others = [[value, value] if isinstance(value, int) else list(value) for value in sizes]
    return size if others == [size, [0, 0], [1, 1]] else None


# Classifiers of torchvision


class Backbone(nn.Module):
    """Any classifier of torchvision.models, without its last linear layer. Maps a frame to a vector of features.

    Frames with one channel are repeated to three; `size`, in pixels, enlarges frames that are too small for it.
    `weights` are a name that torchvision knows, which are downloaded once, or null for random ones. Frames, of values
    from 0 to 1, are normalized as the weights were trained. With `frozen`, the weights get no gradients and batch norm
    uses and keeps its running statistics. Raises UserError for an unknown name, and weights that cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, name: str, weights: str | None, frozen: bool, size: Count | None):
        super().__init__()
        self.frozen, self.size = frozen, size
        self.module, mean, std = load_pretrained(name, weights)
        for attribute, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
            if hasattr(self.module, attribute):  # GoogLeNet and Inception have more classifiers for their own training
                setattr(self.module, attribute, value)
        # in checkpoints, because a network is built from them without pretrained weights, which would tell these values
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        last = [path for path, layer in self.module.named_modules() if isinstance(layer, nn.Linear)]
        if not last:
            raise UserError(f"model.encoder.name: {name} does not end in a linear layer; choose another one.")
        self.module.set_submodule(last[-1], nn.Identity())
        if frozen:
            self.module.requires_grad_(False)
            self.module.eval()  # Lightning leaves each module in its mode

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen:
            self.module.eval()
        return self

    def forward(self, frames: Maps) -> Float[Tensor, "batch features"]:
        frames = frames.expand(-1, 3, -1, -1)
        if self.size:
            frames = interpolate(frames, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.module((frames - self.mean) / self.std)


def load_pretrained(name: str, weights: str | None) -> tuple[nn.Module, list[float], list[float]]:
    """Returns the network, and the mean and standard deviation of each channel with which to normalize its frames."""
    if name not in (names := list_models(torchvision.models)):
        close = [*difflib.get_close_matches(name, names), "resnet18"][0]
        raise UserError(f"model.encoder.name: torchvision has no {name}; write e.g. {close}.")
    if weights is None:
        return get_model(name, weights=None), [0.0] * 3, [1.0] * 3
    choices = get_model_weights(name).__members__
    if weights not in choices:
        listed = ", ".join(["null", *choices])
        raise UserError(f"model.encoder.weights: {name} has no weights {weights}; write one of {listed}.")
    pretrained = choices[weights]
    try:
        network = get_model(name, weights=pretrained)
    except URLError as error:
        raise UserError(
            f"model.encoder.weights: {weights} of {name} cannot be downloaded ({error.reason}); put the file of "
            f"{pretrained.url} into {get_dir()}/checkpoints, or write null."
        ) from error
    transform = pretrained.transforms()
    return network, transform.mean, transform.std


# LSTMs only, as in Keras's example mnist_hierarchical_rnn (Li et al. 2015, arXiv 1506.01057)
#
# [N, C, H, W] -> an LSTM over the pixels of each row -> [N, H, units] -> an LSTM over the rows -> [N, units]


class LastOutput(LSTM):
    """Maps [batch, steps, features] to the output after the last step."""

    def forward(self, inputs: Float[Tensor, "batch steps features"]) -> Float[Tensor, "batch units"]:  # type: ignore[override]
        return super().forward(inputs)[0][:, -1]


class RowsEncoder(nn.Module):
    """Maps [batch, channels, height, width] to [batch, units]."""

    def __init__(self, in_channels: int, row_units: Count):
        super().__init__()
        self.pixels = TimeDistributed(LastOutput(in_channels, row_units))
        self.rows = LastOutput(row_units, row_units)

    def forward(self, frames: Maps) -> Float[Tensor, "batch units"]:
        return self.rows(self.pixels(frames.permute(0, 2, 3, 1)))

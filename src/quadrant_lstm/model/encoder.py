"""Defines encoders, which map an image, a frame, or the values of a series at a step to feature maps or features."""

import copy
import difflib
import itertools
import logging
import math
import os
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
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
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.kinds import Blocks, Count, Counts, Grid, Positive
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.model.time_distributed import TimeDistributed

# What an encoder reads


FRAMES = {1: "vectors [features]", 2: "windows [features, values]", 3: "frames [channels, height, width]"}  # by axes
REMEDIES = {  # for a reader of so many axes
    2: "data.window=N for series, or model/encoder=conv for images",
    3: "model=join model/encoder=none, linear or, with data.window, conv1d",
}


def check_axes(key: str, reader: nn.Module, frame_shape: Shape) -> None:
    """Raises UserError if frames have another number of axes than the encoder or network says with `frame_axes`."""
    given, wanted = len(frame_shape), getattr(reader, "frame_axes", len(frame_shape))
    if wanted != given:
        rule = f"{type(reader).__name__} reads {FRAMES[wanted]}, but these data have {FRAMES[given]} at each step"
        raise UserError(f"{key}: {rule}; write {REMEDIES[wanted]}.")


# Convolutions


Maps = Float[Tensor, "batch channels height width"]


class Encoder(nn.Sequential):
    """The common base: layers that are given maps channels last in memory, where convs are faster."""

    frame_axes = 3

    def forward(self, frames: Maps) -> Float[Tensor, "batch features rows columns"]:
        # `contiguous(memory_format=torch.channels_last)` keeps the strides of a single channel. Convs and all later
        # layers then take the maps to be channels first, which is a third slower.
        last = frames.permute(0, 2, 3, 1)
        return super().forward(last.flatten().view(last.shape).permute(0, 3, 1, 2))


def conv_layers(
    conv: Callable[[int, int, int], nn.Module], pool: nn.Module, in_channels: int, filters: Counts, kernel_size: Count
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (channels, num_filters) in enumerate(itertools.pairwise([in_channels, *filters]), start=1):
        layers[f"conv{number}"] = conv(channels, num_filters, kernel_size)
        if number == len(filters):
            layers["pool"] = pool
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
    return layers


class ConvEncoder(Encoder):
    """Convs without padding, a ReLU after each, and one max-pool at the end. Maps [batch, channels, height, width] to
    [batch, filters[-1], rows, columns], channels last in memory.

    The last ReLU follows the pool: max(relu(x)) = relu(max(x)), and after a 2x2 pool only a quarter of the values is
    left.
    """

    def __init__(self, in_channels: int, filters: Counts, kernel_size: Count, pool_size: Count):
        super().__init__(conv_layers(nn.Conv2d, nn.MaxPool2d(pool_size), in_channels, filters, kernel_size))


class Conv1dEncoder(nn.Sequential):
    """1-D convs over the values of a window, without padding, a ReLU after each, and one max-pool at the end, over all
    that is left if `pool_size` is None. Maps [batch, features, values] to [batch, filters[-1] * values that are left].
    """

    frame_axes = 2

    def __init__(self, in_channels: int, filters: Counts, kernel_size: Count, pool_size: Count | None):
        pool = nn.AdaptiveMaxPool1d(1) if pool_size is None else nn.MaxPool1d(pool_size)
        super().__init__(conv_layers(nn.Conv1d, pool, in_channels, filters, kernel_size))
        self.add_module("flatten", nn.Flatten())


def encoded_shape(encoder: ConvEncoder | Conv1dEncoder, frame_shape: Shape, group: str) -> torch.Size:
    """Returns the shape of what the encoder returns. Raises UserError for a kernel or pool that is larger than its
    input; `group` is that of the keys which the error names.
    """
    axes = "channels x height x width" if encoder.frame_axes == 3 else "features x values"
    maps = torch.empty(1, *frame_shape, device="meta")
    layers: Any = copy.deepcopy(encoder).to("meta").named_children()
    for name, layer in layers:
        try:
            maps = layer(maps)
        except RuntimeError as error:
            key, size = ("pool_size", layer.kernel_size) if name == "pool" else ("kernel_size", layer.kernel_size[0])
            rule = f"does not fit stage {name}, whose input is {' x '.join(map(str, maps.shape[1:]))} ({axes})"
            raise UserError(f"{group}.{key}: {size} {rule}; write a smaller {key} or fewer {group}.filters.") from error
    return maps.shape[1:]


class PaddedEncoder(Encoder):
    """Blocks of padded 3x3 convs. Maps [batch, channels, height, width] to [batch, blocks[-1][-1], rows, columns].

    A block lists the filters of its convs, each with batch norm and ReLU, and ends in a 2x2 max-pool that keeps an odd
    last row and column. The maps are channels last in memory.
    """

    def __init__(self, in_channels: int, blocks: Blocks):
        super().__init__(padded_blocks(in_channels, blocks, [nn.MaxPool2d(2, ceil_mode=True) for _ in blocks]))


def padded_blocks(
    in_channels: int, blocks: Sequence[Sequence[int]], pools: Sequence[nn.Module], stride: int = 1
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for block, (filters, pool) in enumerate(zip(blocks, pools, strict=True), start=1):
        for number, num_filters in enumerate(filters, start=1):
            name = f"{block}_{number}"
            layers[f"conv{name}"] = nn.Conv2d(channels, num_filters, 3, stride, padding=1, bias=False)  # norm has one
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
        super().__init__(padded_blocks(in_channels, [filters], [nn.AdaptiveAvgPool2d(tuple(grid))], stride=2))


# Encoders of series, whose values at a step are a vector or a window


class Standardize(nn.Module):
    """Subtracts the mean of each feature, and divides by its deviation. These are those of the training data, which
    run/build.py sets; a checkpoint stores them. `frame_shape` is that of the values at a step.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, frame_shape: Shape):
        super().__init__()
        size = frame_shape[0], *[1] * (len(frame_shape) - 1)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def set(self, mean: Float[Tensor, " features"], deviation: Float[Tensor, " features"]) -> None:
        self.mean.copy_(mean.view_as(self.mean))
        self.deviation.copy_(deviation.view_as(self.deviation))

    def forward(self, values: Float[Tensor, "batch features ..."]) -> Float[Tensor, "batch features ..."]:
        return (values - self.mean) / self.deviation


class NoEncoder(nn.Flatten):
    """Returns all values of a step as a vector."""

    def __init__(self, in_channels: int):
        super().__init__()


class LinearEncoder(nn.Sequential):
    """Applies a linear layer and a ReLU to all values of a step."""

    def __init__(self, in_channels: int, units: Count):
        super().__init__(nn.Flatten(), nn.LazyLinear(units), nn.ReLU())  # knows the size of a window when it reads one


INITIALIZED = (ConvEncoder, PaddedEncoder, PooledEncoder, Conv1dEncoder, LinearEncoder)  # as in Keras


# Classifiers of torchvision and timm


Pretrained = tuple[nn.Module, Sequence[float], Sequence[float]]  # the mean and deviation of channels normalize frames


class Backbone(nn.Module):
    """Any classifier of torchvision.models, without its last linear layer. Maps a frame to a vector of features.

    Frames with one channel are repeated to three; `size`, in pixels, enlarges frames that are too small for it.
    `weights` are null for random ones, a name that torchvision knows, which are downloaded once, or a file with a state
    dict of this classifier. Frames, of values from 0 to 1, are normalized as torchvision's weights were trained.

    With `frozen`, the weights get no gradients and batch norm uses and keeps its running statistics: always, or for so
    many epochs. The learning rate is `lr_factor` times that of the other weights. Raises UserError for an unknown name,
    and weights that cannot be downloaded or read or do not fit.
    """

    frame_axes = 3
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int,
        name: str,
        weights: str | None,
        frozen: bool | Count,
        lr_factor: Positive,
        size: Count | None,
    ):
        super().__init__()
        self.frozen_epochs = math.inf if frozen is True else int(frozen)
        self.frozen, self.lr_factor, self.size = False, lr_factor, size
        self.module, mean, std = self.load(name, weights)
        if weights is None:  # frames are not normalized
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        # in checkpoints, because a network is built from them without pretrained weights, which would tell these values
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        if frozen is True:
            self.start_epoch(0)  # weights that are trained later are frozen when the processes of a run have met

    def load(self, name: str, weights: str | None) -> Pretrained:
        check_name("torchvision", name, list_models(torchvision.models))
        choices = get_model_weights(name)
        is_file, chosen = check_weights(name, weights, choices.__members__), choices.__members__.get(weights or "")
        try:
            network = get_model(name, weights=chosen)
        except URLError as error:
            remedy = f"put the file of {chosen.url} into {get_dir()}/checkpoints, or write null"
            raise UserError(f"{WEIGHTS}: {name} cannot be downloaded ({error.reason}); {remedy}.") from error
        last = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        if not last:
            raise UserError(f"model.encoder.name: {name} does not end in a linear layer; choose another one.")
        network.set_submodule(last[-1], nn.Identity())
        if is_file:
            copy_state_dict(network, name, str(weights), last[-1])
        for attribute, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
            if hasattr(network, attribute):  # GoogLeNet and Inception have more classifiers for their own training
                setattr(network, attribute, value)
        if hasattr(network, "transform_input"):  # true with weights only, of which a checkpoint does not tell
            network.transform_input = False
            return network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # what it makes of ImageNet's mean and deviation
        transform = (chosen or choices.DEFAULT).transforms()
        return network, transform.mean, transform.std

    def start_epoch(self, epoch: int) -> None:
        """Freezes the weights, or trains them. Epochs count from 0."""
        self.frozen = epoch < self.frozen_epochs
        self.module.requires_grad_(not self.frozen)
        self.train(self.training)

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


class TimmBackbone(Backbone):
    """Any network of timm, without its classifier. `weights` are null, `DEFAULT`, those that timm has for the name, or
    a file.
    """

    def load(self, name: str, weights: str | None) -> Pretrained:
        with needs_extra("model/encoder=timm", "timm"):
            import timm
        # Names that timm would look up elsewhere, such as hf-hub:USER/MODEL, are unknown
        check_name("timm", name, [*timm.list_models(), *timm.list_models(pretrained=True)])
        is_file = check_weights(name, weights, ["DEFAULT"])
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of each attempt to download
        try:
            network = timm.create_model(name, pretrained=weights == "DEFAULT", num_classes=0)
        except Exception as error:  # of any type, of the libraries that download
            if weights != "DEFAULT":
                raise
            reason = str(error).partition("\n")[0].rstrip(".")
            remedy = f"give a file of its state dict, {WEIGHTS}=FILE, or write null"
            raise UserError(f"{WEIGHTS}: DEFAULT of {name} cannot be downloaded ({reason}); {remedy}.") from error
        config: Any = network.pretrained_cfg
        if weights and is_file:
            copy_state_dict(network, name, weights, config.get("classifier") or ())
        return network, config["mean"], config["std"]


WEIGHTS = "model.encoder.weights"


def check_name(library: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        close = [*difflib.get_close_matches(name, names), "resnet18"][0]
        raise UserError(f"model.encoder.name: {library} has no {name}; write e.g. {close}.")


def check_weights(name: str, weights: str | None, choices: Iterable[str]) -> bool:
    """Tells whether the weights are a file. Raises UserError if they are none of the choices, either."""
    is_file = weights is not None and weights.endswith((".pth", ".pt", ".safetensors"))
    if weights and not is_file and weights not in choices:
        listed = ", ".join(["null", *choices])
        raise UserError(f"{WEIGHTS}: {name} has no {weights}; write one of {listed}, or a file (.pth, .safetensors).")
    return is_file


def copy_state_dict(network: nn.Module, name: str, file: str, classifier: str | Sequence[str]) -> None:
    """Copies a state dict into the network, but for its classifier, which may be one of other classes, or missing."""
    prefixes = tuple(f"{path}." for path in ([classifier] if isinstance(classifier, str) else classifier))
    path = Path(os.path.expanduser(file))
    if is_safetensors := path.suffix == ".safetensors":
        with needs_extra(f"{WEIGHTS}={file}", "export"):
            from safetensors.torch import load_file
    try:
        weights = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({key: weight for key, weight in weights.items() if not key.startswith(prefixes)})
    except Exception as error:  # of many types, if it is damaged or of another network
        reason = textwrap.shorten(str(error), 200)
        raise UserError(f"{WEIGHTS}: {file} cannot be used ({reason}); give a state dict of {name}.") from error


# LSTMs only, as in Keras's example mnist_hierarchical_rnn (Li et al. 2015, arXiv 1506.01057)
#
# [N, C, H, W] -> an LSTM over the pixels of each row -> [N, H, units] -> an LSTM over the rows -> [N, units]


class LastOutput(LSTM):
    """Maps [batch, steps, features] to the output after the last step."""

    def forward(self, inputs: Float[Tensor, "batch steps features"]) -> Float[Tensor, "batch units"]:  # type: ignore[override]
        return super().forward(inputs)[0][:, -1]


class RowsEncoder(nn.Module):
    """Maps [batch, channels, height, width] to [batch, units]."""

    frame_axes = 3

    def __init__(self, in_channels: int, row_units: Count):
        super().__init__()
        self.pixels = TimeDistributed(LastOutput(in_channels, row_units))
        self.rows = LastOutput(row_units, row_units)

    def forward(self, frames: Maps) -> Float[Tensor, "batch units"]:
        return self.rows(self.pixels(frames.permute(0, 2, 3, 1)))

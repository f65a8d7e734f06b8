"""Sequence of frames -> logits: a network of the question's kind, built for accuracy.

Over its four steps each ordering shows all quadrants of the image. Here they are joined, so that convs see the
strokes that the cut divides, encoded, and cut again; what the encoder says of the quadrants of a frame goes into the
LSTM side by side. All orderings show the same image, so one is encoded. N samples of four orderings, with the values
of conf/model/deep.yaml:

    [N, 4, 1, 56, 14] -> joined -> [N, 1, 28, 28] -> encoder -> [N, 96, 8, 8] -> cut -> [N, 4, 96, 4, 4]
                      -> side by side, for each step -> [N, 4, 6144] -> dropout -> LSTM -> [N, 4, 128]
                      -> last step -> [N, 128] -> head -> [N, 10]

So a step knows of the other steps' quadrants what the convs see across the cuts, as if the network read both ways.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.initial import draw_as_keras
from quadrant_lstm.model.protocols import Frames
from quadrant_lstm.model.recurrent import KINDS, LastStep, equal_units
from quadrant_lstm.model.sizes import pooled_shape


def cut(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 4 rows columns channels"]:
    """Quadrants, channels last, as the maps lie in memory where convs are fast."""
    # batch, row of the grid, row, column of the grid, column, channels
    grid = maps.permute(0, 2, 3, 1).unflatten(1, (2, -1)).unflatten(3, (2, -1))
    return grid.transpose(2, 3).flatten(1, 2)


def join(quadrants: Float[Tensor, "batch 4 rows columns channels"]) -> Float[Tensor, "batch channels height width"]:
    """What they were cut from, channels last in memory."""
    grid = quadrants.unflatten(1, (2, 2)).transpose(2, 3)
    return grid.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class QuadrantPool(nn.MaxPool2d):
    """[batch, channels, height, width] -> [batch, channels, rows, columns]: a 2x2 max-pool of each quadrant, whose last
    row and column, where they are odd, it keeps.
    """

    def __init__(self) -> None:
        super().__init__(2, ceil_mode=True)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        pooled = super().forward(cut(maps).flatten(0, 1).permute(0, 3, 1, 2))
        return join(pooled.permute(0, 2, 3, 1).unflatten(0, (-1, 4)))


class PaddedEncoder(nn.Sequential):
    """[batch, channels, height, width] -> [batch, filters, rows, columns]: blocks of 3x3 convs with batch norm and
    ReLU, each block with a 2x2 max-pool at its end.
    """

    def __init__(self, quadrant_shape: Shape, blocks: Sequence[Sequence[int]]):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = quadrant_shape[0]
        for block, filters in enumerate(blocks, start=1):
            for number, count in enumerate(filters, start=1):
                name = f"{block}_{number}"
                layers[f"conv{name}"] = nn.Conv2d(channels, count, 3, padding=1, bias=False)  # batch norm has one
                layers[f"norm{name}"] = nn.BatchNorm2d(count)
                layers[f"relu{name}"] = nn.ReLU(inplace=True)
                channels = count
            _, height, width = pooled_shape(quadrant_shape, blocks[: block - 1])  # of a quadrant, before the pool
            layers[f"pool{block}"] = QuadrantPool() if height % 2 or width % 2 else nn.MaxPool2d(2)
        super().__init__(layers)


class Joined(nn.Module):
    """[batch, 4, channels, stack, width] -> [batch, 4, features]: the encoder over the image that the orderings show.

    It is read where the first ordering shows it, and encoded `once`; otherwise the image of each ordering is encoded,
    for frames in which they differ.
    """

    taken: Tensor
    given: Tensor

    def __init__(self, encoder: nn.Module, orderings: Sequence[Sequence[int]], once: bool = True):
        super().__init__()
        self.module, self.orderings = encoder, orderings
        self.num_places = len(orderings)
        stacked = torch.tensor(orderings).T - 1  # step, place: the quadrant
        places = torch.arange(4 * self.num_places).view(4, -1)
        every = places.gather(0, stacked.argsort(0)).T  # image, quadrant: where it is
        if once:
            taken, given = every[0], stacked.flatten()
        else:
            taken, given = every.flatten(), (stacked + 4 * torch.arange(self.num_places)).flatten()
        self.register_buffer("taken", taken, persistent=False)
        self.register_buffer("given", given, persistent=False)

    def forward(self, frames: Float[Tensor, "batch 4 channels stack width"]) -> Float[Tensor, "batch 4 features"]:
        # batch, places of all steps, channels, rows, columns
        places = frames.unflatten(3, (self.num_places, -1)).transpose(2, 3).flatten(1, 2)
        quadrants = places.index_select(1, self.taken)
        maps = self.module(join(quadrants.unflatten(1, (-1, 4)).flatten(0, 1).permute(0, 1, 3, 4, 2)))
        features = cut(maps).flatten(2).unflatten(0, (frames.shape[0], -1)).flatten(1, 2)  # batch, quadrants, features
        return features.index_select(1, self.given).unflatten(1, (4, -1)).flatten(2)


class DeepCNNLSTM(nn.Module):
    """`frame_shape` (channels, height, width), `num_classes` and `orderings` are the data's, the rest is conf/model.

    Raises UserError where pools are left nothing.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        orderings: Sequence[Sequence[int]],
        blocks: Sequence[Sequence[int]],
        dropout: float,
        recurrent: str,
        lstm_units: int,
    ):
        super().__init__()
        channels, stack, width = frame_shape
        quadrant = (channels, stack // len(orderings), width)
        features, rows, columns = pooled_shape(quadrant, blocks)
        self.encoder = Joined(PaddedEncoder(quadrant, blocks), orderings)
        self.dropout = Dropout(dropout)
        inputs = len(orderings) * features * rows * columns
        units = equal_units(recurrent, inputs, lstm_units)
        self.recurrent = KINDS[recurrent](inputs, 1, units)
        self.last_step = LastStep()
        self.dropout2 = Dropout(dropout)
        self.head = nn.Linear(units, num_classes)
        self.apply(draw_as_keras)

    def forward(self, frames: Frames) -> Float[Tensor, "batch classes"]:
        return self.head(self.dropout2(self.last_step(self.outputs_per_step(frames))))

    def logits_per_step(self, frames: Frames) -> Float[Tensor, "batch known classes"]:
        return self.head(self.dropout2(self.outputs_per_step(frames)))

    def outputs_per_step(self, frames: Frames) -> Float[Tensor, "batch known units"]:
        return self.recurrent(self.features(frames))

    def features(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        return self.dropout(self.encoder(frames))

    def in_full(self) -> "DeepCNNLSTM":
        network = copy.deepcopy(self)
        network.encoder = Joined(network.encoder.module, self.encoder.orderings, once=False)
        return network

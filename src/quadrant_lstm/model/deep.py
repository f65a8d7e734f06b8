"""Sequence of frames -> logits: a network of the question's kind, built for accuracy.

A frame stacks quadrants. Here each is encoded by itself, with padded convs, and what the encoder says of those of a
frame goes into the LSTM side by side. An image has four quadrants whatever the orderings, so four are encoded. N
samples of four orderings, with the values of conf/model/deep.yaml:

    [N, 4, 1, 56, 14] -> quadrants -> [N, 4, 1, 14, 14] -> encoder -> [N, 4, 96, 4, 4] -> side by side, for each step
                      -> [N, 4, 6144] -> dropout -> LSTM -> [N, 4, 128] -> last step -> [N, 128] -> head -> [N, 10]
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.config.values import Blocks, Count, Orderings, Probability, Recurrence
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.encoder import channels_last
from quadrant_lstm.model.geometry import Shape, pooled_shape
from quadrant_lstm.model.initial import draw_as_keras
from quadrant_lstm.model.recurrent import KINDS, LastStep, equal_units
from quadrant_lstm.model.shared_tiles import check_follows
from quadrant_lstm.model.time_distributed import TimeDistributed


class PaddedEncoder(nn.Sequential):
    """[batch, channels, height, width] -> [batch, filters, rows, columns]: blocks of 3x3 convs with batch norm and
    ReLU, each block with a 2x2 max-pool at its end, which keeps an odd last row and column.
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
            layers[f"pool{block}"] = nn.MaxPool2d(2, ceil_mode=True)
        super().__init__(layers)

    def forward(
        self, quadrants: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch filters rows columns"]:
        return super().forward(channels_last(quadrants))


class EachQuadrant(TimeDistributed):
    """[batch, 4, channels, stack, width] -> [batch, 4, features]: TimeDistributed over the quadrants of the frames, but
    each of the image's four is encoded once. Raises ValueError for frames that do not follow the orderings (on a GPU an
    assertion of the device).
    """

    first: Tensor
    stacked: Tensor

    def __init__(self, encoder: nn.Module, orderings: Orderings):
        super().__init__(encoder, num_axes=2)
        stacked = torch.tensor([[ordering[step] - 1 for ordering in orderings] for step in range(4)])
        self.num_places = len(orderings)
        first = (stacked.flatten() == torch.arange(4)[:, None]).int().argmax(1)  # where each comes first
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("stacked", stacked.flatten(), persistent=False)

    def forward(self, frames: Float[Tensor, "batch 4 channels stack width"]) -> Float[Tensor, "batch 4 features"]:
        # batch, places of all steps, channels, height, width
        places = frames.unflatten(3, (self.num_places, -1)).transpose(2, 3).flatten(1, 2)
        quadrants = places.index_select(1, self.first) if self.shares else places
        if self.shares and not (places.is_meta or torch.compiler.is_compiling()):  # no values to compare, or an export
            self.check(places, quadrants)
        features = super().forward(quadrants).permute(0, 1, 3, 4, 2).flatten(2)
        features = features.index_select(1, self.stacked) if self.shares else features
        return features.unflatten(1, (4, -1)).flatten(2)

    def check(self, places: Tensor, quadrants: Tensor) -> None:
        check_follows(places, quadrants.index_select(1, self.stacked), "this network")


class DeepCNNLSTM(nn.Module):
    """`frame_shape` (channels, height, width), `num_classes` and `orderings` are the data's, the rest is conf/model.

    Raises UserError where pools are left nothing.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        orderings: Orderings,
        blocks: Blocks,
        dropout: Probability,
        recurrent: Recurrence,
        lstm_units: Count,
    ):
        super().__init__()
        channels, stack, width = frame_shape
        quadrant = (channels, stack // len(orderings), width)
        features, rows, columns = pooled_shape(quadrant, blocks)
        self.encoder = EachQuadrant(PaddedEncoder(quadrant, blocks), orderings)
        self.dropout = Dropout(dropout)
        inputs = len(orderings) * features * rows * columns
        units = equal_units(recurrent, inputs, lstm_units)
        self.recurrent = KINDS[recurrent](inputs, 1, units)
        self.last_step = LastStep()
        self.dropout2 = Dropout(dropout)
        self.head = nn.Linear(units, num_classes)
        self.apply(draw_as_keras)

    def forward(self, frames: Float[Tensor, "batch steps channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.dropout2(self.last_step(self.outputs(frames))))

    def each_step(
        self, frames: Float[Tensor, "batch steps channels height width"]
    ) -> Float[Tensor, "batch said classes"]:
        """What it would say after each step; model.recurrent=concat says something after the last only."""
        return self.head(self.dropout2(self.outputs(frames)))

    def outputs(self, frames: Float[Tensor, "batch steps channels height width"]) -> Float[Tensor, "batch said units"]:
        return self.recurrent(self.dropout(self.encoder(frames)))

"""Defines a network like the question's, but built for accuracy. It maps a sequence of frames to logits.

The quadrants are joined first, so that convs see the strokes that the cuts divide. All orderings show one image, which
is encoded and split into quadrants again, and the features of all quadrants of a frame enter the LSTM together. Shapes
for N samples of four orderings, with the values of conf/model/deep.yaml:

    [N, 4, 1, 56, 14] -> join -> [N, 1, 28, 28] -> encoder -> [N, 96, 8, 8] -> split -> [N, 4, 96, 4, 4]
                      -> concatenate at every step -> [N, 4, 6144] -> dropout -> LSTM -> [N, 4, 128]
                      -> last step -> [N, 128] -> dropout -> head -> [N, 10]

Because convs see across the cuts, the features of a step also depend on quadrants of later steps.
"""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.frames import Shape
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.dropout import Dropout
from quadrant_lstm.model.encoder import PaddedEncoder
from quadrant_lstm.model.initialization import initialize_as_keras
from quadrant_lstm.model.parts import MakePart
from quadrant_lstm.model.recurrent import LastStep, make_recurrent, num_outputs
from quadrant_lstm.model.sizes import pooled_shape
from quadrant_lstm.model.step_classifier import StepClassifier


def split_maps(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 4 rows columns channels"]:
    """Splits maps into quadrants, with channels last: convs are faster in this memory layout."""
    # batch, row of the grid, row, column of the grid, column, channels
    grid = maps.permute(0, 2, 3, 1).unflatten(1, (2, -1)).unflatten(3, (2, -1))
    return grid.transpose(2, 3).flatten(1, 2)


def join_maps(pieces: Float[Tensor, "batch 4 rows columns channels"]) -> Float[Tensor, "batch channels height width"]:
    """Undoes split_maps. The result is channels last in memory."""
    grid = pieces.unflatten(1, (2, 2)).transpose(2, 3)
    return grid.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class QuadrantPool(nn.MaxPool2d):
    """Applies a 2x2 max-pool to each quadrant of the maps, keeping an odd last row and column."""

    def __init__(self) -> None:
        super().__init__(2, ceil_mode=True)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        pooled = super().forward(split_maps(maps).flatten(0, 1).permute(0, 3, 1, 2))
        return join_maps(pooled.permute(0, 2, 3, 1).unflatten(0, (-1, 4)))


class JoinedQuadrants(nn.Module):
    """Maps [batch, 4, channels, stack, width] to [batch, 4, features] by encoding the image that the orderings show.

    With `once`, the image is read from the first ordering's quadrants and encoded once. Otherwise the image of each
    ordering is encoded, for frames whose orderings show different images.
    """

    image_places: Tensor
    frame_quadrants: Tensor

    def __init__(self, encoder: nn.Module, orderings: Orderings, once: bool = True):
        super().__init__()
        self.module, self.orderings = encoder, orderings
        num_orderings = len(orderings)
        stacked = torch.tensor(orderings).T - 1  # [step, ordering]: the quadrant that is shown
        places = torch.arange(4 * num_orderings).view(4, -1)  # [step, ordering]: counted over all steps
        image_places = places.gather(0, stacked.argsort(0)).T  # [ordering, quadrant]: the place that shows it
        if once:
            image_places = image_places[:1]
        quadrants = stacked if once else stacked + 4 * torch.arange(num_orderings)
        # A copy, because torch.export warns of a buffer that is part of a larger tensor
        self.register_buffer("image_places", image_places.flatten().clone(), persistent=False)
        self.register_buffer("frame_quadrants", quadrants.flatten(), persistent=False)

    def forward(self, frames: Float[Tensor, "batch 4 channels stack width"]) -> Float[Tensor, "batch 4 features"]:
        # [batch, place, channels, rows, columns]
        places = frames.unflatten(3, (len(self.orderings), -1)).transpose(2, 3).flatten(1, 2)
        quadrants = places.index_select(1, self.image_places)
        maps = self.module(join_maps(quadrants.unflatten(1, (-1, 4)).flatten(0, 1).permute(0, 1, 3, 4, 2)))
        quadrant_features = split_maps(maps).flatten(2).unflatten(0, (frames.shape[0], -1)).flatten(1, 2)
        return quadrant_features.index_select(1, self.frame_quadrants).unflatten(1, (4, -1)).flatten(2)


def encoder_of_images(quadrant_shape: Shape, blocks: Sequence[Sequence[int]]) -> PaddedEncoder:
    """Returns an encoder of whole images, whose pools do not mix quadrants."""
    encoder = PaddedEncoder(quadrant_shape[0], blocks)
    for number in range(1, len(blocks) + 1):
        _, height, width = pooled_shape(quadrant_shape, blocks[: number - 1])  # of a quadrant, before the pool
        if height % 2 or width % 2:
            setattr(encoder, f"pool{number}", QuadrantPool())
    return encoder


class DeepCNNLSTM(StepClassifier):
    """`frame_shape` (channels, height, width), `num_classes` and `orderings` come from the data; conf/model/deep.yaml
    explains the other arguments. Raises UserError if there are too many blocks for the size of the quadrants.
    """

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        orderings: Orderings,
        blocks: Sequence[Sequence[int]],
        recurrent: MakePart,
        dropout: float,
        lstm_units: int,
    ):
        super().__init__()
        channels, stack, width = frame_shape
        quadrant_shape = (channels, stack // len(orderings), width)
        features, rows, columns = pooled_shape(quadrant_shape, blocks)
        self.encoder = JoinedQuadrants(encoder_of_images(quadrant_shape, blocks), orderings)
        self.flatten = None
        self.dropout = Dropout(dropout)
        num_inputs = len(orderings) * features * rows * columns
        self.recurrent = make_recurrent(recurrent, [num_inputs], lstm_units)
        self.last_step = LastStep(getattr(self.recurrent, "bidirectional", False))
        self.dropout2 = Dropout(dropout)
        self.head = nn.Linear(num_outputs(self.recurrent, [num_inputs]), num_classes)
        self.apply(initialize_as_keras)

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        return self.head(self.dropout2(outputs))

    def in_full(self) -> "DeepCNNLSTM":
        network = copy.deepcopy(self)
        encoder = cast(JoinedQuadrants, network.encoder)
        network.encoder = JoinedQuadrants(encoder.module, encoder.orderings, once=False)
        return network

"""Defines a network like the question's, but built for accuracy. It maps a sequence of frames to logits.

The pieces are joined first, so that convs see the strokes that the cuts divide. All orderings show one image, which is
encoded and split into pieces again, and the features of all pieces of a frame enter the LSTM together. Shapes for N
samples of four orderings of quadrants, with the values of conf/model/deep.yaml:

    [N, 4, 1, 56, 14] -> join -> [N, 1, 28, 28] -> encoder -> [N, 96, 8, 8] -> split -> [N, 4, 96, 4, 4]
                      -> concatenate at every step -> [N, 4, 6144] -> dropout -> LSTM -> [N, 4, 128]
                      -> last step -> [N, 128] -> dropout -> head -> [N, 10]

Because convs see across the cuts, the features of a step also depend on pieces of later steps. With join_pieces=False,
each piece is encoded alone, with the same parameters.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.data.orderings import Shape
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import BelowOne, Blocks, Count, Grid, Orderings
from quadrant_lstm.model.encoder import Encoder, Maps, padded_blocks
from quadrant_lstm.model.network import Dropout, feature_shape
from quadrant_lstm.model.protocols import Frames, MakePart
from quadrant_lstm.model.recurrent import StepClassifier, initialize_as_keras

# Pieces of an image, encoded together: joined, encoded, and split again


Pieces = Float[Tensor, "batch pieces rows columns channels"]


def split_maps(maps: Maps, grid: Grid) -> Pieces:
    """Splits maps into pieces, with channels last: convs are faster in this memory layout."""
    # batch, row of the grid, row, column of the grid, column, channels
    split = maps.permute(0, 2, 3, 1).unflatten(1, (grid[0], -1)).unflatten(3, (grid[1], -1))
    return split.transpose(2, 3).flatten(1, 2)


def join_maps(pieces: Pieces, grid: Grid) -> Maps:
    """Undoes split_maps. The result is channels last in memory."""
    split = pieces.unflatten(1, tuple(grid)).transpose(2, 3)
    return split.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class PiecePool(nn.MaxPool2d):
    """Applies a 2x2 max-pool to each piece of the maps, keeping an odd last row and column."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(2, ceil_mode=True)
        self.grid = grid

    def forward(self, maps: Maps) -> Float[Tensor, "batch channels rows columns"]:
        pieces = split_maps(maps, self.grid)
        pooled = super().forward(pieces.flatten(0, 1).permute(0, 3, 1, 2))
        return join_maps(pooled.permute(0, 2, 3, 1).unflatten(0, (-1, pieces.shape[1])), self.grid)


class JoinedPieces(nn.Module):
    """Maps [batch, steps, channels, stack, width] to [batch, steps, features] by encoding the image that the orderings
    show.

    `joined_grid` is that of the pieces which are encoded together: the grid of the data, or 1 x 1 to encode each piece
    alone. With `once`, the image is read from the first ordering's pieces and encoded once. Otherwise the image of each
    ordering is encoded, for frames whose orderings show different images.
    """

    image_places: Tensor
    frame_pieces: Tensor

    def __init__(self, encoder: nn.Module, orderings: Orderings, joined_grid: Grid, once: bool = True):
        super().__init__()
        self.module, self.orderings, self.joined_grid = encoder, orderings, tuple(joined_grid)  # Hydra passes lists
        stacked = torch.tensor(orderings).T - 1  # [step, ordering]: the piece that is shown
        places = torch.arange(stacked.numel()).view(stacked.shape)  # counted over all steps
        image_places = places.gather(0, stacked.argsort(0)).T  # [ordering, piece]: the place that shows it
        if once:
            image_places = image_places[:1]
        pieces = stacked if once else stacked + len(stacked) * torch.arange(len(orderings))
        # A copy, because torch.export warns of a buffer that is part of a larger tensor
        self.register_buffer("image_places", image_places.flatten().clone(), persistent=False)
        self.register_buffer("frame_pieces", pieces.flatten(), persistent=False)

    def forward(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        # [batch, place, channels, rows, columns]
        places = frames.unflatten(3, (len(self.orderings), -1)).transpose(2, 3).flatten(1, 2)
        pieces = places.index_select(1, self.image_places).permute(0, 1, 3, 4, 2).flatten(0, 1)
        maps = self.module(join_maps(pieces.unflatten(0, (-1, math.prod(self.joined_grid))), self.joined_grid))
        features = split_maps(maps, self.joined_grid).flatten(2).flatten(0, 1).unflatten(0, (frames.shape[0], -1))
        return features.index_select(1, self.frame_pieces).unflatten(1, (frames.shape[1], -1)).flatten(2)

    def in_full(self) -> "JoinedPieces":
        encoder = JoinedPieces(self.module, self.orderings, self.joined_grid, once=False)
        return encoder.to(self.image_places.device)


# The network


def encoder_of_images(piece_shape: Shape, grid: Grid, blocks: Sequence[Sequence[int]]) -> Encoder:
    """Returns an encoder of whole images, whose pools do not mix pieces."""
    channels, height, width = piece_shape
    pools: list[nn.Module] = []
    for _ in blocks:
        pools.append(PiecePool(grid) if height % 2 or width % 2 else nn.MaxPool2d(2, ceil_mode=True))
        height, width = -(-height // 2), -(-width // 2)
    return Encoder(padded_blocks(channels, blocks, pools))


class DeepCNNLSTM(StepClassifier):
    """`frame_shape` (channels, height, width), `num_classes`, `orderings` and `grid` come from the data;
    conf/model/deep.yaml explains the other arguments. Raises UserError for clips and series.
    """

    needs_orderings = True

    def __init__(
        self,
        frame_shape: Shape,
        num_classes: int,
        orderings: Orderings | None,
        grid: Grid | None,
        blocks: Blocks,
        recurrent: MakePart,
        dropout: BelowOne,
        lstm_units: Count,
        join_pieces: bool,
    ):
        super().__init__()
        if orderings is None or grid is None:
            raise UserError("model: deep joins pieces of images, which clips and series do not have; write model=join.")
        channels, stack, width = frame_shape
        piece_shape, num_steps = (channels, stack // len(orderings), width), len(orderings[0])
        joined_grid = grid if join_pieces else (1, 1)
        self.encoder = JoinedPieces(encoder_of_images(piece_shape, joined_grid, blocks), orderings, joined_grid)
        self.dropout = Dropout(dropout)
        _, num_inputs = feature_shape(self.encoder, (num_steps, *frame_shape))
        num_outputs = self.read_with(recurrent, [num_inputs], lstm_units, num_steps)
        self.dropout2 = Dropout(dropout)
        self.head = nn.Linear(num_outputs, num_classes)
        self.apply(initialize_as_keras)

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        return self.head(self.dropout2(outputs))

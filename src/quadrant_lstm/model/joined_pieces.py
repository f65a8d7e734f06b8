"""Encodes pieces of an image together: joins them, encodes the image, and splits the feature maps into pieces again."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.kinds import Grid, Orderings


def split_maps(
    maps: Float[Tensor, "batch channels height width"], grid: Grid
) -> Float[Tensor, "batch pieces rows columns channels"]:
    """Splits maps into pieces, with channels last: convs are faster in this memory layout."""
    # batch, row of the grid, row, column of the grid, column, channels
    split = maps.permute(0, 2, 3, 1).unflatten(1, (grid[0], -1)).unflatten(3, (grid[1], -1))
    return split.transpose(2, 3).flatten(1, 2)


def join_maps(
    pieces: Float[Tensor, "batch pieces rows columns channels"], grid: Grid
) -> Float[Tensor, "batch channels height width"]:
    """Undoes split_maps. The result is channels last in memory."""
    split = pieces.unflatten(1, tuple(grid)).transpose(2, 3)
    return split.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class PiecePool(nn.MaxPool2d):
    """Applies a 2x2 max-pool to each piece of the maps, keeping an odd last row and column."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(2, ceil_mode=True)
        self.grid = grid

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
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

    def forward(
        self, frames: Float[Tensor, "batch steps channels stack width"]
    ) -> Float[Tensor, "batch steps features"]:
        # [batch, place, channels, rows, columns]
        places = frames.unflatten(3, (len(self.orderings), -1)).transpose(2, 3).flatten(1, 2)
        pieces = places.index_select(1, self.image_places).permute(0, 1, 3, 4, 2).flatten(0, 1)
        maps = self.module(join_maps(pieces.unflatten(0, (-1, math.prod(self.joined_grid))), self.joined_grid))
        features = split_maps(maps, self.joined_grid).flatten(2).flatten(0, 1).unflatten(0, (frames.shape[0], -1))
        return features.index_select(1, self.frame_pieces).unflatten(1, (frames.shape[1], -1)).flatten(2)

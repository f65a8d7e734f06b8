"""Encodes frames of stacked pieces like TimeDistributed, but computes feature rows that frames share only once.

A row of the feature maps of convs without stride and padding depends on a window of input rows, which lies in one
piece or crosses the seam between two. In the question, an image has four quadrants, and its four orderings form six
seams, while its frames contain sixteen and twelve. With two 3x3 convs and a 2x2 pool, of the 26 feature rows of a frame

    rows 0-4     depend on the first quadrant     (a quadrant has 14 rows, a window 6, and windows are 2 rows apart)
    rows 5-6     depend on its last 4 rows and the first 4 of the second quadrant
    rows 7-11    depend on the second quadrant, and so on.

So 32 distinct rows per image are computed, in the tiles of tile_plan.py, and gathered into the 104 rows of its four
frames. Results and gradients are those of TimeDistributed. Sharing overlapping windows: Giusti et al. 2013 (arXiv
1302.1700), Li et al. 2014 (1412.4526), Thom and Gritschneder 2017 (1508.06904).
"""

import collections
import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.tile_plan import plan_tiles
from quadrant_lstm.model.time_distributed import TimeDistributed


class GatherRows(torch.autograd.Function):
    """maps.index_select(1, rows) with a matrix product as its gradient, which is summed in float32 even for bf16 and is
    deterministic on a GPU. `selection[i, j]` is 1 if rows[j] is i, and 0 otherwise.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, selection: Tensor) -> Tensor:
        ctx.save_for_backward(selection)
        return maps.index_select(1, rows)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None, None]:
        (selection,) = ctx.saved_tensors
        summed = selection.to(gradients.dtype) @ gradients.flatten(2)
        return summed.unflatten(2, gradients.shape[2:]), None, None


class SharedTiles(TimeDistributed):
    """Maps [batch, steps, channels, stack, width] to [batch, steps, features, rows, columns], like
    TimeDistributed(encoder).

    Parameter names are the same, too. Each piece is read from the first place where the orderings show it, so frames
    must be those of `sequences(images, orderings, grid)`. Raises CannotShare for an unsuitable encoder or orderings.
    """

    # Indices of rows in what is named first, in the order of what is named second
    frame_to_piece_rows: Tensor
    piece_to_tile_rows: Tensor
    tile_to_frame_rows: Tensor
    selection: Tensor

    def __init__(self, encoder: nn.Module, orderings: Orderings, piece_height: int):
        super().__init__(encoder)
        tiles, rows_of_steps = plan_tiles(orderings, piece_height, encoder)
        heights = collections.Counter(map(len, tiles))
        self.counts = list(heights.values())  # numbers of tiles of each height
        self.sizes = [height * count for height, count in heights.items()]  # and their rows
        # Image rows are numbered over all pieces. `frames` lists the image rows in the frames of all steps;
        # `feature_rows` lists the feature rows of the tiles in the feature maps of these frames.
        num_steps = len(orderings[0])
        rows = torch.arange(num_steps * piece_height).view(num_steps, -1)
        frames = torch.cat([rows[piece - 1] for step in zip(*orderings, strict=True) for piece in step])
        feature_rows = torch.tensor(rows_of_steps).flatten()
        for name, indices in {
            "frame_to_piece_rows": (frames == rows.view(-1, 1)).int().argmax(1),  # first occurrences
            "piece_to_tile_rows": torch.tensor(list(itertools.chain(*tiles))),
            "tile_to_frame_rows": feature_rows,
            "selection": (torch.arange(int(feature_rows.max()) + 1).view(-1, 1) == feature_rows).float(),
        }.items():
            self.register_buffer(name, indices, persistent=False)

    def forward(  # type: ignore[override]
        self, frames: Float[Tensor, "batch steps channels stack width"]
    ) -> Float[Tensor, "batch steps features rows columns"]:
        stacks = frames.permute(0, 1, 3, 4, 2).flatten(1, 2)  # batch, rows of all steps, width, channels
        pieces = stacks.index_select(1, self.frame_to_piece_rows)
        rows = self.piece_to_tile_rows.split(self.sizes)
        tiles = [pieces.index_select(1, rows_of_height) for rows_of_height in rows]
        maps = torch.cat([self.encode(*each) for each in zip(tiles, self.counts, strict=True)], dim=1)
        gathered = GatherRows.apply(maps, self.tile_to_frame_rows, self.selection)
        return gathered.unflatten(1, (frames.shape[1], -1)).permute(0, 1, 4, 2, 3)

    def encode(
        self, rows: Float[Tensor, "batch stacked width channels"], num_tiles: int
    ) -> Float[Tensor, "batch rows columns features"]:
        tiles = rows.unflatten(1, (num_tiles, -1)).flatten(0, 1).permute(0, 3, 1, 2)
        maps = self.module(tiles).permute(0, 2, 3, 1)  # tile, row, column, feature
        return maps.unflatten(0, (-1, num_tiles)).flatten(1, 2)

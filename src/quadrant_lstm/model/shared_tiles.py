"""TimeDistributed for frames that stack quadrants: each distinct piece of a batch is encoded once.

Convs that neither stride nor pad see a window of rows. In a stack of quadrants that window lies inside one quadrant,
or across the seam of two neighbours, so a row of the feature maps depends on one quadrant or on one ordered pair. An
image has four quadrants, and the four orderings of the question make six pairs, where its frames hold sixteen and
twelve. With two 3x3 convs and a 2x2 pool, of the 26 rows of a frame's feature maps

    rows 0-4    come from the first quadrant alone        (a quadrant has 14 rows, a window 6, one every 2)
    rows 5-6    from its last 4 rows and the first 4 of the second
    rows 7-11   from the second quadrant alone            and so on

so 32 distinct rows an image are computed and gathered to the 104 of its four frames (tile_plan.py: which of
them together). The result is that of TimeDistributed, and so are the gradients. Sharing overlapping windows: Giusti et
al. 2013 (arXiv 1302.1700), Li et al. 2014 (1412.4526), Thom and Gritschneder 2017 (1508.06904).
"""

import collections
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.tile_plan import plan
from quadrant_lstm.model.time_distributed import TimeDistributed


class Rows(torch.autograd.Function):
    """maps.index_select(1, rows), `taken` being 1 where a map (row of it) is taken as a result (column of it). The
    gradient is a matrix product, which bf16 sums in float32 and a GPU in the same order each time."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, taken: Tensor) -> Tensor:
        ctx.save_for_backward(taken)
        return maps.index_select(1, rows)

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None, None]:
        (taken,) = ctx.saved_tensors
        summed = taken.to(gradients.dtype) @ gradients.flatten(2)
        return summed.unflatten(2, gradients.shape[2:]), None, None


class SharedTiles(TimeDistributed):
    """[batch, 4, channels, stack, width] -> [batch, 4, features, rows, columns], like TimeDistributed(encoder).

    Parameters have the names they have there. A quadrant is read from the first place where the orderings show it: the
    frames must be those of `sequences(images, orderings)`. Raises CannotShare for an encoder or orderings that it does
    not fit.
    """

    quadrants_in_frames: Tensor
    tiles_in_quadrants: Tensor
    frames_in_tiles: Tensor
    taken: Tensor

    def __init__(self, encoder: nn.Sequential, orderings: Sequence[Sequence[int]], quadrant_height: int):
        super().__init__(encoder)
        tiles, in_steps = plan(orderings, quadrant_height, encoder)
        heights = collections.Counter(map(len, tiles))
        self.counts = list(heights.values())  # of the tiles of each height
        self.sizes = [height * count for height, count in heights.items()]
        # What is made of which rows. Of an image: the quadrants', one below the other, and those of its four frames.
        rows = torch.arange(4 * quadrant_height).view(4, -1)
        frames = torch.cat([rows[ordering[step] - 1] for step in range(4) for ordering in orderings])
        # Of their feature maps: the tiles', and those of the four frames.
        maps = torch.tensor(in_steps).flatten()
        for name, indices in {
            "quadrants_in_frames": (frames == rows.view(-1, 1)).int().argmax(1),  # where each comes first
            "tiles_in_quadrants": torch.tensor(list(itertools.chain(*tiles))),
            "frames_in_tiles": maps,
            "taken": (torch.arange(int(maps.max()) + 1).view(-1, 1) == maps).float(),
        }.items():
            self.register_buffer(name, indices, persistent=False)

    def forward(
        self, frames: Float[Tensor, "batch 4 channels stack width"]
    ) -> Float[Tensor, "batch 4 features rows columns"]:
        stacks = frames.permute(0, 1, 3, 4, 2).flatten(1, 2)  # batch, rows of all steps, width, channels
        quadrants = stacks.index_select(1, self.quadrants_in_frames)
        rows = self.tiles_in_quadrants.split(self.sizes)
        tiles = [quadrants.index_select(1, of_height) for of_height in rows]
        maps = torch.cat([self.encode(*each) for each in zip(tiles, self.counts, strict=True)], dim=1)
        return Rows.apply(maps, self.frames_in_tiles, self.taken).unflatten(1, (4, -1)).permute(0, 1, 4, 2, 3)

    def encode(
        self, rows: Float[Tensor, "batch stacked width channels"], num_tiles: int
    ) -> Float[Tensor, "batch rows columns features"]:
        tiles = rows.unflatten(1, (num_tiles, -1)).flatten(0, 1).permute(0, 3, 1, 2)
        maps = self.module(tiles).permute(0, 2, 3, 1)  # tile, row, column, feature
        return maps.unflatten(0, (-1, num_tiles)).flatten(1, 2)

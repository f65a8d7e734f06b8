"""Encodes frames of stacked pieces like TimeDistributed, but computes feature rows that frames share only once.

The convs and the pool of a ConvEncoder have no padding, so that a row of its feature maps depends on a window of input
rows, which lies in one piece or crosses the seam between two. In the question, an image has four quadrants, and its
four orderings form six seams, while its frames contain sixteen and twelve. With two 3x3 convs and a 2x2 pool, of the 26
feature rows of a frame

    rows 0-4     depend on the first quadrant     (a quadrant has 14 rows, a window 6, and windows are 2 rows apart)
    rows 5-6     depend on its last 4 rows and the first 4 of the second quadrant
    rows 7-11    depend on the second quadrant, and so on.

So 32 distinct rows per image are computed, in tiles, and gathered into the 104 rows of its four frames. Results and
gradients are those of TimeDistributed. Sharing overlapping windows: Giusti et al. 2013 (arXiv 1302.1700), Li et al.
2014 (1412.4526), Thom and Gritschneder 2017 (1508.06904).
"""

import collections
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.protocols import Frames
from quadrant_lstm.model.time_distributed import TimeDistributed

# The plan: which rows of an image are encoded together, for given orderings and an encoder's receptive field
#
# A piece and the seams above and below it share image rows. If they are encoded as one tile, the first convs process
# the shared rows once. So a piece gets a tile with a seam above and a seam below that are in no other tile, while there
# are such seams. Each remaining piece or seam is a tile of its own. In the question, whose pieces are quadrants, with
# two 3x3 convs and a 2x2 pool,
#
#     quadrants 1, 2, 3    are in tiles of 22 rows: the last 4 of the quadrant above, 14 of their own, the first 4 below
#     quadrant 4           is a tile of 14 rows: both of its seams are in the tile of quadrant 1


class CannotShare(Exception):
    """Says why the feature rows of frames cannot be computed from single pieces and pairs of them."""


Seam = tuple[int, int]  # the piece above and the piece below, counted from 0


def plan_tiles(orderings: Orderings, height: int, encoder: nn.Module) -> tuple[list[list[int]], list[list[int]]]:
    """Returns the rows of each tile, counted over the frames of all steps, with tiles of equal height side by side; and
    for each step, the indices of its feature rows among those of all tiles. `height` is that of a piece. Raises
    CannotShare if shared rows would not be exact or there are none.
    """
    if len(orderings) < 2:
        raise CannotShare("with one ordering each piece is shown once")
    window, jump = receptive_field(encoder)
    if window > height:
        raise CannotShare(f"a feature sees {window} rows, more than the {height} of a piece")
    if height % jump:
        raise CannotShare(f"the pooling's {jump} rows do not divide the {height} of a piece")
    num_pieces = len(orderings[0])
    stacks = [[piece - 1 for piece in step] for step in zip(*orderings, strict=True)]
    seams = dict.fromkeys(seam for stack in stacks for seam in itertools.pairwise(stack)) if window > jump else ()
    places = [height * [*itertools.chain(*stacks)].index(piece) for piece in range(num_pieces)]  # the first of each
    of_piece = [list(range(place, place + height)) for place in places]
    start = jump * ((height - window) // jump + 1)  # of the first window that crosses a seam
    above = {seam: of_piece[seam[0]][start:] for seam in seams}
    below = {seam: of_piece[seam[1]][: window - jump] for seam in seams}
    together = pieces_between_seams(list(seams), num_pieces)
    used = set(itertools.chain(*together))
    tiles = [above[upper] + of_piece[piece] + below[lower] for upper, piece, lower in together]
    tiles += [of_piece[piece] for piece in range(num_pieces) if piece not in used]
    tiles += [above[seam] + below[seam] for seam in seams if seam not in used]

    def windows(rows: Sequence[int]) -> list[tuple[int, ...]]:
        """Returns the rows that each feature row sees."""
        return [tuple(rows[first : first + window]) for first in range(0, len(rows) - window + 1, jump)]

    numbers = {rows: number for number, rows in enumerate(itertools.chain(*map(windows, tiles)))}
    frames = ([row for piece in stack for row in of_piece[piece]] for stack in stacks)
    return tiles, [[numbers[rows] for rows in windows(frame)] for frame in frames]


def pieces_between_seams(seams: Sequence[Seam], num_pieces: int) -> list[tuple[Seam, int, Seam]]:
    """Returns pieces with a seam above and one below, each of which occurs once. Seams of a piece with itself are taken
    first, because no other piece can take them. Only the speed depends on the choice.
    """
    together = []
    free = sorted(seams, key=lambda seam: seam[0] != seam[1])
    for piece in range(num_pieces):
        below = next((seam for seam in free if seam[0] == piece), None)
        above = next((seam for seam in free if seam[1] == piece and seam != below), None)
        if above and below:
            together.append((above, piece, below))
            free = [seam for seam in free if seam not in (above, below)]
    return together


def receptive_field(encoder: nn.Module) -> tuple[int, int]:
    """Returns the number of input rows that a feature row sees, and the distance of two feature rows in input rows."""
    if type(encoder) is not ConvEncoder:
        raise CannotShare(f"{type(encoder).__name__} is not a ConvEncoder; its rows may see the whole frame")
    pool: Any = encoder.pool
    kernel_sizes = [layer.kernel_size[0] for layer in encoder if isinstance(layer, nn.Conv2d)]
    return sum(size - 1 for size in kernel_sizes) + pool.kernel_size, pool.kernel_size


# The encoder


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
    frame_to_tile_rows: Tensor
    tile_to_frame_rows: Tensor
    selection: Tensor

    def __init__(self, encoder: nn.Module, orderings: Orderings, piece_height: int):
        super().__init__(encoder)
        tiles, rows_of_steps = plan_tiles(orderings, piece_height, encoder)
        heights = collections.Counter(map(len, tiles))
        self.counts = list(heights.values())  # numbers of tiles of each height
        self.sizes = [height * count for height, count in heights.items()]  # and their rows
        feature_rows = torch.tensor(rows_of_steps).flatten()
        selection = torch.arange(int(feature_rows.max()) + 1).view(-1, 1) == feature_rows
        self.register_buffer("frame_to_tile_rows", torch.tensor(list(itertools.chain(*tiles))), persistent=False)
        self.register_buffer("tile_to_frame_rows", feature_rows, persistent=False)
        self.register_buffer("selection", selection.float(), persistent=False)

    def forward(self, frames: Frames) -> Float[Tensor, "batch steps features rows columns"]:  # type: ignore[override]
        stacks = frames.permute(0, 1, 3, 4, 2).flatten(1, 2)  # batch, rows of all steps, width, channels
        maps = []
        for rows, count in zip(self.frame_to_tile_rows.split(self.sizes), self.counts, strict=True):
            tiles = stacks.index_select(1, rows).unflatten(1, (count, -1)).flatten(0, 1).permute(0, 3, 1, 2)
            encoded = self.module(tiles).permute(0, 2, 3, 1)  # tile, row, column, feature
            maps.append(encoded.unflatten(0, (-1, count)).flatten(1, 2))
        gathered = GatherRows.apply(torch.cat(maps, dim=1), self.tile_to_frame_rows, self.selection)
        return gathered.unflatten(1, (frames.shape[1], -1)).permute(0, 1, 4, 2, 3)

    def in_full(self) -> TimeDistributed:
        return TimeDistributed(self.module)

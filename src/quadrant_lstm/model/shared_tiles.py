"""Encodes frames of stacked pieces like TimeDistributed, but computes feature rows that frames share only once.

A row of the feature maps of convs without stride and padding depends on a window of input rows, which lies in one
piece or crosses the seam between two. In the question, an image has four quadrants, and its four orderings form six
seams, while its frames contain sixteen and twelve. With two 3x3 convs and a 2x2 pool, of the 26 feature rows of a frame

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
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.encoder import Encoder, plain_pool_size
from quadrant_lstm.model.time_distributed import TimeDistributed

# The plan: which rows of an image are encoded together, for given orderings and an encoder's receptive field
#
# A piece and the seams above and below it share image rows. If they are encoded as one tile, the first convs process
# the shared rows once. The plan therefore gives as many pieces as it can a tile with a seam above and a seam below that
# are in no other tile: a matching in a bipartite graph. Each remaining piece or seam is a tile of its own. In the
# question, whose pieces are quadrants, with two 3x3 convs and a 2x2 pool,
#
#     quadrants 1, 2, 3    are in tiles of 22 rows: the last 4 of the quadrant above, 14 of their own, the first 4 below
#     quadrant 4           is a tile of 14 rows: both of its seams are in the tile of quadrant 1


ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


class CannotShare(Exception):
    """Says why the feature rows of frames cannot be computed from single pieces and pairs of them."""


Seam = tuple[int, int]  # the piece above and the piece below, counted from 0
Tile = Sequence[int | Seam]  # (seam, piece, seam), (piece,) or (seam,)
Place = tuple[int, int]  # a piece, and 0 above it or 1 below it


class TilePlan(NamedTuple):
    tiles: list[list[int]]  # image rows of each, counted over all pieces; tiles of equal height are adjacent
    rows: list[list[int]]  # for each step, the indices of its feature rows among those of all tiles


class RowCounts(NamedTuple):
    of_piece: int  # feature rows that see a single piece
    of_seam: int  # feature rows that see both pieces of a seam
    upper: int  # image rows of the piece above that those of a seam see; 0 if there are none
    lower: int  # image rows of the piece below


def plan_tiles(orderings: Orderings, piece_height: int, encoder: nn.Module) -> TilePlan:
    """Raises CannotShare if shared rows would not be exact or there are none."""
    if len(orderings) < 2:
        raise CannotShare("with one ordering each piece is shown once")
    counts = count_rows(piece_height, encoder)
    stacks = [[piece - 1 for piece in step] for step in zip(*orderings, strict=True)]
    pairs = dict.fromkeys(pair for stack in stacks for pair in itertools.pairwise(stack))
    seams = list(pairs) if counts.of_seam else []
    tiles = make_tiles(seams, num_pieces=len(orderings[0]))

    next_row = itertools.count()
    parts = [part for tile in tiles for part in tile]
    numbers = (counts.of_piece if isinstance(part, int) else counts.of_seam for part in parts)
    features = {part: list(itertools.islice(next_row, number)) for part, number in zip(parts, numbers, strict=True)}
    rows = []
    for stack in stacks:
        shown = [stack[0], *(part for seam in itertools.pairwise(stack) for part in (seam, seam[1]))]
        rows.append([row for part in shown for row in features.get(part, [])])
    return TilePlan([image_rows(tile, piece_height, counts) for tile in tiles], rows)


def count_rows(piece_height: int, encoder: nn.Module) -> RowCounts:
    window, jump = receptive_field(encoder)
    if window > piece_height:
        raise CannotShare(f"a feature sees {window} rows, more than the {piece_height} of a piece")
    if piece_height % jump:
        raise CannotShare(f"the pooling's {jump} rows do not divide the {piece_height} of a piece")
    of_piece = (piece_height - window) // jump + 1
    of_seam = piece_height // jump - of_piece
    return RowCounts(of_piece, of_seam, upper=jump * of_seam, lower=window - jump)


def make_tiles(seams: Sequence[Seam], num_pieces: int) -> list[Tile]:
    """Returns tiles in which each piece and each seam is exactly once."""
    between = pieces_between_seams(seams, num_pieces)
    used = {seam for both in between.values() for seam in both}
    whole: list[Tile] = [(above, piece, below) for piece, (above, below) in between.items()]
    pieces: list[Tile] = [(piece,) for piece in range(num_pieces) if piece not in between]
    return [*whole, *pieces, *((seam,) for seam in seams if seam not in used)]


def image_rows(tile: Tile, piece_height: int, counts: RowCounts) -> list[int]:
    def rows_of(piece: int) -> range:
        return range(piece * piece_height, (piece + 1) * piece_height)

    first, last = tile[0], tile[-1]
    upper = rows_of(first[0])[-counts.upper :] if isinstance(first, tuple) else ()
    lower = rows_of(last[1])[: counts.lower] if isinstance(last, tuple) else ()
    return [*upper, *(row for part in tile if isinstance(part, int) for row in rows_of(part)), *lower]


def pieces_between_seams(seams: Sequence[Seam], num_pieces: int) -> dict[int, tuple[Seam, Seam]]:
    """Matches seams with the places above and below the pieces, where each seam fits one place above a piece and one
    below. A piece is matched with two seams, or with none.

    The matching grows piece by piece. Another order of the pieces may serve a few more; only the speed depends on it.
    """
    matched: dict[Seam, Place] = {}
    for piece in range(num_pieces):
        larger = dict(matched)
        if all(augment(larger, (piece, side), seams, set()) for side in (0, 1)):
            matched = larger
    at = {place: seam for seam, place in matched.items()}
    return {piece: (at[piece, 0], at[piece, 1]) for piece in range(num_pieces) if (piece, 0) in at}


def augment(matched: dict[Seam, Place], place: Place, seams: Sequence[Seam], tried: set[Seam]) -> bool:
    """Matches one more place, along an augmenting path: others may get another seam."""
    piece, side = place
    for seam in seams:
        if seam[1 - side] == piece and seam not in tried:
            tried.add(seam)
            if seam not in matched or augment(matched, matched[seam], seams, tried):
                matched[seam] = place
                return True
    return False


def receptive_field(encoder: nn.Module) -> tuple[int, int]:
    """Returns the number of input rows that a feature row sees, and the distance of two feature rows in input rows."""
    if not isinstance(encoder, nn.Sequential):
        raise CannotShare(f"{type(encoder).__name__} is not an nn.Sequential, whose layers are known")
    if type(encoder).forward not in (nn.Sequential.forward, Encoder.forward):
        raise CannotShare(f"{type(encoder).__name__} has a forward of its own")
    window = jump = 1
    for name, layer in encoder.named_children():
        if isinstance(layer, nn.Conv2d):
            if layer.stride != (1, 1) or layer.padding not in ((0, 0), "valid"):
                raise CannotShare(f"layer {name} (Conv2d) has a stride or padding")
            window += (layer.kernel_size[0] - 1) * layer.dilation[0] * jump
        elif isinstance(layer, nn.MaxPool2d):
            size = plain_pool_size(layer)
            if size is None or layer.ceil_mode:
                raise CannotShare(f"layer {name} (MaxPool2d) pools with overlap, padding, dilation or ceil_mode")
            window += (size[0] - 1) * jump
            jump *= size[0]
        elif not isinstance(layer, ELEMENTWISE):
            raise CannotShare(f"layer {name} is a {type(layer).__name__}, which may mix distant rows")
    return window, jump


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
        tiles = [pieces.index_select(1, rows) for rows in self.piece_to_tile_rows.split(self.sizes)]
        maps = torch.cat([self.encode(rows, count) for rows, count in zip(tiles, self.counts, strict=True)], dim=1)
        gathered = GatherRows.apply(maps, self.tile_to_frame_rows, self.selection)
        return gathered.unflatten(1, (frames.shape[1], -1)).permute(0, 1, 4, 2, 3)

    def encode(
        self, rows: Float[Tensor, "batch stacked width channels"], num_tiles: int
    ) -> Float[Tensor, "batch rows columns features"]:
        tiles = rows.unflatten(1, (num_tiles, -1)).flatten(0, 1).permute(0, 3, 1, 2)
        maps = self.module(tiles).permute(0, 2, 3, 1)  # tile, row, column, feature
        return maps.unflatten(0, (-1, num_tiles)).flatten(1, 2)

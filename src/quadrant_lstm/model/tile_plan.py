"""Plans which rows of an image are encoded together, for given orderings and the receptive field of an encoder.

A quadrant and the seams above and below it share image rows. If they are encoded as one tile, the first convs process
the shared rows once. The plan therefore puts as many quadrants as possible into a tile with a seam above and a seam
below that are in no other tile. Each remaining quadrant or seam is a tile of its own. In the question, with two 3x3
convs and a 2x2 pool,

    quadrants 1, 2, 3    are in tiles of 22 rows: the last 4 of the quadrant above, 14 of their own, the first 4 below
    quadrant 4           is a tile of 14 rows: both of its seams are in the tile of quadrant 1
"""

import itertools
from typing import NamedTuple

from torch import nn

from quadrant_lstm.kinds import Orderings

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


class CannotShare(Exception):
    """Says why the feature rows of frames cannot be computed from single quadrants and pairs of them."""


Seam = tuple[int, int]  # the quadrant above and the quadrant below, counted from 0


class TilePlan(NamedTuple):
    tiles: list[list[int]]  # image rows of each, counted over the four quadrants; tiles of equal height are adjacent
    rows: list[list[int]]  # for each step, the indices of its feature rows among those of all tiles


def plan_tiles(orderings: Orderings, quadrant_height: int, encoder: nn.Module) -> TilePlan:
    """Raises CannotShare if shared rows would not be exact or there are none."""
    window, jump = receptive_field(encoder)
    if len(orderings) < 2:
        raise CannotShare("with one ordering each quadrant is shown once")
    if window > quadrant_height:
        raise CannotShare(f"a feature sees {window} rows, more than the {quadrant_height} of a quadrant")
    if quadrant_height % jump:
        raise CannotShare(f"the pooling's {jump} rows do not divide the {quadrant_height} of a quadrant")
    quadrant_rows = (quadrant_height - window) // jump + 1  # feature rows that see a single quadrant
    seam_rows = quadrant_height // jump - quadrant_rows  # feature rows that see both quadrants of a seam
    upper_rows, lower_rows = jump * seam_rows, window - jump  # image rows of the two quadrants that these see

    stacks = [[ordering[step] - 1 for ordering in orderings] for step in range(4)]
    seams = list(dict.fromkeys(seam for stack in stacks for seam in itertools.pairwise(stack))) if seam_rows else []
    between = quadrants_between_seams(seams)
    seams_between = {seam for both in between.values() for seam in both}

    images = [list(range(start, start + quadrant_height)) for start in range(0, 4 * quadrant_height, quadrant_height)]
    tiles: list[list[int]] = []
    pieces: list[int | Seam] = []  # the quadrants and seams of the tiles
    for quadrant, (above, below) in between.items():
        tiles.append(images[above[0]][-upper_rows:] + images[quadrant] + images[below[1]][:lower_rows])
        pieces += [above, quadrant, below]
    for quadrant in (quadrant for quadrant in range(4) if quadrant not in between):
        tiles.append(images[quadrant])
        pieces.append(quadrant)
    for upper, lower in (seam for seam in seams if seam not in seams_between):
        tiles.append(images[upper][-upper_rows:] + images[lower][:lower_rows])
        pieces.append((upper, lower))

    next_row = itertools.count()
    counts = (quadrant_rows if isinstance(piece, int) else seam_rows for piece in pieces)
    features = {piece: list(itertools.islice(next_row, count)) for piece, count in zip(pieces, counts, strict=True)}
    rows = []
    for stack in stacks:
        shown = [stack[0], *(piece for seam in itertools.pairwise(stack) for piece in (seam, seam[1]))]
        rows.append([row for piece in shown for row in features.get(piece, [])])
    return TilePlan(tiles, rows)


def quadrants_between_seams(seams: list[Seam], quadrant: int = 0) -> dict[int, tuple[Seam, Seam]]:
    """Assigns one seam above and one below to as many quadrants as possible, from `quadrant` on, and no seam twice."""
    if quadrant == 4:
        return {}
    found = []
    for above, below in itertools.permutations(seams, 2):
        if above[1] == quadrant == below[0]:
            others = [seam for seam in seams if seam not in (above, below)]
            found.append({quadrant: (above, below)} | quadrants_between_seams(others, quadrant + 1))
            if len(found[-1]) == 4 - quadrant:
                return found[-1]
    return max([*found, quadrants_between_seams(seams, quadrant + 1)], key=len)


def receptive_field(encoder: nn.Module) -> tuple[int, int]:
    """Returns the number of input rows that a feature row sees, and the distance of two feature rows in input rows."""
    if not isinstance(encoder, nn.Sequential):
        raise CannotShare(f"{type(encoder).__name__} is not an nn.Sequential, whose layers are known")
    window = jump = 1
    for name, layer in encoder.named_children():
        if isinstance(layer, nn.Conv2d):
            if layer.stride != (1, 1) or layer.padding not in ((0, 0), "valid"):
                raise CannotShare(f"layer {name} (Conv2d) has a stride or padding")
            window += (layer.kernel_size[0] - 1) * layer.dilation[0] * jump
        elif isinstance(layer, nn.MaxPool2d):
            size = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
            if layer.stride != layer.kernel_size or layer.padding != 0 or layer.dilation != 1 or layer.ceil_mode:
                raise CannotShare(f"layer {name} (MaxPool2d) pools with overlap, padding, dilation or ceil_mode")
            window += (size - 1) * jump
            jump *= size
        elif not isinstance(layer, ELEMENTWISE):
            raise CannotShare(f"layer {name} is a {type(layer).__name__}, which may mix distant rows")
    return window, jump

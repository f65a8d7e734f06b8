"""Orderings, and how far an encoder sees -> what of an image is encoded together, and where its feature rows come.

A quadrant and the seams above and below it see rows in common, and what the first convs make of these is computed once
where they are encoded as one tile. So as many quadrants as can be are encoded between a seam above and a seam below
that no other tile has, and what is left over by itself. In the question, with two 3x3 convs and a 2x2 pool,

    quadrants 1, 2, 3    are tiles of 22 rows: the last 4 of the quadrant above, their own 14, the first 4 of that below
    quadrant 4           is one of 14: both of its seams are in the tile of quadrant 1
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


class CannotShare(Exception):
    """Says why rows of the feature maps are not those of single quadrants and pairs."""


Seam = tuple[int, int]  # the quadrant above and the one below, counted from 0


class Plan(NamedTuple):
    tiles: list[list[int]]  # of each, its rows, counted through the four quadrants; those of one height side by side
    rows: list[list[int]]  # of each step, which row of the tiles' feature maps comes where


def plan(orderings: Sequence[Sequence[int]], quadrant_height: int, encoder: nn.Sequential) -> Plan:
    """Raises CannotShare where the shared rows would not be exact, or not be fewer."""
    window, jump = receptive_field(encoder)
    if len(orderings) < 2:
        raise CannotShare("with one ordering each quadrant is shown once")
    if window > quadrant_height:
        raise CannotShare(f"a feature sees {window} rows, more than the {quadrant_height} of a quadrant")
    if quadrant_height % jump:
        raise CannotShare(f"the pooling's {jump} rows do not divide the {quadrant_height} of a quadrant")
    quadrant_rows = (quadrant_height - window) // jump + 1  # feature rows that a quadrant alone gives
    seam_rows = quadrant_height // jump - quadrant_rows  # and a seam, which sees so many image rows of the two:
    of_upper, of_lower = jump * seam_rows, window - jump

    stacks = [[ordering[step] - 1 for ordering in orderings] for step in range(4)]
    seams = list(dict.fromkeys(seam for stack in stacks for seam in itertools.pairwise(stack))) if seam_rows else []
    between = quadrants_between_seams(seams)
    own = {seam for both in between.values() for seam in both}

    images = [list(range(start, start + quadrant_height)) for start in range(0, 4 * quadrant_height, quadrant_height)]
    tiles: list[list[int]] = []
    features: dict[int | Seam, list[int]] = {}  # of a quadrant or a seam
    number = itertools.count()

    def add(tile: list[int], *pieces: int | Seam) -> None:
        tiles.append(tile)
        for piece in pieces:
            count = quadrant_rows if isinstance(piece, int) else seam_rows
            features[piece] = list(itertools.islice(number, count))

    for quadrant, (above, below) in between.items():
        tile = images[above[0]][-of_upper:] + images[quadrant] + images[below[1]][:of_lower]
        add(tile, above, quadrant, below)
    for quadrant in range(4):
        if quadrant not in between:
            add(images[quadrant], quadrant)
    for upper, lower in seams:
        if (upper, lower) not in own:
            add(images[upper][-of_upper:] + images[lower][:of_lower], (upper, lower))

    rows = []
    for stack in stacks:
        shown = [stack[0], *(piece for seam in itertools.pairwise(stack) for piece in (seam, seam[1]))]
        rows.append([row for piece in shown for row in features.get(piece, [])])
    return Plan(tiles, rows)


def quadrants_between_seams(seams: list[Seam], quadrant: int = 0) -> dict[int, tuple[Seam, Seam]]:
    """Of this quadrant and those after it, as many as can have a seam above and a seam below that no other has."""
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


def receptive_field(encoder: nn.Sequential) -> tuple[int, int]:
    """The input rows that a feature row sees, and the input rows between two feature rows."""
    window = jump = 1
    for name, layer in encoder.named_children():
        if isinstance(layer, nn.Conv2d):
            if layer.stride != (1, 1) or layer.padding not in ((0, 0), "valid"):
                raise CannotShare(f"{name} strides or pads")
            window += (layer.kernel_size[0] - 1) * layer.dilation[0] * jump
        elif isinstance(layer, nn.MaxPool2d):
            size = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[0]
            if layer.stride != layer.kernel_size or layer.padding != 0 or layer.dilation != 1 or layer.ceil_mode:
                raise CannotShare(f"{name} pools with overlap, padding, dilation or beyond the edge")
            window += (size - 1) * jump
            jump *= size
        elif not isinstance(layer, ELEMENTWISE):
            raise CannotShare(f"{name} is a {type(layer).__name__}, which may look beyond its window")
    return window, jump

"""TimeDistributed for frames that stack quadrants: each distinct piece of a batch is encoded once.

Convs that neither stride nor pad see a window of rows. In a stack of quadrants that window lies inside one quadrant,
or across the seam of two neighbours, so a row of the feature maps depends on one quadrant or on one ordered pair. An
image has four quadrants, and the four orderings of the question make six pairs, where its frames hold sixteen and
twelve. With two 3x3 convs and a 2x2 pool, of the 26 rows of a frame's feature maps

    rows 0-4    come from the first quadrant alone        (a quadrant has 14 rows, a window 6, one every 2)
    rows 5-6    from its last 4 rows and the first 4 of the second
    rows 7-11   from the second quadrant alone            and so on

so 32 distinct rows an image are computed and gathered to the 104 of its four frames. A quadrant and its seams see rows
in common, and what the first convs make of these is computed once where they are encoded as one tile. So as many
quadrants as can be are encoded between a seam above and a seam below that no other tile has, and what is left over by
itself. In the question

    quadrants 1, 2, 3    are tiles of 22 rows: the last 4 of the quadrant above, their own 14, the first 4 of that below
    quadrant 4           is one of 14: both of its seams are in the tile of quadrant 1

The result is that of TimeDistributed, and so are the gradients. Sharing overlapping windows: Giusti et al. 2013 (arXiv
1302.1700), Li et al. 2014 (1412.4526), Thom and Gritschneder 2017 (1508.06904).
"""

import collections
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.time_distributed import TimeDistributed

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
    for above in seams:
        for below in seams:
            if above[1] == quadrant == below[0] and above != below:
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

    Parameters have the names they have there. Raises CannotShare for an encoder or orderings it does not fit, and
    ValueError for frames that do not follow the orderings (on a GPU an assertion of the device, so as not to wait).
    """

    shares = True
    quadrants_in_frames: Tensor
    frames_in_quadrants: Tensor
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
            "frames_in_quadrants": frames,
            "tiles_in_quadrants": torch.tensor(list(itertools.chain(*tiles))),
            "frames_in_tiles": maps,
            "taken": (torch.arange(int(maps.max()) + 1).view(-1, 1) == maps).float(),
        }.items():
            self.register_buffer(name, indices, persistent=False)

    def forward(
        self, frames: Float[Tensor, "batch 4 channels stack width"]
    ) -> Float[Tensor, "batch 4 features rows columns"]:
        if not self.shares or frames.is_meta or torch.compiler.is_compiling():  # no values to compare, or an export
            return super().forward(frames)
        stacks = frames.permute(0, 1, 3, 4, 2).flatten(1, 2)  # batch, rows of all steps, width, channels
        quadrants = stacks.index_select(1, self.quadrants_in_frames)
        self.check(stacks, quadrants)
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

    def check(self, stacks: Tensor, quadrants: Tensor) -> None:
        expected = quadrants.index_select(1, self.frames_in_quadrants)
        check_follows(stacks, expected, "model.shared_tiles", ", or set shared_tiles=False")


@contextlib.contextmanager
def in_full(network: nn.Module) -> Iterator[None]:
    """Within it nothing that frames have in common is shared, so they need not follow the orderings."""
    encoders: list[Any] = [module for module in network.modules() if hasattr(module, "shares")]
    for encoder in encoders:
        encoder.shares = False
    try:
        yield
    finally:
        for encoder in encoders:
            del encoder.shares  # the class's


def check_follows(frames: Tensor, expected: Tensor, who: str, remedy: str = "") -> None:
    """Raises ValueError where they differ; on a GPU, which it does not wait for, an assertion of the device does."""
    if frames.is_cuda:
        torch._assert_async((expected == frames).all())
    elif not torch.equal(expected, frames):
        raise ValueError(
            f"frames: they do not follow data.orderings, which {who} relies on; build them with "
            f"sequences(images, orderings){remedy}."
        )

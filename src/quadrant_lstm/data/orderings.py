"""Turns images into sequences: cuts them into the pieces of a grid, and stacks pieces of several orderings."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from quadrant_lstm.kinds import Grid, Orderings, OrderingsOrNames

Shape = Sequence[int]  # channels, height, width; of a series, the features, or the features and values of a window
ImageBatch = Shaped[Tensor, "batch channels height width"]
FrameBatch = Shaped[Tensor, "batch steps channels stack columns"]


class SequenceSpec(NamedTuple):
    """What a network has to fit. A checkpoint stores it."""

    frame_shape: tuple[int, ...]
    num_steps: int
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] = ()  # the columns of series in tables, if they have names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def is_series(self) -> bool:
        return len(self.frame_shape) < 3


def numbered_names(num_classes: int) -> tuple[str, ...]:
    """Returns the names of classes that have none: 0, 1, 2, ..."""
    return tuple(map(str, range(num_classes)))


def image_shape_of(frame_shape: Shape, num_orderings: int, grid: Grid) -> tuple[int, int, int]:
    channels, height, width = frame_shape
    return channels, grid[0] * height // num_orderings, grid[1] * width


# Pieces of an image, in reading order
#
# A 28 x 28 image becomes four pieces of 14 x 14 on a grid of 2 x 2, the quadrants of the question:
#
#     | 1 | 2 |
#     | 3 | 4 |


QUADRANTS = (2, 2)


def split_quadrants(images: ImageBatch) -> Shaped[Tensor, "batch 4 channels height//2 width//2"]:
    """Splits images of any even height and width. Raises ValueError for an odd one."""
    return split_pieces(images, QUADRANTS)


def split_pieces(images: ImageBatch, grid: Grid) -> Shaped[Tensor, "batch pieces channels rows columns"]:
    """Raises ValueError if the grid does not divide the height and width of the images."""
    _, _, height, width = images.shape
    rows, columns = grid
    if height % rows or width % columns:
        rule = f"cannot be split into {rows} x {columns} equal pieces"
        raise ValueError(f"images are {height} x {width}, which {rule}; pad or crop them, or choose another grid.")
    split = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    # batch, row of the grid, column of the grid, channels, rows, columns
    return split.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def occlude_piece(images: ImageBatch, piece: int, grid: Grid) -> ImageBatch:
    """Returns a copy of the images in which a piece, counted from 1, is blank."""
    occluded = images.clone()
    height, width = images.shape[2] // grid[0], images.shape[3] // grid[1]
    row, column = divmod(piece - 1, grid[1])
    occluded[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width] = 0
    return occluded


# Orderings: permutations of the pieces of a grid, or names of scans


Pieces = Int[np.ndarray, "..."]  # numbers of pieces
Ordering = TypeVar("Ordering")  # a permutation, or a name


def snake(grid: Pieces) -> Pieces:
    turned = grid.copy()
    turned[1::2] = grid[1::2, ::-1]
    return turned.ravel()


def spiral(grid: Pieces) -> Pieces:
    """Clockwise, from the first piece inwards."""
    if not len(grid):
        return grid.ravel()
    return np.concatenate([grid[0], spiral(np.rot90(grid[1:]))])


def hilbert(grid: Pieces) -> Pieces:
    """Ends in the corner at the top right. Raises ValueError for a grid on which there is no such path."""
    height, width = grid.shape
    if height != width or height.bit_count() != 1:
        raise ValueError(f"hilbert needs a grid of 2 x 2, 4 x 4, 8 x 8, ..., not {height} x {width}; name another.")
    if height == 1:
        return grid.ravel()
    (top_left, top_right), (bottom_left, bottom_right) = (np.hsplit(half, 2) for half in np.vsplit(grid, 2))
    return np.concatenate([hilbert(part) for part in (top_left.T, bottom_left, bottom_right, top_right[::-1, ::-1].T)])


SCANS: dict[str, Callable[[Pieces], Pieces]] = {
    "rows": np.ravel, "columns": lambda grid: grid.T.ravel(), "snake": snake, "spiral": spiral, "hilbert": hilbert,
}  # fmt: skip
NAMES = f"{', '.join(SCANS)} or random:SEED, or reversed- and one of these"


def orderings_of(orderings: OrderingsOrNames, grid: Grid) -> list[tuple[int, ...]]:
    """Returns the permutations. Raises ValueError for what is neither one of the pieces nor a name.

    Pieces are numbered from 1 in reading order. The tables show at which step a scan reads each piece of a 4 x 4 grid:

        rows           columns        snake          spiral         hilbert
         1  2  3  4     1  5  9 13     1  2  3  4     1  2  3  4     1  2 15 16
         5  6  7  8     2  6 10 14     8  7  6  5    12 13 14  5     4  3 14 13
         9 10 11 12     3  7 11 15     9 10 11 12    11 16 15  6     5  8  9 12
        13 14 15 16     4  8 12 16    16 15 14 13    10  9  8  7     6  7 10 11

    random:SEED is a permutation drawn with that seed. reversed-NAME reads the same path from its end.
    """
    return [ordering_of(ordering, grid) for ordering in orderings]


def shown_orderings(orderings: Sequence[Ordering], train_orderings: Sequence[Ordering] | None) -> Sequence[Ordering]:
    """Returns the orderings that a network is trained in; of several sets, the first."""
    return (train_orderings or orderings)[: len(orderings)]


def ordering_of(ordering: Sequence[int] | str, grid: Grid) -> tuple[int, ...]:
    pieces = range(1, grid[0] * grid[1] + 1)
    if not isinstance(ordering, str):
        if sorted(ordering) != list(pieces):
            listed = "".join(map(str, pieces)) if len(pieces) < 10 else f"1 to {len(pieces)}"
            raise ValueError(f"{list(ordering)} is not a permutation of {listed}; write one, or {NAMES}.")
        return tuple(ordering)
    scan = ordering.removeprefix("reversed-")
    seed = scan.removeprefix("random:")
    if scan in SCANS:
        path = SCANS[scan](np.array(pieces).reshape(*grid)).tolist()
    elif seed != scan and seed.isdecimal():
        draw = random.Random(int(seed)).random
        path = sorted(pieces, key=lambda _: draw())
    else:
        raise ValueError(f"{ordering} is not the name of an ordering; write {NAMES}.")
    return tuple(reversed(path) if ordering.startswith("reversed-") else path)


def ordering_name(ordering: Sequence[int], grid: Grid) -> str:
    """Returns e.g. "1324" for [1, 3, 2, 4], and for ten pieces or more the name of the scan, or "7-6-16-..."."""
    if len(ordering) < 10:
        return "".join(map(str, ordering))
    for name in (prefix + scan for prefix in ("", "reversed-") for scan in SCANS):
        with suppress(ValueError):  # no such scan on this grid
            if ordering_of(name, grid) == tuple(ordering):
                return name
    return "-".join(map(str, ordering[:3])) + "-..."


# Sequences of frames, which stack the t-th piece of every ordering at step t
#
# The pieces are stacked top to bottom. With the four orderings of the question, a frame is a column of this table:
#
#     ordering   step 1   2   3   4
#     1234            1   2   3   4
#     4321            4   3   2   1
#     1324            1   3   2   4
#     4231            4   2   3   1


ORDERINGS = ((1, 2, 3, 4), (4, 3, 2, 1), (1, 3, 2, 4), (4, 2, 3, 1))


def sequences(
    images: Shaped[Tensor, "..."], orderings: OrderingsOrNames = ORDERINGS, grid: Grid = QUADRANTS
) -> FrameBatch:
    """Returns frames of `len(orderings) * height / rows of the grid` rows, with the type and device of the images.

    Images are [batch, channels, height, width]. An ordering is a permutation of the pieces of the grid, or a name
    (above). Raises ValueError for any other, if the grid does not divide the images, for images with other axes
    and for floats outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images are a {type(images).__name__}; give a tensor, e.g. torch.as_tensor(images).")
    if images.dim() != 4:
        rule = f"images are {list(images.shape)}, but [batch, channels, height, width] is needed"
        raise ValueError(f"{rule}; add the axis that is missing, e.g. that of one channel with images[:, None].")
    check_range(images)
    return frames_of(images, orderings_of(orderings, grid), grid)


def check_range(pixels: Shaped[Tensor, "..."]) -> None:
    """Raises ValueError for floats outside [0, 1]. Waits for the device, so a training step does without it."""
    if not pixels.is_floating_point() or not pixels.numel():
        return
    low, high = (value.item() for value in pixels.detach().aminmax())
    if not (low >= 0 and high <= 1):  # also for values that are not numbers
        remedy = "replace the values that are no numbers" if low != low else "give them as uint8, or divide them by 255"
        raise ValueError(f"pixels are floats from {low} to {high}, but the network reads 0 to 1; {remedy}.")


def frames_of(images: ImageBatch, orderings: Orderings, grid: Grid) -> FrameBatch:
    """Does what `sequences` does for permutations, but does not check the pixels."""
    pieces = split_pieces(images, grid).unbind(1)
    # Indexing with a tensor would copy it to the device, and make a GPU wait, for each batch.
    stacks = torch.cat([pieces[piece - 1] for step in zip(*orderings, strict=True) for piece in step], dim=2)
    return stacks.unflatten(2, (len(pieces), -1)).transpose(1, 2)


def check_cut(frames: FrameBatch, orderings: Orderings) -> None:
    """Raises ValueError if a piece is not the same in all orderings: such frames were not cut from images."""
    numbers = [piece for step in zip(*orderings, strict=True) for piece in step]
    pieces = frames.unflatten(3, (len(orderings), -1)).movedim(3, 2).flatten(1, 2)
    if not torch.equal(pieces, pieces[:, [numbers.index(piece) for piece in numbers]]):
        rule = "frames do not show the pieces of one image each, which this network encodes only once"
        raise ValueError(f"{rule}; cut images with sequences(...), or use network.in_full() for these frames.")


def scaled(pixels: Shaped[Tensor, "..."], dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
    """Returns pixels from 0 to 255 as floats from 0 to 1, the range that networks take."""
    return pixels.to(dtype) / 255


def network_inputs(frames: Shaped[Tensor, "..."], dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
    """Returns scaled pixels, or the values of series, which are floats, as they are."""
    return frames.to(dtype) if frames.is_floating_point() else scaled(frames, dtype)

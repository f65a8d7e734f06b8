"""Splits images into the pieces of a grid, in reading order.

A 28 x 28 image becomes four pieces of 14 x 14 on a grid of 2 x 2, the quadrants of the question:

    | 1 | 2 |
    | 3 | 4 |
"""

from jaxtyping import Shaped
from torch import Tensor

from quadrant_lstm.kinds import Grid

QUADRANTS = (2, 2)


def split_quadrants(
    images: Shaped[Tensor, "batch channels height width"],
) -> Shaped[Tensor, "batch 4 channels height//2 width//2"]:
    """Splits images of any even height and width. Raises ValueError for an odd one."""
    return split_pieces(images, QUADRANTS)


def split_pieces(
    images: Shaped[Tensor, "batch channels height width"], grid: Grid
) -> Shaped[Tensor, "batch pieces channels rows columns"]:
    """Raises ValueError if the grid does not divide the height and width of the images."""
    _, _, height, width = images.shape
    rows, columns = grid
    if height % rows or width % columns:
        raise ValueError(
            f"images are {height} x {width}, which cannot be split into {rows} x {columns} equal pieces; pad or crop "
            "them, or choose another grid."
        )
    split = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    # batch, row of the grid, column of the grid, channels, rows, columns
    return split.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def occlude_piece(
    images: Shaped[Tensor, "batch channels height width"], piece: int, grid: Grid
) -> Shaped[Tensor, "batch channels height width"]:
    """Returns a copy of the images in which a piece, counted from 1, is blank."""
    occluded = images.clone()
    height, width = images.shape[2] // grid[0], images.shape[3] // grid[1]
    row, column = divmod(piece - 1, grid[1])
    occluded[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width] = 0
    return occluded

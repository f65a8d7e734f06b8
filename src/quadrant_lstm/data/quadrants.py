"""Splits images into their four quadrants, in reading order.

A 28 x 28 image becomes four pieces of 14 x 14:

    | 1 | 2 |
    | 3 | 4 |
"""

from jaxtyping import Shaped
from torch import Tensor


def split_quadrants(
    images: Shaped[Tensor, "batch channels height width"],
) -> Shaped[Tensor, "batch 4 channels height//2 width//2"]:
    """Splits images of any even height and width. Raises ValueError for an odd one."""
    batch, channels, height, width = images.shape
    if height % 2 or width % 2:
        raise ValueError(f"images are {height} x {width}: quadrants need an even height and width; pad or crop them.")
    grid = images.reshape(batch, channels, 2, height // 2, 2, width // 2)
    # batch, row of the grid, column of the grid, channels, height, width
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def occlude_quadrant(
    images: Shaped[Tensor, "batch channels height width"], quadrant: int
) -> Shaped[Tensor, "batch channels height width"]:
    """Returns a copy of the images in which the quadrant, from 1 to 4, is blank."""
    occluded = images.clone()
    height, width = images.shape[2] // 2, images.shape[3] // 2
    row, column = divmod(quadrant - 1, 2)
    occluded[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width] = 0
    return occluded

"""Turns images into sequences of frames. The frame at step t stacks the t-th piece of every ordering.

The pieces are stacked top to bottom. With the four orderings of the question, a frame is a column of this table:

    ordering   step 1   2   3   4
    1234            1   2   3   4
    4321            4   3   2   1
    1324            1   3   2   4
    4231            4   2   3   1
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from quadrant_lstm.data.pieces import QUADRANTS, split_pieces
from quadrant_lstm.data.scans import orderings_of
from quadrant_lstm.kinds import Grid, OrderingsOrNames

ORDERINGS = ((1, 2, 3, 4), (4, 3, 2, 1), (1, 3, 2, 4), (4, 2, 3, 1))


def sequences(
    images: Shaped[Tensor, "..."], orderings: OrderingsOrNames = ORDERINGS, grid: Grid = QUADRANTS
) -> Shaped[Tensor, "batch steps channels stack columns"]:
    """Returns frames of `len(orderings) * height / rows of the grid` rows, with the type and device of the images.

    Images are [batch, channels, height, width]. An ordering is a permutation of the pieces of the grid, or a name
    (data/scans.py). Raises ValueError for any other, if the grid does not divide the images, for images with other axes
    and for floats outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images are a {type(images).__name__}; give a tensor, e.g. torch.as_tensor(images).")
    if images.dim() != 4:
        raise ValueError(
            f"images are {list(images.shape)}, but [batch, channels, height, width] is needed; add the axis that is "
            "missing, e.g. that of one channel with images[:, None]."
        )
    check_range(images)
    return frames_of(images, orderings, grid)


def check_range(pixels: Shaped[Tensor, "..."]) -> None:
    """Raises ValueError for floats outside [0, 1]. Waits for the device, so a training step does without it."""
    if not pixels.is_floating_point() or not pixels.numel():
        return
    low, high = (value.item() for value in pixels.detach().aminmax())
    if not (low >= 0 and high <= 1):  # also for values that are not numbers
        raise ValueError(
            f"pixels are floats from {low:g} to {high:g}, but the network reads 0 to 1; give them as uint8, or divide "
            "them by 255."
        )


def frames_of(
    images: Shaped[Tensor, "batch channels height width"], orderings: OrderingsOrNames, grid: Grid
) -> Shaped[Tensor, "batch steps channels stack columns"]:
    """Does what `sequences` does, but does not check the pixels."""
    permutations = orderings_of(orderings, grid)
    pieces = split_pieces(images, grid).unbind(1)
    # Indexing with a tensor would copy it to the device, and make a GPU wait, for each batch.
    stacks = torch.cat([pieces[piece - 1] for step in zip(*permutations, strict=True) for piece in step], dim=2)
    return stacks.unflatten(2, (len(pieces), -1)).transpose(1, 2)


def scaled(pixels: Shaped[Tensor, "..."], dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
    """Returns pixels from 0 to 255 as floats from 0 to 1, the range that networks take."""
    return pixels.to(dtype) / 255

"""Turns images into sequences of frames. The frame at step t stacks the t-th quadrant of every ordering.

The quadrants are stacked top to bottom. With the four orderings of the question, a frame is a column of this table:

    ordering   step 1   2   3   4
    1234            1   2   3   4
    4321            4   3   2   1
    1324            1   3   2   4
    4231            4   2   3   1
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from quadrant_lstm.data.quadrants import split_quadrants
from quadrant_lstm.kinds import Orderings, check_ordering

ORDERINGS = ((1, 2, 3, 4), (4, 3, 2, 1), (1, 3, 2, 4), (4, 2, 3, 1))


def ordering_name(ordering: Sequence[int]) -> str:
    """Returns e.g. "1324" for [1, 3, 2, 4]."""
    return "".join(map(str, ordering))


def sequences(
    images: Shaped[Tensor, "batch channels height width"],
    orderings: Orderings = ORDERINGS,
) -> Shaped[Tensor, "batch 4 channels stack width//2"]:
    """Returns frames of `len(orderings) * height / 2` rows, with the type and device of the images.

    Raises ValueError for an ordering that is not a permutation of 1, 2, 3, 4.
    """
    for ordering in orderings:
        check_ordering(ordering)
    quadrants = split_quadrants(images).unbind(1)
    # Indexing with a tensor would copy it to the device, and make a GPU wait, for each batch.
    stacks = torch.cat([quadrants[ordering[step] - 1] for step in range(4) for ordering in orderings], dim=2)
    return stacks.unflatten(2, (4, -1)).transpose(1, 2)


def scaled(pixels: Shaped[Tensor, "..."], dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
    """Returns pixels from 0 to 255 as floats from 0 to 1, the range that networks take."""
    return pixels.to(dtype) / 255

"""Images -> sequences: at step t, the t-th quadrant of every ordering, stacked top to bottom.

With the four orderings of the question, a frame is a column of this table:

    ordering   step 1   2   3   4
    1234            1   2   3   4
    4321            4   3   2   1
    1324            1   3   2   4
    4231            4   2   3   1
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from quadrant_lstm.data.quadrants import split_quadrants
from quadrant_lstm.kinds import check_ordering

ORDERINGS = ((1, 2, 3, 4), (4, 3, 2, 1), (1, 3, 2, 4), (4, 2, 3, 1))


def spelled(ordering: Sequence[int]) -> str:
    """[1, 3, 2, 4] -> 1324."""
    return "".join(map(str, ordering))


def sequences(
    images: Shaped[Tensor, "batch channels height width"],
    orderings: Sequence[Sequence[int]] = ORDERINGS,
) -> Shaped[Tensor, "batch 4 channels stack width//2"]:
    """Frames of `len(orderings) * height / 2` rows, in the type and on the device of the images.

    Raises ValueError for an ordering that is not a permutation of 1, 2, 3, 4.
    """
    for ordering in orderings:
        check_ordering(ordering)
    quadrants = split_quadrants(images).unbind(1)
    # a tensor of indices would have to reach the device, and a GPU wait for it, at each batch
    stacks = torch.cat([quadrants[ordering[step] - 1] for step in range(4) for ordering in orderings], dim=2)
    return stacks.unflatten(2, (4, -1)).transpose(1, 2)

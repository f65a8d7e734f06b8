"""Applies a module that takes [batch, ...] to inputs with step axes, such as [batch, steps, ...]."""

from jaxtyping import Shaped
from torch import Tensor, nn


class TimeDistributed(nn.Module):
    """Folds the leading axes into the batch, applies the module once, and unfolds. All steps share its weights.

        [batch, steps, 1, 56, 14] -> [batch * steps, 1, 56, 14] -> module -> [batch * steps, 32, 26, 5]
                                                                          -> [batch, steps, 32, 26, 5]

    `num_axes` counts the leading axes, including the batch. A module that normalises over its batch sees all steps in
    it. Raises ValueError for inputs with fewer axes.
    """

    def __init__(self, module: nn.Module, num_axes: int = 2):
        super().__init__()
        if num_axes < 1:
            raise ValueError(f"num_axes: {num_axes} is less than 1; count the batch and each step axis.")
        self.module = module
        self.num_axes = num_axes

    def forward(self, inputs: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if inputs.ndim < self.num_axes:
            raise ValueError(f"inputs: {list(inputs.shape)} has fewer than the {self.num_axes} leading axes to fold.")
        leading = inputs.shape[: self.num_axes]
        return self.module(inputs.flatten(0, self.num_axes - 1)).unflatten(0, leading)

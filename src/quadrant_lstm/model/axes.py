"""Labels the axes of tensors: which are the batch `N` and the steps `T`, and which sizes depend on them.

A size is compared with that of other runs of the network, in each of which one of the leading axes was one longer.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from quadrant_lstm.model.nested import map_tensors, named_tensors

Sizes = Literal["hidden", "steps", "all"]  # labels with their size, as in T=4: none; all but N; all


class Axes:
    """Finds the batch and the steps among the sizes of tensors. `given` are the positional arguments of the
    network and those with a name.
    """

    def __init__(self, given: tuple[Sequence[Any], dict[str, Any]], count: int):
        self.given, self.count = given, count
        tensors = [*named_tensors(given[0], "inputs"), *named_tensors(given[1], "kwargs")]
        sizes = [tensor.shape[:count] for _, tensor in tensors if tensor.ndim >= count]
        if count < 1 or not sizes or 0 in sizes[0]:
            raise ValueError(
                f"describe: there is no tensor with num_axes={count} axes that are not empty in the inputs."
            )
        self.sizes = sizes[0]
        self.names = ["N", "T"] if count == 2 else ["N", *(f"T{number}" for number in range(1, count))]

    def inputs(self, longer: int | None, device: str) -> Any:
        """Returns what is given, on a device and with one of the leading axes one longer."""

        def prepare(tensor: Tensor) -> Tensor:
            dtype = torch.float if tensor.is_floating_point() else tensor.dtype
            tensor = tensor.to(device, dtype, copy=True)  # the network may change its inputs
            if longer is not None and tensor.shape[: longer + 1] == self.sizes[: longer + 1]:
                tensor = torch.cat([tensor, tensor.narrow(longer, 0, 1)], longer)
            return tensor

        return map_tensors(prepare, self.given)

    def as_text(self, values: Sequence[Any], sizes: Sizes = "hidden") -> str:
        """Returns the shapes of nested tensors. `values` has those of each run; the first is that of the real sizes."""
        first = values[0]
        if isinstance(first, Tensor):
            shapes = [value.shape if isinstance(value, Tensor) else None for value in values]
            return f"[{', '.join(self.label(shapes, axis, sizes) for axis in range(first.ndim))}]"
        if isinstance(first, dict):
            items = [f"{key}: {self.as_text([at(value, key) for value in values], sizes)}" for key in first]
            return f"{{{', '.join(items)}}}"
        if isinstance(first, tuple | list):
            items = [self.as_text([at(value, place) for value in values], sizes) for place in range(len(first))]
            return items[0] if len(items) == 1 else f"({', '.join(items)})"
        return str(first) if isinstance(first, int | float | str | None) else type(first).__name__

    def labels_of_first(self, values: Sequence[Any]) -> list[str]:
        """Returns the labels of the axes of the first tensor in nested values, which are those of each run."""
        shapes = [shape_of_first(value) for value in values]
        return [self.label(shapes, axis) for axis in range(len(shapes[0] or ()))]

    def label(self, shapes: Sequence[Any], axis: int, sizes: Sizes = "hidden") -> str:
        """Returns e.g. N, T=4, N*T, or 26 for a size that depends on neither."""
        first, longer = shapes[0], shapes[1:]
        size = first[axis]
        is_leading = [first[: axis + 1] == self.sizes[: axis + 1] and axis == number for number in range(self.count)]
        varies = [  # a network may refuse another number of steps
            leading if shape is None else shape[axis] != size for leading, shape in zip(is_leading, longer, strict=True)
        ]
        names = [name for name, does in zip(self.names, varies, strict=True) if does]
        factor, rest = divmod(size, math.prod(itertools.compress(self.sizes, varies)))
        if not names:
            return str(size)
        if rest:
            return f"{size} (by {' and '.join(names)})"
        text = "*".join(names if factor == 1 else [str(factor), *names])
        return text if sizes == "hidden" or (sizes == "steps" and text == "N") else f"{text}={size}"


def shape_of_first(value: Any) -> torch.Size | None:
    """Returns the shape of the first tensor in a nested value, or None if there is none."""
    return next((tensor.shape for _, tensor in named_tensors(value, "")), None)


def at(value: Any, place: Any) -> Any:
    return None if value is None else value[place]

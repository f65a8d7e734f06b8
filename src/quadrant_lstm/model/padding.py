"""Checks what all recurrent layers are given: sizes, inputs, a state, and the lengths of padded sequences."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from quadrant_lstm.model.parts import shapes_in

Lengths = Int64[Tensor, " batch"] | None


def real_steps(lengths: Int64[Tensor, " batch"], num_steps: Any) -> Bool[Tensor, "batch steps"]:
    return torch.arange(num_steps, device=lengths.device) < lengths[:, None]


def repeat_last_real(
    outputs: Float[Tensor, "batch output_steps units"], lengths: Int64[Tensor, " batch"]
) -> Float[Tensor, "batch output_steps units"]:
    """Replaces the outputs of padding by those of the last real step. A single output is that of the last step."""
    places = torch.arange(outputs.shape[1], device=outputs.device).minimum(lengths[:, None] - 1)
    return outputs.gather(1, places[:, :, None].expand(-1, -1, outputs.shape[2]))


def as_argument(lengths: Lengths) -> dict[str, Tensor]:
    """Returns the keyword argument of a network, which gets it only if sequences are padded."""
    return {} if lengths is None else {"lengths": lengths}


def add_axes(real: Bool[Tensor, " batch"], like: Tensor) -> Bool[Tensor, "batch ..."]:
    """Returns `real` with axes of size 1 at its end, so that it broadcasts over the values of each sample."""
    return real.view(-1, *[1] * (like.ndim - 1))


def check_sizes(layer: str, **sizes: object) -> None:
    """Raises ValueError unless all arguments that are sizes are whole numbers of at least 1."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{layer}: {name} {size} is not a whole number of at least 1.")


def check_inputs(layer: str, inputs: Tensor, input_size: int) -> None:
    """Raises ValueError unless there is a step and each step has so many values."""
    if inputs.ndim < 3 or math.prod(inputs.shape[2:]) != input_size or inputs.shape[1] == 0:
        raise ValueError(
            f"{layer}: inputs have the shape {list(inputs.shape)}; expected [batch, steps, ...] with {input_size} "
            "values per step and at least one step."
        )


def check_lengths(layer: str, lengths: object, inputs: Tensor) -> None:
    """Raises ValueError unless there is a number of real steps for each sequence, from 1 to the number of steps, on
    the device of the inputs.
    """
    if lengths is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    batch, steps = inputs.shape[:2]
    if not isinstance(lengths, Tensor) or lengths.shape != (batch,) or lengths.dtype != torch.int64:
        raise ValueError(f"{layer}: lengths are {lengths}; expected an int64 tensor of shape [{batch}].")
    if lengths.device != inputs.device:
        raise ValueError(f"{layer}: lengths are on {lengths.device}, but inputs on {inputs.device}; move them there.")
    if lengths.device.type != "meta" and batch and not 1 <= lengths.min() <= lengths.max() <= steps:
        raise ValueError(f"{layer}: lengths are {lengths.tolist()}; expected numbers from 1 to {steps}.")


def check_state(layer: str, state: object, shapes: list[list[Any]]) -> None:
    """Raises ValueError unless the state is a tuple or list of tensors of these shapes, or a tensor if there is one."""
    if state is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    found, expected = shapes_in(state), ", ".join(map(str, shapes))
    expected = f"({expected})" if len(shapes) > 1 else expected
    if found != expected:
        raise ValueError(f"{layer}: the state has the shapes {found}; expected {expected}.")

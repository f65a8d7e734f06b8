"""Checks the lengths of padded sequences, which all recurrent layers take."""

import torch
from jaxtyping import Int64
from torch import Tensor

Lengths = Int64[Tensor, " batch"] | None


def check_lengths(layer: str, lengths: object, inputs: Tensor) -> None:
    """Raises ValueError unless there is a number of real steps for each sequence, from 1 to the number of steps."""
    if lengths is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    batch, steps = inputs.shape[:2]
    if not isinstance(lengths, Tensor) or lengths.shape != (batch,) or lengths.dtype != torch.int64:
        raise ValueError(f"{layer}: lengths are {lengths}; expected an int64 tensor of shape [{batch}].")
    if lengths.device.type != "meta" and batch and not 1 <= lengths.min() <= lengths.max() <= steps:
        raise ValueError(f"{layer}: lengths are {lengths.tolist()}; expected numbers from 1 to {steps}.")


def check_state(layer: str, state: object, shapes: list[list[int]]) -> None:
    """Raises ValueError unless the state is a tuple of tensors of these shapes; a single tensor stands for itself."""
    tensors = state if isinstance(state, tuple) else (state,)
    found = [list(tensor.shape) if isinstance(tensor, Tensor) else tensor for tensor in tensors]
    if found != shapes or isinstance(state, tuple) != (len(shapes) > 1):
        raise ValueError(f"{layer}: the state has the shapes {found}; expected {shapes}.")

"""Checks the axes that TimeDistributed folds into the batch, and adds to an error how they were read."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from quadrant_lstm.model.mismatch import expected_by, fits

NamedTensors = Sequence[tuple[str, Tensor]]  # with the expressions that lead to them, e.g. inputs[0]


def axis_names(num_axes: int) -> list[str]:
    return ["batch", "steps"] if num_axes == 2 else ["batch", *(f"steps{number}" for number in range(1, num_axes))]


def labelled(names: Sequence[str], shape: Sequence[int]) -> str:
    """Returns e.g. [batch=8, steps=4, 28, 28]."""
    named = map("{}={}".format, names, shape)
    return f"[{', '.join([*named, *map(str, shape[len(names) :])])}]"


def check_leading_axes(tensors: NamedTensors, num_axes: int) -> None:
    """Raises ValueError unless there is a tensor, and all tensors begin with the same axes."""
    if not tensors:
        raise ValueError("TimeDistributed: there is no tensor among the inputs.")
    names = axis_names(num_axes)
    first, leading = tensors[0][0], tensors[0][1].shape[:num_axes]
    for name, tensor in tensors:
        given = f"TimeDistributed: {name} has the shape {list(tensor.shape)}; its first axes must be"
        if len(leading) < num_axes:
            raise ValueError(f"{given} [{', '.join(names)}].")
        if tensor.shape[:num_axes] != leading:
            raise ValueError(f"{given} {labelled(names, leading)}, as those of {first}.")


def check_mask(mask: object, leading: torch.Size) -> None:
    if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == leading):
        given = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(f"TimeDistributed: mask is {given}; it must be a bool tensor of the shape {list(leading)}.")


@contextlib.contextmanager
def noted_in_errors(tensors: NamedTensors, num_axes: int, module: nn.Module) -> Iterator[None]:
    """Adds a note to an error of the module: which axes were read as the batch and the steps, what the module was
    given, and what it expects.

    The error stays as it is otherwise, because it may come from code of the user.
    """
    try:
        yield
    except Exception as error:
        names, notes = axis_names(num_axes), []
        for name, tensor in tensors:
            folded = (math.prod(tensor.shape[:num_axes]), *tensor.shape[num_axes:])
            read, given = labelled(names, tensor.shape), labelled(["*".join(names)], folded)
            notes.append(f"TimeDistributed read {name} as {read} and gave {type(module).__name__} {given}.")
        notes += expectation(module, tensors[0][1].shape[num_axes:])
        remedy = "If these are not its axes, add a missing one with x.unsqueeze, or move one with x.movedim."
        error.add_note(" ".join([*notes, remedy]))
        raise


def expectation(module: nn.Module, frame_shape: Sequence[int]) -> list[str]:
    """Returns what the first layer of a module expects, if it is a layer of torch that frames do not fit."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0]
    expected = expected_by(module)
    if not expected or fits(module, expected, (1, *frame_shape)):
        return []
    return [f"{type(module).__name__} expects [{', '.join(map(str, expected))}]."]

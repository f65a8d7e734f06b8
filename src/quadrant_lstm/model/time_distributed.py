"""Applies a module that takes [batch, ...] to inputs with step axes, such as [batch, steps, ...]."""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.utils.checkpoint
from jaxtyping import Bool
from torch import Tensor, nn

from quadrant_lstm.model.mismatch import expected_by, fits
from quadrant_lstm.model.protocols import add_axes, check_module, check_sizes, concatenate, map_tensors, named_tensors

# Axes that are folded into the batch


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
        start = f"TimeDistributed: {name} has the shape {list(tensor.shape)}; its first axes must be"
        if len(leading) < num_axes:
            raise ValueError(f"{start} [{', '.join(names)}].")
        if tensor.shape[:num_axes] != leading:
            raise ValueError(f"{start} {labelled(names, leading)}, as those of {first}.")


def check_mask(mask: object, leading: torch.Size) -> None:
    if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == leading):
        kind = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(f"TimeDistributed: mask is {kind}; it must be a bool tensor of the shape {list(leading)}.")


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
            read, frames = labelled(names, tensor.shape), labelled(["*".join(names)], folded)
            notes.append(f"TimeDistributed read {name} as {read} and gave {type(module).__name__} {frames}.")
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


# TimeDistributed


class TimeDistributed(nn.Module):
    """Folds the leading axes into the batch, applies the module once, and unfolds. All steps share its weights.

        [batch, steps, 1, 56, 14] -> [batch * steps, 1, 56, 14] -> module -> [batch * steps, 32, 26, 5]
                                                                          -> [batch, steps, 32, 26, 5]

    Inputs and outputs are tensors, or tuples, lists and dicts of tensors, nested in any way. All tensors, also those in
    keyword arguments, have the same leading axes; other values are passed on, also objects that hold tensors.
    `num_axes` counts the leading axes, including the batch. A frame is what the module sees of one step of one sample.

    With `chunk`, the module sees at most so many frames at once, in chunks of nearly equal size; outputs other than
    tensors must be the same for all of them. With `checkpoint`, what it computes is not stored for the backward pass
    but computed again there. A module that normalizes over its batch in training, such as batch norm, takes its
    statistics from all frames, or from those of a chunk. Batch norm over vectors needs two frames at once; if `chunk`
    is at least 3, no chunk is a single frame.

    `mask`, a bool tensor over the leading axes, says which frames are real. The module does not see the others; their
    outputs are zeros. An exported program computes them all the same, because its shapes cannot depend on a mask.

    Raises ValueError if shapes do not fit. An error of the module gets a note about how the axes were read.
    """

    def __init__(self, module: nn.Module, num_axes: int = 2, chunk: int | None = None, checkpoint: bool = False):
        super().__init__()
        check_sizes("TimeDistributed", num_axes=num_axes, chunk=1 if chunk is None else chunk)
        check_module("TimeDistributed", module)
        self.module = module
        self.num_axes = num_axes
        self.chunk = chunk
        self.checkpoint = checkpoint

    def forward(self, *inputs: Any, mask: Bool[Tensor, "..."] | None = None, **kwargs: Any) -> Any:
        tensors = [*named_tensors(inputs, "inputs"), *named_tensors(kwargs, "kwargs")]
        if not torch.jit.is_tracing():  # where sizes are tensors
            check_leading_axes(tensors, self.num_axes)
            check_mask(mask, tensors[0][1].shape[: self.num_axes])
        leading = tensors[0][1].shape[: self.num_axes]
        arguments = map_tensors(lambda tensor: tensor.flatten(0, self.num_axes - 1), (inputs, kwargs))
        with noted_in_errors(tensors, self.num_axes, self.module):
            outputs = self.in_chunks(arguments) if mask is None else self.where_real(arguments, mask.flatten())
        return map_tensors(lambda tensor: tensor.unflatten(0, leading), outputs)

    def in_chunks(self, arguments: Any) -> Any:
        if self.chunk is None or torch.compiler.is_exporting():
            return self.apply_module(arguments)
        num_frames = num_frames_in(arguments)
        if num_frames <= self.chunk:  # also an empty batch
            return self.apply_module(arguments)
        outputs = []
        num_chunks = -(-num_frames // self.chunk)
        for start, end in itertools.pairwise(num_frames * number // num_chunks for number in range(num_chunks + 1)):
            part = functools.partial(torch.narrow, dim=0, start=start, length=end - start)
            outputs.append(self.apply_module(map_tensors(part, arguments)))
        return concatenate(outputs)

    def where_real(self, arguments: Any, real: Bool[Tensor, " frames"]) -> Any:
        """Applies the module to the real frames only."""
        if torch.compiler.is_exporting():
            outputs = self.in_chunks(arguments)
            return map_tensors(lambda out: out.masked_fill(~add_axes(real, like=out), 0), outputs)
        (places,) = real.nonzero(as_tuple=True)
        arguments = map_tensors(lambda tensor: tensor.index_select(0, places), arguments)
        with contextlib.nullcontext() if len(places) else in_eval_mode(self.module):  # there is nothing to normalize
            outputs = self.in_chunks(arguments)
        return map_tensors(lambda out: out.new_zeros(len(real), *out.shape[1:]).index_copy_(0, places, out), outputs)

    def apply_module(self, arguments: Any) -> Any:
        inputs, kwargs = arguments
        if self.checkpoint and torch.is_grad_enabled():
            # a compiled module updates running statistics only once, so it needs no contexts
            contexts = {} if torch.compiler.is_compiling() else {"context_fn": self.checkpoint_contexts}
            options: Any = {"use_reentrant": False} | contexts
            outputs = torch.utils.checkpoint.checkpoint(self.module, *inputs, **options, **kwargs)
        else:
            outputs = self.module(*inputs, **kwargs)
        if not torch.jit.is_tracing():
            self.check_outputs(outputs, num_frames_in(arguments))
        return outputs

    def check_outputs(self, outputs: Any, num_frames: int | torch.SymInt) -> None:
        for name, tensor in named_tensors(outputs, "output"):
            if tensor.ndim == 0 or tensor.shape[0] != num_frames:
                raise ValueError(
                    f"TimeDistributed: {type(self.module).__name__} was given {num_frames} frames, but {name} has the "
                    f"shape {list(tensor.shape)}; the first axis must be that of the frames."
                )

    def checkpoint_contexts(self) -> tuple[Any, Any]:
        """Returns the contexts of the forward pass and of its repetition, which leaves buffers alone."""
        return contextlib.nullcontext(), CopiedBuffers(self.module)


def num_frames_in(arguments: Any) -> int | torch.SymInt:
    return next(tensor.shape[0] for _, tensor in named_tensors(arguments, ""))


class CopiedBuffers:
    """A context in which the module changes copies of its buffers, such as running statistics.

    It can be entered several times, because every backward pass through a graph that is retained repeats the forward
    pass.
    """

    def __init__(self, module: nn.Module):
        self.buffers = [(owner, *named) for owner in module.modules() for named in owner.named_buffers(recurse=False)]

    def __enter__(self) -> None:
        for owner, name, buffer in self.buffers:
            setattr(owner, name, buffer.clone())

    def __exit__(self, *_: object) -> None:
        for owner, name, buffer in self.buffers:
            setattr(owner, name, buffer)


@contextlib.contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training

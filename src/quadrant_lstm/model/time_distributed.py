"""Applies a module that takes [batch, ...] to inputs with step axes, such as [batch, steps, ...]."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.utils.checkpoint
from jaxtyping import Bool
from torch import Tensor, nn
from torch.func import functional_call

from quadrant_lstm.model.protocols import add_axes, map_tensors, tensors_in


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
        self.module = module
        self.num_axes = num_axes
        self.chunk = chunk
        self.checkpoint = checkpoint

    def forward(self, *inputs: Any, mask: Bool[Tensor, "..."] | None = None, **kwargs: Any) -> Any:
        shapes = [tensor.shape for tensor in tensors_in((inputs, kwargs, mask))]
        leading = shapes[0][: self.num_axes] if shapes else ()
        same = all(shape[: self.num_axes] == leading for shape in shapes)
        if not torch.jit.is_tracing() and (len(leading) < self.num_axes or not same):  # there, sizes are tensors
            rule = f"all must begin with the same {self.num_axes} axes, the batch and the steps"
            raise ValueError(f"TimeDistributed: the inputs have the shapes {listed(shapes)}; {rule}.")
        if mask is not None and mask.dtype != torch.bool:  # in masks of attention, zeros are what is real
            raise ValueError(f"TimeDistributed: mask is of {mask.dtype}; give a bool tensor, true for real frames.")
        frames = map_tensors(lambda tensor: tensor.flatten(0, self.num_axes - 1), (inputs, kwargs))
        try:
            outputs = self.in_chunks(frames) if mask is None else self.where_real(frames, mask.flatten())
            return map_tensors(lambda tensor: tensor.unflatten(0, leading), outputs)
        except Exception as error:
            given = listed(tensor.shape for tensor in tensors_in(frames))
            error.add_note(
                f"TimeDistributed took the first {self.num_axes} axes of {listed(shapes)} for the batch and the steps, "
                f"and gave {type(self.module).__name__} {given}. If these are other axes, add a missing one with "
                "x.unsqueeze, or move one with x.movedim."
            )
            raise

    def in_chunks(self, frames: Any) -> Any:
        num_frames = next(tensors_in(frames)).shape[0]
        if self.chunk is None or torch.compiler.is_exporting() or num_frames <= self.chunk:  # also an empty batch
            return self.apply_module(frames)
        num_chunks, outputs = -(-num_frames // self.chunk), []
        for number in range(num_chunks):
            chunk = map_tensors(lambda tensor, number=number: tensor.tensor_split(num_chunks)[number], frames)
            outputs.append(self.apply_module(chunk))
        return map_tensors(lambda *chunks: torch.cat(chunks), *outputs)

    def where_real(self, frames: Any, real: Bool[Tensor, " frames"]) -> Any:
        """Applies the module to the real frames only."""
        if torch.compiler.is_exporting():
            return map_tensors(lambda out: out.masked_fill(~add_axes(real, like=out), 0), self.in_chunks(frames))
        (places,) = real.nonzero(as_tuple=True)
        frames = map_tensors(lambda tensor: tensor.index_select(0, places), frames)
        with contextlib.nullcontext() if len(places) else in_eval_mode(self.module):  # there is nothing to normalize
            outputs = self.in_chunks(frames)
        return map_tensors(lambda out: out.new_zeros(len(real), *out.shape[1:]).index_copy_(0, places, out), outputs)

    def apply_module(self, frames: Any) -> Any:
        inputs, kwargs = frames
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self.module(*inputs, **kwargs)
        # a compiled module updates running statistics only once
        module = self.module if torch.compiler.is_compiling() else changing_buffers_once(self.module)
        return torch.utils.checkpoint.checkpoint(module, *inputs, use_reentrant=False, **kwargs)


def listed(shapes: Iterable[torch.Size]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


def changing_buffers_once(module: nn.Module) -> Any:
    """Returns the module as a function whose first call changes buffers, such as running statistics. All others change
    copies: every backward pass through a graph that is retained repeats the forward pass.
    """
    calls = itertools.count()

    def call(*inputs: Any, **kwargs: Any) -> Any:
        if next(calls) == 0:
            return module(*inputs, **kwargs)
        copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
        return functional_call(module, copies, inputs, kwargs)

    return call


@contextlib.contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training

"""Applies a module that takes [batch, ...] to inputs with step axes, such as [batch, steps, ...]."""

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.checkpoint
from jaxtyping import Bool
from torch import Tensor, nn

from quadrant_lstm.model.folding import check_leading_axes, check_mask, noted_in_errors
from quadrant_lstm.model.nested import concatenate, map_tensors, named_tensors
from quadrant_lstm.model.padding import add_axes, check_sizes
from quadrant_lstm.model.parts import check_module


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
        some = map_tensors(lambda tensor: tensor.index_select(0, places), arguments)
        with contextlib.nullcontext() if len(places) else in_eval_mode(self.module):  # there is nothing to normalize
            outputs = self.in_chunks(some)
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
        """Returns the contexts of the forward pass and of its repetition, which leaves running statistics alone."""
        return contextlib.nullcontext(), WithoutRunningStatistics(self.module)


def num_frames_in(arguments: Any) -> int | torch.SymInt:
    return next(tensor.shape[0] for _, tensor in named_tensors(arguments, ""))


class WithoutRunningStatistics:
    """A context in which batch and instance norm normalize as before, but do not update their running statistics.

    It can be entered several times, because every backward pass through a graph that is retained repeats the forward
    pass.
    """

    def __init__(self, module: nn.Module):
        self.norms: list[Any] = [each for each in module.modules() if getattr(each, "running_mean", None) is not None]

    def __enter__(self) -> None:
        self.before = [(each.momentum, each.num_batches_tracked.clone()) for each in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, num_batches) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches)


@contextlib.contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training

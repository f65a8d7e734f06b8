"""Declares what a network may offer, and what networks and their layers are given."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from quadrant_lstm.errors import UserError

# Tensors in nested tuples, lists and dicts


def map_tensors(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Returns a copy of `first` in which each tensor is replaced by `function(tensor, *tensors)`, with the tensors at
    the same place of other values that are nested in the same way. What is no tensor must be the same in all values.
    """
    values = (first, *others)
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, dict):
        return {key: map_tensors(function, *(value[key] for value in values)) for key in first}
    if isinstance(first, tuple | list):
        items = [map_tensors(function, *places) for places in zip(*values, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else type(first)(items)
    if any(other is not first and other != first for other in others):
        raise ValueError(f"{first} is {others} in another chunk; return a tensor with a value per frame.")
    return first


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


# Parts of a network whose classes a config names


MakePart = Callable[..., nn.Module]


def make_part(key: str, make: MakePart, *sizes: int, **options: Any) -> nn.Module:
    """Calls the class that `key` names. Raises UserError if it makes no nn.Module."""
    part = make(*sizes, **options)
    if not isinstance(part, nn.Module):
        raise UserError(f"{key}: {type(part).__name__} is not an nn.Module; derive it from torch.nn.Module.")
    return part


def wrong_result(key: str, part: nn.Module, inputs: Tensor, outputs: Any, rule: str) -> UserError:
    """Returns the error about a part that returned something else than `rule` says."""
    returned = map_tensors(lambda tensor: list(tensor.shape), outputs)
    call = f"{type(part).__name__} was given {list(inputs.shape)} and returned {returned}"
    return UserError(f"{key}: {call}; it must return {rule}.")


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Inputs of recurrent layers, whose sequences may be padded


Frames = Float[Tensor, "batch steps ..."]  # [N, T, C, H, W]; of series, [N, T, features] or [N, T, features, values]
Sequences = Float[Tensor, "batch steps ..."]
Outputs = Float[Tensor, "batch output_steps units"]  # of a recurrent layer, after every step or after the last one only
Lengths = Int64[Tensor, " batch"] | None


def check_lengths(inputs: Shaped[Tensor, "batch steps ..."], lengths: Tensor | None) -> None:
    """Raises ValueError unless there is a number of real steps for each sequence, from 1 to the number of steps."""
    if lengths is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    batch, steps = inputs.shape[:2]
    fit = lengths.shape == (batch,) and lengths.dtype == torch.int64
    if not fit or not 1 <= lengths.min() <= lengths.max() <= steps:
        raise ValueError(f"lengths are {lengths}; expected an int64 tensor [{batch}] with numbers from 1 to {steps}.")


def real_steps(inputs: Shaped[Tensor, "batch steps ..."], lengths: Lengths) -> Bool[Tensor, "batch steps"]:
    """Tells which steps are no padding. Raises ValueError for lengths that do not fit."""
    check_lengths(inputs, lengths)
    batch, steps = inputs.shape[:2]
    numbers = torch.arange(steps, device=inputs.device)
    return (numbers >= 0).expand(batch, steps) if lengths is None else numbers < lengths[:, None]


def as_argument(lengths: Lengths) -> dict[str, Tensor]:
    """Returns the keyword argument of a network, which gets it only if sequences are padded."""
    return {} if lengths is None else {"lengths": lengths}


def add_axes(real: Bool[Tensor, " batch"], like: Tensor) -> Bool[Tensor, "batch ..."]:
    """Returns `real` with axes of size 1 at its end, so that it broadcasts over the values of each sample."""
    return real.view(-1, *[1] * (like.ndim - 1))


# What a network may offer beyond the logits of its last step, for metrics and pictures


@runtime_checkable
class LogitsPerStep(Protocol):
    def logits_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps classes"]:
        """Returns the logits after every step, or after the last step only. The last are those of `forward`.

        `lengths` is given only if sequences are padded; the logits of padding are those of the last real step.
        """


def logits_after_steps(network: nn.Module, frames: Frames, lengths: Lengths = None, **kept: Sequences) -> Tensor:
    """Returns the logits [batch, output_steps, classes] after every step, or after the last step only."""
    if isinstance(network, LogitsPerStep):
        return network.logits_per_step(frames, **as_argument(lengths), **kept)
    return network(frames, **as_argument(lengths), **kept)[:, None]


@runtime_checkable
class Inspectable(LogitsPerStep, Protocol):
    """A network with an encoder at every step and a recurrent layer, whose intermediate results can be shown."""

    encoder: nn.Module
    recurrent: nn.Module

    def features(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        """Returns the inputs of the recurrent layer."""

    def outputs_per_step(self, frames: Frames, lengths: Lengths = None) -> Outputs:
        """Returns the outputs of the recurrent layer, after every step or after the last step only."""

    def in_full(self) -> "Inspectable":
        """Returns a copy that encodes every frame separately and so accepts frames that do not follow the orderings."""


def in_full(network: nn.Module) -> nn.Module:
    """Returns a copy of the network that accepts any frames; one that is not Inspectable must accept them already."""
    return cast(nn.Module, network.in_full()) if isinstance(network, Inspectable) else copy.deepcopy(network)

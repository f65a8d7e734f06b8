"""Declares what a network may offer, and checks and prepares what networks and their layers are given."""

import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence, Set, ValuesView
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from quadrant_lstm.errors import UserError

# Tensors in nested tuples, lists and dicts


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Returns a copy of `value` in which each tensor is replaced by `function(tensor)`; other values are unchanged."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return rebuild(value, [map_tensors(function, item) for item in value])
    return value


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yields each tensor with the expression that leads to it, e.g. `inputs[0]['mask']` for the name `inputs`.

    Raises ValueError for tensors in other collections, such as a set.
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from named_tensors(item, f"{name}[{index}]")
    elif isinstance(value, Set | Mapping | ValuesView | MutableSequence):
        items = value.values() if isinstance(value, Mapping) else value
        if isinstance(next(iter(items), None), Tensor):
            raise ValueError(f"{name} is a {type(value).__name__} of tensors; put them into a tuple, list or dict.")


def concatenate(values: Sequence[Any]) -> Any:
    """Concatenates the tensors of values that are nested in the same way.

    Raises ValueError if other values differ.
    """
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, dict):
        return {key: concatenate([value[key] for value in values]) for key in first}
    if isinstance(first, tuple | list):
        return rebuild(first, [concatenate(items) for items in zip(*values, strict=True)])
    for value in values:
        if value is not first and value != first:
            raise ValueError(f"One chunk returns {first} and another {value}; return a tensor with a value per frame.")
    return first


def rebuild(like: Any, items: list[Any]) -> Any:
    """Returns a tuple, named tuple or list of the items."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


# Parts of a network whose classes a config names


MakePart = Callable[..., nn.Module]


def layer_of(make: MakePart) -> MakePart:
    return make.func if isinstance(make, functools.partial) else make


def make_part(key: str, make: MakePart, sizes: Mapping[str, int], **options: int) -> nn.Module:
    """Calls the class that `key` names. Raises UserError if it does not take these sizes or makes no nn.Module.

    `options` are further arguments, which it takes.
    """
    name = layer_of(make).__name__
    try:
        inspect.signature(make).bind(*sizes.values(), **options)
    except TypeError as error:
        raise UserError(
            f"{key}: {name} is called with {' and '.join(sizes)} ({error}); its constructor must take "
            f"{'this' if len(sizes) == 1 else 'these'} first, and the config must give all its other arguments."
        ) from None
    part = make(*sizes.values(), **options)
    if not isinstance(part, nn.Module):
        raise UserError(f"{key}: {name} is not an nn.Module; derive it from torch.nn.Module.")
    return part


def check_module(caller: str, module: object) -> None:
    """Raises ValueError for anything but an nn.Module, such as a class instead of an object."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"{caller}: {module} is not an nn.Module; give it an object, such as nn.Flatten().")


def wrong_result(key: str, part: nn.Module, inputs: Tensor, outputs: Any, rule: str) -> UserError:
    """Returns the error about a part that returned something else than `rule` says."""
    call = f"{type(part).__name__} was given {list(inputs.shape)} and returned {shapes_in(outputs)}"
    return UserError(f"{key}: {call}; it must return {rule}.")


def shapes_in(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(shapes_in, value))})"
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Inputs of recurrent layers, whose sequences may be padded


Lengths = Int64[Tensor, " batch"] | None


def real_steps(inputs: Shaped[Tensor, "batch steps ..."], lengths: Lengths) -> Bool[Tensor, "batch steps"]:
    batch, steps = inputs.shape[:2]
    numbers = torch.arange(steps, device=inputs.device)
    return (numbers >= 0).expand(batch, steps) if lengths is None else numbers < lengths[:, None]


def repeat_last_real(
    outputs: Float[Tensor, "batch output_steps units"], lengths: Lengths
) -> Float[Tensor, "batch output_steps units"]:
    """Replaces the outputs of padding by those of the last real step. A single output is that of the last step."""
    if lengths is None:
        return outputs
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
    expected = ", ".join(map(str, shapes))
    expected = f"({expected})" if len(shapes) > 1 else expected
    if shapes_in(state) != expected:
        raise ValueError(f"{layer}: the state has the shapes {shapes_in(state)}; expected {expected}.")


# What a network may offer beyond the logits of its last step, for metrics and pictures


Frames = Float[Tensor, "batch steps channels height width"]


@runtime_checkable
class LogitsPerStep(Protocol):
    def logits_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps classes"]:
        """Returns the logits after every step, or after the last step only. The last are those of `forward`.

        `lengths` is given only if sequences are padded; the logits of padding are those of the last real step.
        """


def logits_after_steps(network: nn.Module, frames: Frames, lengths: Lengths = None) -> Tensor:
    """Returns the logits [batch, output_steps, classes] after every step, or after the last step only."""
    if isinstance(network, LogitsPerStep):
        return network.logits_per_step(frames, **as_argument(lengths))
    return network(frames, **as_argument(lengths))[:, None]


@runtime_checkable
class Inspectable(LogitsPerStep, Protocol):
    """A network with an encoder at every step and a recurrent layer, whose intermediate results can be shown."""

    encoder: nn.Module
    recurrent: nn.Module

    def features(self, frames: Frames) -> Float[Tensor, "batch steps features"]:
        """Returns the inputs of the recurrent layer."""

    def outputs_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps units"]:
        """Returns the outputs of the recurrent layer, after every step or after the last step only."""

    def in_full(self) -> "Inspectable":
        """Returns a copy that encodes every frame separately and so accepts frames that do not follow the orderings."""


def in_full(network: nn.Module) -> nn.Module:
    """Returns a copy of the network that accepts any frames; one that is not Inspectable must accept them already."""
    return cast(nn.Module, network.in_full()) if isinstance(network, Inspectable) else copy.deepcopy(network)

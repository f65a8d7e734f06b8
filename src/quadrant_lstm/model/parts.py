"""Makes the parts of a network whose classes a config names, and explains what is wrong with what they return."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from quadrant_lstm.errors import UserError

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
    given, name = list(inputs.shape), type(part).__name__
    return UserError(f"{key}: {name} was given {given} and returned {shapes_in(outputs)}; it must return {rule}.")


def shapes_in(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(shapes_in, value))})"
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

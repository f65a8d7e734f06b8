"""Applies functions to the tensors in nested tuples, lists and dicts."""

from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence, Set, ValuesView
from typing import Any

import torch
from torch import Tensor


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

"""Explains why a layer refuses an input: what it expects, and what to write for the mismatches of docs/join.md.

It also tells where a recurrent layer accepts an input but misreads it.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from quadrant_lstm.errors import with_type
from quadrant_lstm.model.rnn import PaddedRNN

IMAGE_AXES: dict[tuple[type[nn.Module], ...], tuple[str, ...]] = {
    (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d): ("length",),
    (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d): ("height", "width"),
    (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d): ("depth", "height", "width"),
}
# Sizes, or the names of axes of any size; "..." are any axes at the beginning
Expected = Sequence[int | str]


def explain_mismatch(
    name: str, layer: nn.Module, inputs: Sequence[Any], shapes: str, labels: Sequence[str], error: Exception
) -> str:
    """Returns a message for the stage `name`. `shapes` are those of its inputs as text, and `labels` are those of
    the axes of the first tensor, e.g. N.
    """
    kind, first, expected = type(layer).__name__, inputs[0] if inputs else None, expected_by(layer)
    start = f"{titled(name, kind)} was given"
    if isinstance(first, Tensor) and expected and not fits(layer, expected, first.shape):
        remedy = advice(layer, labels, first.shape)
        return f"{start} {shapes}; it expects [{', '.join(map(str, expected))}].{remedy and ' '}{remedy}"
    if type(first) is tuple and (expected or type(layer).__module__.startswith("torch.nn.")):
        remedy = "A recurrent layer returns outputs and a state: pass on its outputs."
        return f"{start} a tuple {shapes}; it expects a tensor. {remedy}"
    message = str(error).removeprefix(f"{kind}: ")  # the layers of this project begin their messages so
    return f"{start} {shapes}: {message if message != str(error) else with_type(error)}"


def titled(name: str, kind: str) -> str:
    return f"{name} ({kind})" if name else kind


def misreading(layer: nn.RNNBase, labels: Sequence[str]) -> str:
    """Returns what the layer does, and the remedy, if it accepts an input but reads the batch `N` as steps."""
    if "N" not in labels[1 if layer.batch_first and len(labels) > 2 else 0].split("*"):
        return ""
    if len(labels) < 3:
        return "reads samples as steps; give it [batch, steps, features]."
    remedy = "give it x.transpose(0, 1)" if layer.batch_first else "make it with batch_first=True"
    return f"reads samples as steps; {remedy}."


def expected_by(layer: nn.Module) -> Expected:
    """Returns the axes that a layer of torch expects, or nothing if any axes will do or are not known."""
    if isinstance(layer, nn.RNNBase):
        return (*(("batch", "steps") if layer.batch_first else ("steps", "batch")), layer.input_size)
    if isinstance(layer, nn.Linear):
        return ("...", layer.in_features)
    channels = getattr(layer, "in_channels", getattr(layer, "num_features", "channels"))
    return next((("batch", channels, *axes) for kinds, axes in IMAGE_AXES.items() if isinstance(layer, kinds)), ())


def fits(layer: nn.Module, expected: Expected, sizes: Sequence[int]) -> bool:
    if isinstance(layer, PaddedRNN) and len(sizes) > 3:  # it flattens the others
        sizes = (*sizes[:2], math.prod(sizes[2:]))
    if expected[0] == "...":
        expected, sizes = expected[1:], sizes[-1:]
    return len(sizes) == len(expected) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(expected, sizes, strict=True)
    )


def advice(layer: nn.Module, labels: Sequence[str], sizes: Sequence[int]) -> str:
    """Returns what to write, for a batch `N` and steps `T`, or nothing."""
    has_steps, other = list(labels[:2]) == ["N", "T"], f"Make the layer for inputs of size {sizes[-1]}, or change what "
    if isinstance(layer, nn.Linear):
        return f"{other}comes before."
    if not isinstance(layer, nn.RNNBase):
        return advice_for_maps(layer, has_steps, sizes)
    if len(labels) == 2 and labels[1].endswith("*T"):
        return "The step axis was lost before: write x.flatten(2), which keeps it, where x.flatten(1) loses it."
    if len(labels) == 3:
        return f"{other}comes before."
    if has_steps:
        return f"x.flatten(2) keeps the step axis and gives [N, T, {math.prod(sizes[2:])}]; x.flatten(1) loses it."
    if len(labels) == 4 and labels[0] == "N":
        _, channels, rows, columns = sizes
        return (
            f"Maps have no step axis: x.movedim(2, 1).flatten(2) reads rows as steps and gives [N, {rows}, "
            f"{channels * columns}]; x.movedim(3, 1).flatten(2) reads columns and gives [N, {columns}, "
            f"{channels * rows}]."
        )
    return ""


def advice_for_maps(layer: nn.Module, has_steps: bool, sizes: Sequence[int]) -> str:
    _, channels, *image_axes = expected_by(layer)
    remedies, before = [], len(sizes) - len(image_axes)
    if before > 1 and sizes[-1] == channels != sizes[before - 1]:
        wanted = ", ".join(["...", str(channels), *map(str, image_axes)])
        remedies.append(f"The channels are last: x.movedim(-1, {-len(image_axes) - 1}) gives [{wanted}].")
    if has_steps and before == 3:
        remedies.append(
            "TimeDistributed(layer) applies it to every step, as layer(x.flatten(0, 1)).unflatten(0, (N, T)) does; "
            "x.flatten(1, 2) mixes the steps with the channels."
        )
    return " ".join(remedies)

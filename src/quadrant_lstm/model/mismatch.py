"""Explains why a layer refuses an input: what it expects, and which reshape keeps the step axis and which loses it.

It also tells where a recurrent layer accepts an input but misreads it.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from quadrant_lstm.errors import with_type
from quadrant_lstm.model.rnn import PaddedRNN

IMAGE_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
# Sizes, or the names of axes of any size; "..." are any axes, at the beginning or end
Expected = Sequence[int | str]


def explain_mismatch(
    name: str, layer: nn.Module, inputs: Sequence[Any], given: str, labels: Sequence[str], error: Exception
) -> str:
    """Returns a message for the stage `name`. `given` are the shapes of its inputs as text, and `labels` are those of
    the axes of the first tensor, e.g. N.
    """
    kind, first, expected = type(layer).__name__, inputs[0] if inputs else None, expected_by(layer)
    start = f"{titled(name, kind)} was given"
    if isinstance(first, Tensor) and expected and not fits(layer, expected, first.shape):
        remedy = advice(layer, expected, labels, first.shape)
        return f"{start} {given}; it expects [{', '.join(map(str, expected))}].{remedy and ' '}{remedy}"
    is_known = expected or type(layer).__module__.startswith("torch.nn.")
    if type(first) is tuple and is_known and "tuple" in str(error):
        remedy = "A recurrent layer returns outputs and a state: pass on its outputs."
        return f"{start} a tuple {given}; it expects a tensor. {remedy}"
    own = f"{kind}: "  # the layers of this project begin their messages so
    return f"{start} {given}: {str(error).removeprefix(own) if str(error).startswith(own) else with_type(error)}"


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
    if num_image_axes := image_axes_of(layer):
        channels = getattr(layer, "in_channels", getattr(layer, "num_features", "channels"))
        image_axes = ("...",) if isinstance(layer, nn.BatchNorm1d) else IMAGE_AXES[num_image_axes]
        return ("batch", channels, *image_axes)
    return ()


def image_axes_of(layer: nn.Module) -> int:
    """Returns 2 for nn.Conv2d, nn.MaxPool2d and other layers of torch whose names end in 2d; 0 if there is no digit."""
    names = [each.__name__ for each in type(layer).__mro__ if each.__module__.startswith("torch.nn.")]
    return next((int(name[-2]) for name in names if name[-2:] in ("1d", "2d", "3d")), 0)


def fits(layer: nn.Module, expected: Expected, sizes: Sequence[int]) -> bool:
    if isinstance(layer, PaddedRNN) and len(sizes) > 3:  # it flattens the others
        sizes = (*sizes[:2], math.prod(sizes[2:]))
    if expected[0] == "...":
        expected, sizes = expected[1:], sizes[-1:]
    elif expected[-1] == "...":
        expected, sizes = expected[:-1], sizes[: len(expected) - 1]
    return len(sizes) == len(expected) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(expected, sizes, strict=True)
    )


def advice(layer: nn.Module, expected: Expected, labels: Sequence[str], sizes: Sequence[int]) -> str:
    """Returns what to write, for a batch `N` and steps `T`, or nothing."""
    if isinstance(layer, nn.RNNBase):
        return advice_for_sequences(layer.input_size, labels, sizes)
    if isinstance(layer, nn.Linear):
        return advice_for_vectors(layer.in_features, labels, sizes)
    return advice_for_maps(image_axes_of(layer), expected[1], labels, sizes)


def advice_for_sequences(input_size: int, labels: Sequence[str], sizes: Sequence[int]) -> str:
    ndim = len(labels)
    if labels[0] == "N*T":
        return "The steps are folded into the batch: x.unflatten(0, (N, T)) gives the step axis back."
    if ndim == 4 and labels[0] == "N":
        _, channels, rows, columns = sizes
        row, column = channels * columns, channels * rows
        if labels[1] != "T" or (input_size in (row, column) and input_size != rows * columns):
            return (
                f"Maps have no step axis: x.movedim(2, 1).flatten(2) reads rows as steps and gives [N, {rows}, {row}]; "
                f"x.movedim(3, 1).flatten(2) reads columns and gives [N, {columns}, {column}]."
            )
    if list(labels[:2]) == ["N", "T"] and ndim > 3:
        return f"x.flatten(2) keeps the step axis and gives [N, T, {math.prod(sizes[2:])}]; x.flatten(1) loses it."
    if ndim == 2 and labels[1].endswith("*T"):
        return "The step axis was lost before: write x.flatten(2), which keeps it, where x.flatten(1) loses it."
    if ndim == 3:
        return f"Make the layer for inputs of size {sizes[2]}, or change what comes before."
    return ""


def advice_for_vectors(num_features: int, labels: Sequence[str], sizes: Sequence[int]) -> str:
    for axis in range(1, len(labels)):
        if math.prod(sizes[axis:]) == num_features:
            keeps = "T" in labels[:axis] or "T" not in labels
            return f"x.flatten({axis}) gives it{'' if keeps else ', but loses the step axis'}."
    backwards = zip(reversed(labels), reversed(sizes), strict=True)
    num_own = next((count for count, (label, size) in enumerate(backwards) if label != str(size)), 0)
    if num_own:  # the last axes, which depend on neither N nor T
        size = math.prod(sizes[-num_own:])
        flatten = f"x.flatten({len(labels) - num_own}) gives vectors of size {size}. " if num_own > 1 else ""
        return f"{flatten}Make the layer for inputs of size {size}, or change what comes before."
    return ""


def advice_for_maps(num_image_axes: int, channels: int | str, labels: Sequence[str], sizes: Sequence[int]) -> str:
    has_steps, num_others = list(labels[:2]) == ["N", "T"], len(labels) - num_image_axes
    remedies = []
    if num_others > 1 and sizes[-1] == channels != sizes[-num_image_axes - 1]:
        wanted = ", ".join(["...", str(channels), *IMAGE_AXES[num_image_axes]])
        remedies.append(f"The channels are last: x.movedim(-1, {-num_image_axes - 1}) gives [{wanted}].")
    elif num_image_axes == 3 and has_steps and num_others == 2 and sizes[2] == channels:
        remedies.append("The steps are the depth: x.transpose(1, 2) moves them behind the channels.")
    if has_steps and num_others == 3:
        remedies.append(
            "TimeDistributed(layer) applies it to every step, as layer(x.flatten(0, 1)).unflatten(0, (N, T)) does; "
            "x.flatten(1, 2) mixes the steps with the channels."
        )
    if labels[0] == "N*T" and num_others == 1:
        remedies.append(
            "The first two axes were folded into one, so another is missing: before that, x.unsqueeze(1) adds a step "
            "axis, and x.unsqueeze(2) a channel axis."
        )
    return " ".join(remedies)

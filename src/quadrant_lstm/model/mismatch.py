"""Explains why a layer refuses an input: what it expects, and which reshape keeps the step axis and which loses it.

It also tells where a recurrent layer accepts an input but misreads it.
"""

import math
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from quadrant_lstm.errors import with_type

IMAGE_AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


def explain(name: str, layer: nn.Module, labels: Sequence[str], sizes: Sequence[int], error: Exception) -> str:
    """Returns a message for the stage `name`. `sizes` are those of its input, `labels` tell what they are, e.g. N."""
    kind = f"{name} ({type(layer).__name__})" if name else type(layer).__name__
    given = ", ".join(
        label if label == str(size) else f"{label}={size}" for label, size in zip(labels, sizes, strict=True)
    )
    expected, remedy = expected_by(layer), advice(layer, labels, sizes)
    fits = isinstance(layer, _ConvNd) and len(sizes) == len(layer.kernel_size) + 2 and sizes[1] == layer.in_channels
    if not expected or fits:
        return f"{kind} was given [{given}]: {with_type(error)}"
    return f"{kind} was given [{given}]; it expects {expected}.{remedy and ' '}{remedy}"


def misreading(layer: nn.RNNBase, labels: Sequence[str]) -> str:
    """Returns what is wrong, and the remedy, if the layer accepts an input but reads the batch `N` as steps."""
    if "N" not in labels[1 if layer.batch_first and len(labels) > 2 else 0].split("*"):
        return ""
    if len(labels) < 3:
        return "It reads samples as steps; give it [batch, steps, features]."
    remedy = "give it x.transpose(0, 1)" if layer.batch_first else "make it with batch_first=True"
    return f"It reads samples as steps; {remedy}."


def expected_by(layer: nn.Module) -> str | None:
    if isinstance(layer, _ConvNd):
        return f"[batch, {layer.in_channels}, {IMAGE_AXES[len(layer.kernel_size)]}]"
    if isinstance(layer, nn.RNNBase):
        return f"[{'batch, steps' if layer.batch_first else 'steps, batch'}, {layer.input_size}]"
    if isinstance(layer, nn.Linear):
        return f"[..., {layer.in_features}]"
    if isinstance(layer, _BatchNorm):
        return f"[batch, {layer.num_features}, ...]"
    return None


def advice(layer: nn.Module, labels: Sequence[str], sizes: Sequence[int]) -> str:
    """Returns what to write, for a batch `N` and steps `T`, or nothing."""
    leading, ndim = list(labels[:2]), len(labels)
    if isinstance(layer, nn.RNNBase):
        if leading == ["N", "T"] and ndim > 3:
            return f"x.flatten(2) keeps the step axis and gives [N, T, {math.prod(sizes[2:])}]; x.flatten(1) loses it."
        if labels[0] == "N*T":
            return "The steps are folded into the batch: x.unflatten(0, (N, T)) gives the step axis back."
        if ndim == 2:
            return "The step axis was lost before: write x.flatten(2), which keeps it, where x.flatten(1) loses it."
        if ndim == 3:
            return f"Make the layer for inputs of size {sizes[2]}, or change what comes before."
    if isinstance(layer, _ConvNd):
        if leading == ["N", "T"] and ndim == len(layer.kernel_size) + 3:
            return (
                "TimeDistributed(layer) applies it to every step, as layer(x.flatten(0, 1)).unflatten(0, (N, T)) does; "
                "x.flatten(1, 2) mixes the steps with the channels."
            )
        if sizes[-1] == layer.in_channels:
            return "The channels are last: x.movedim(-1, -3) moves them before height and width."
    if isinstance(layer, nn.Linear):
        for axis in range(1, ndim):
            if math.prod(sizes[axis:]) == layer.in_features:
                keeps = "T" in labels[:axis] or "T" not in labels
                return f"x.flatten({axis}) gives it{'' if keeps else ', but loses the step axis'}."
    return ""

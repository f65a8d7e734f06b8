"""Lists the stages of any network with the shapes of their outputs, in which the batch and the steps are marked.

    print(describe(network, torch.zeros(8, 4, 1, 56, 14)))

    stage   layer   output shape                         parameters
    inputs          [N, T=4, 1, 56, 14]                           0
    conv    Conv2d  [N*T, 32, 54, 12]                           320
    lstm    LSTM    ([N, T, 5], ([1, N, 5], [1, N, 5]))     414,860
    head    Linear  [N, 10]                                      60

With large inputs, the network runs on the meta device, which knows shapes and computes nothing, else on the CPU. It
then runs again with a batch of N + 1, and again with T + 1 steps. A size that changed depends on that axis, wherever
the network has moved it.
"""

import copy
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quadrant_lstm.errors import with_type
from quadrant_lstm.model.protocols import count_parameters, in_full, map_tensors, tensors_in
from quadrant_lstm.model.rnn import PaddedRNN
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.text import align

# Runs of a network: as it is called, and with each leading axis of its inputs one longer


@dataclass
class Run:
    """What the modules of a network were given and returned when they first ran, by name."""

    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)  # the modules that have not returned
    error: Exception | None = None

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.entered.append(name)
        self.inputs.setdefault(name, (*args, *kwargs.values()))

    def leave(self, name: str, module: nn.Module, args: Any, outputs: Any) -> None:
        self.entered.pop()
        self.outputs.setdefault(name, outputs)


@torch.no_grad()
def record_run(network: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Run:
    run, network = Run(), copy.deepcopy(network)  # which gets hooks
    for name, module in network.named_modules():
        if isinstance(module, TimeDistributed):
            module.chunk = None  # all frames have to be seen
        module.register_forward_pre_hook(partial(run.enter, name), with_kwargs=True)
        module.register_forward_hook(partial(run.leave, name))
    try:
        network(*args, **kwargs)
    except Exception as error:
        run.error = error
    return run


def longer(tensor: Tensor, axis: int | None, leading: Sequence[int], device: str) -> Tensor:
    """Returns a copy on the device, which the network may change, with one of the leading axes one longer."""
    tensor = tensor.to(device, torch.float if tensor.is_floating_point() else tensor.dtype, copy=True)
    if axis is not None and tensor.shape[: axis + 1] == leading[: axis + 1]:
        tensor = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
    return tensor


# Shapes as text, in which an axis whose size changes with a leading axis has its name


class Shapes(NamedTuple):
    leading: Sequence[int]  # the sizes of the leading axes of the inputs
    names: Sequence[str]  # of these axes

    def as_text(self, values: Sequence[Any], sized: Collection[str] = ()) -> str:
        """Returns the shapes of nested tensors. `values` has those of each run, or None for one that failed before.
        Axes with one of the names `sized` have their size, as in T=4.
        """
        first = values[0]
        if isinstance(first, Tensor):
            return f"[{', '.join(self.labels(values, sized))}]"
        if isinstance(first, dict):
            items = {key: [value and value[key] for value in values] for key in first}
            return f"{{{', '.join(f'{key}: {self.as_text(item, sized)}' for key, item in items.items())}}}"
        if isinstance(first, tuple | list):
            places = [[value and value[place] for value in values] for place in range(len(first))]
            text = ", ".join(self.as_text(place, sized) for place in places)
            return text if len(first) == 1 else f"({text})"
        return str(first) if isinstance(first, int | float | str | None) else type(first).__name__

    def labels(self, values: Sequence[Any], sized: Collection[str] = ()) -> list[str]:
        """Returns e.g. N, T=4, N*T, or 26 for a size that depends on neither, for each axis of the first tensor in
        nested values, which are those of each run.
        """
        sizes: list[Any] = [next((tensor.shape for tensor in tensors_in(value)), None) for value in values]
        shape, *others = sizes
        labels = []
        for axis, size in enumerate(shape or ()):
            at_its_place = shape[: axis + 1] == self.leading[: axis + 1]  # a network may refuse another number of steps
            varies = [
                at_its_place and axis == number if other is None else other[axis] != size
                for number, other in enumerate(others)
            ]
            names = list(compress(self.names, varies))
            factor, rest = divmod(size, math.prod(compress(self.leading, varies)))
            if rest or not names:
                labels.append(f"{size} (by {' and '.join(names)})" if names else str(size))
                continue
            label = "*".join(names if factor == 1 else [str(factor), *names])
            labels.append(label if set(names).isdisjoint(sized) else f"{label}={size}")
        return labels


def unfolded(shapes: str) -> str:
    """Returns the shapes of outputs inside TimeDistributed as it returns them: [N, T, 5] for [N*T, 5] or [5*N*T]."""
    folded = r"(?<=\[)(\d+\*)?[A-Z]\w*(\*[A-Z]\w*)+"
    return re.sub(folded, lambda axis: ", ".join(sorted(axis[0].split("*"), key=str.isdigit)), shapes)


# Why a layer refuses an input, and what to write for the mismatches of docs/join.md


def explain_mismatch(network: nn.Module, shapes: Shapes, runs: Sequence[Run], error: Exception) -> str:
    name = runs[0].entered[-1] if runs[0].entered else ""
    layer, given = network.get_submodule(name), [run.inputs.get(name) for run in runs]
    text, kind = shapes.as_text(given, shapes.names), type(layer).__name__
    first, stage = given[0][0] if given[0] else None, f"{name} ({kind})" if name else kind
    if type(first) is tuple and (isinstance(layer, PaddedRNN) or type(layer).__module__.startswith("torch.nn.")):
        remedy = "A recurrent layer returns outputs and a state: pass on its outputs."
        return f"{stage} was given a tuple {text}; it expects a tensor. {remedy}"
    expected = expectation(layer, shapes.labels(given), first.shape) if isinstance(first, Tensor) else ""
    return f"{stage} was given {text}{f'; it expects {expected}' if expected else f': {with_type(error)}'}"


def expectation(layer: nn.Module, labels: Sequence[str], sizes: Sequence[int]) -> str:
    """Returns the axes that a layer of torch expects, and what to write, or nothing if the sizes fit or the layer is
    another.
    """
    other = "Make the layer for inputs of size {}, or change what comes before."
    has_steps = list(labels[:2]) == ["N", "T"]
    if isinstance(layer, nn.Linear) and sizes[-1] != layer.in_features:
        return f"[..., {layer.in_features}]. {other.format(sizes[-1])}"
    if isinstance(layer, nn.RNNBase):
        if isinstance(layer, PaddedRNN) and len(sizes) > 3:  # it flattens the others
            labels, sizes = labels[:3], (*sizes[:2], math.prod(sizes[2:]))
        axes = f"[{'batch, steps' if layer.batch_first else 'steps, batch'}, {layer.input_size}]."
        if len(sizes) == 3:
            return "" if sizes[2] == layer.input_size else f"{axes} {other.format(sizes[2])}"
        if len(sizes) == 2 and labels[1].endswith("*T"):
            return f"{axes} The step axis was lost before: write x.flatten(2), which keeps it, for x.flatten(1)."
        if has_steps:
            return f"{axes} x.flatten(2) keeps the step axis and gives [N, T, {math.prod(sizes[2:])}]."
        if len(sizes) == 4 and labels[0] == "N":
            rows, features = sizes[2], sizes[1] * sizes[3]
            remedy = f"x.movedim(2, 1).flatten(2) reads rows as steps and gives [N, {rows}, {features}]"
            return f"{axes} Maps have no step axis: {remedy}; x.movedim(3, 1) takes columns instead."
        return axes
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d | nn.AvgPool2d):
        channels = getattr(layer, "in_channels", getattr(layer, "num_features", "channels"))
        if len(sizes) == 4 and channels in (sizes[1], "channels"):
            return ""
        remedies = [f"[batch, {channels}, height, width]."]
        if len(sizes) > 3 and sizes[-1] == channels != sizes[-3]:
            remedies.append(f"The channels are last: x.movedim(-1, -3) gives [..., {channels}, height, width].")
        if has_steps and len(sizes) == 5:
            remedies.append("TimeDistributed(layer) applies it to every step; x.flatten(1, 2) would mix the steps.")
        return " ".join(remedies)
    return ""


def misreading(layer: nn.RNNBase, labels: Sequence[str]) -> str:
    """Returns what the layer does, and the remedy, if it accepts an input but reads the batch `N` as steps."""
    if "N" not in labels[1 if layer.batch_first and len(labels) > 2 else 0].split("*"):
        return ""
    if len(labels) < 3:
        return "reads samples as steps; give it [batch, steps, features]."
    remedy = "give it x.transpose(0, 1)" if layer.batch_first else "make it with batch_first=True"
    return f"reads samples as steps; {remedy}."


# The table


class Stage(NamedTuple):
    name: str
    layer: str
    shape: str  # of all outputs, nested as they are
    num_parameters: int  # that no earlier stage has
    misreading: str = ""  # what the layer does with its inputs by mistake, and the remedy


@dataclass
class Description:
    stages: list[Stage]  # in the order in which they first run, then those that are not called but have parameters
    num_parameters: int  # of the whole network

    def rows(self) -> list[tuple[str, ...]]:
        rows = [(*stage[:3], f"{stage.num_parameters:,}", stage.misreading) for stage in self.stages]
        header, total = ("stage", "layer", "output shape", "parameters", ""), f"{self.num_parameters:,}"
        return [header, *rows, ("total", "", "", total, "")]

    def warnings(self) -> list[str]:
        return [f"{stage.name} ({stage.layer}) {stage.misreading}" for stage in self.stages if stage.misreading]

    def __str__(self) -> str:
        return align(self.rows())


MANY_VALUES = 1_000_000  # of inputs
MANY_STEPS = 500  # on the meta device, each step of an LSTM takes milliseconds


def describe(network: nn.Module, *inputs: Any, num_axes: int = 2, **kwargs: Any) -> Description:
    """Returns the stages of a network that is called with these inputs and keyword arguments. The first `num_axes` axes
    of the inputs are the batch and the steps. The network itself is not changed. A recurrent layer that reads the
    samples as steps is marked.

    Raises ValueError if the inputs do not fit the network. Its message names the stage, what the stage was given, what
    it expects, and which reshape keeps the step axis.
    """
    num_parameters = count_parameters(network)  # torch refuses lazy layers, whose parameters have no sizes yet
    tensors = [*tensors_in((inputs, kwargs))]
    leading = next((tensor.shape[:num_axes] for tensor in tensors if tensor.ndim >= num_axes), torch.Size())
    if not leading or 0 in leading:
        raise ValueError(f"describe: there is no tensor with {num_axes} axes that are not empty in the inputs.")
    shapes = Shapes(leading, ["N", "T"] if num_axes == 2 else ["N", *(f"T{n}" for n in range(1, num_axes))])
    is_large = sum(map(Tensor.numel, tensors)) > MANY_VALUES and max(leading[1:], default=1) < MANY_STEPS
    on_meta = is_large or any(tensor.is_meta for tensor in (*tensors, *network.parameters()))
    for device in ("meta", "cpu") if on_meta else ("cpu",):  # meta has no values, such as lengths
        copied = in_full(network).to(device).float().eval()
        runs = []
        for axis in (None, *range(num_axes)):
            prepare = partial(longer, axis=axis, leading=leading, device=device)
            runs.append(record_run(copied, *map_tensors(prepare, (inputs, kwargs))))
        if not runs[0].error:
            break
    if error := runs[0].error:
        raise ValueError(explain_mismatch(network, shapes, runs, error)) from error
    text = shapes.as_text([run.inputs[""] for run in runs], shapes.names[1:])
    return Description([Stage("inputs", "", text, 0), *stages_of(network, shapes, runs)], num_parameters)


def stages_of(network: nn.Module, shapes: Shapes, runs: Sequence[Run]) -> Iterator[Stage]:
    listed: set[nn.Parameter] = set()
    folding = [name for name, module in network.named_modules() if isinstance(module, TimeDistributed)]
    inside = tuple(f"{name}.module.".lstrip(".") for name in folding)
    for name in dict.fromkeys([*runs[0].outputs, *dict(network.named_modules())]):
        module, called = network.get_submodule(name), name in runs[0].outputs
        parameters = set(module.parameters(recurse=False))
        if not parameters and (not called or list(module.children())):
            continue
        shape = shapes.as_text([run.outputs.get(name) for run in runs]) if called else "not called"
        wrong = ""
        if called and isinstance(module, nn.RNNBase) and isinstance(runs[0].inputs[name][0], Tensor):
            wrong = misreading(module, shapes.labels([run.inputs.get(name) for run in runs]))
        count = sum(parameter.numel() for parameter in parameters - listed)
        shape = unfolded(shape) if f"{name}.".startswith(inside) else shape
        yield Stage(re.sub(r"\.module(?=\.|$)", "", name), type(module).__name__, shape, count, wrong)
        listed |= parameters

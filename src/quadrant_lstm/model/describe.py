"""Lists the stages of any network with the shapes of their outputs, in which the batch and the steps are marked.

    print(describe(network, torch.zeros(8, 4, 1, 56, 14)))

    stage   layer   output shape                         parameters
    inputs          [N, T=4, 1, 56, 14]                           0
    conv    Conv2d  [N*T, 32, 54, 12]                           320
    lstm    LSTM    ([N, T, 5], ([1, N, 5], [1, N, 5]))     414,860
    head    Linear  [N, 10]                                      60

The network runs on the meta device, which knows shapes and computes nothing: once as it is called, and once more for
each of the leading axes, with this axis one longer. So the batch and the steps are found wherever a network moves them.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter, is_lazy

from quadrant_lstm.console import align
from quadrant_lstm.model.mismatch import explain, misreading
from quadrant_lstm.model.nested import map_tensors, named_tensors
from quadrant_lstm.model.parts import check_module
from quadrant_lstm.model.protocols import in_full
from quadrant_lstm.model.time_distributed import TimeDistributed

HEADER = ("stage", "layer", "output shape", "parameters", "")


class Stage(NamedTuple):
    name: str
    layer: str
    shape: str  # of all outputs, nested as they are
    num_parameters: int  # that no earlier stage has
    note: str = ""  # what is wrong, or which parameters are those of an earlier stage


@dataclass
class Description:
    stages: list[Stage]  # in the order in which they first run, then those that are not called but have parameters
    num_parameters: int  # of the whole network

    def rows(self) -> list[tuple[str, ...]]:
        rows = [(*stage[:3], f"{stage.num_parameters:,}", stage.note) for stage in self.stages]
        return [HEADER, *rows, ("total", "", "", f"{self.num_parameters:,}", "")]

    def __str__(self) -> str:
        return align(self.rows())

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        header, *rows = self.rows()
        table = Table(*header, box=None)
        table.columns[3].justify = "right"
        for row in rows:
            table.add_row(*map(Text, row))  # brackets are not markup
        return table


def describe(network: nn.Module, *inputs: Any, num_axes: int = 2) -> Description:
    """Returns the stages of a network that is called with these inputs, whose first `num_axes` axes are the batch and
    the steps. The network itself is not changed. A recurrent layer that reads the samples as steps is marked.

    Raises ValueError if the inputs do not fit the network. Its message names the stage, what the stage was given, what
    it expects, and which reshape keeps the step axis. ScriptModules and uninitialized lazy modules are refused.
    """
    check_network(network)
    axes = Axes(inputs, num_axes)
    runs = record(in_full(network), axes, "meta")
    if runs[0].error:  # also if the network needs values, such as lengths
        runs = record(in_full(network), axes, "cpu")
    if error := runs[0].error:
        name = next(reversed(runs[0].entered), "")
        sizes = shape_of_first(runs[0].inputs.get(name)) or ()
        labels = input_labels(axes, runs, name)
        raise ValueError(explain(name, network.get_submodule(name), labels, sizes, error)) from error
    given = axes.as_text([run.inputs[""] for run in runs], with_sizes=True)
    stages = [Stage("inputs", "", given, 0), *stages_of(network, axes, runs)]
    return Description(stages, sum(parameter.numel() for parameter in network.parameters()))


def stages_of(network: nn.Module, axes: "Axes", runs: Sequence["Run"]) -> Iterator[Stage]:
    listed: dict[Parameter, str] = {}  # with the names under which they are counted
    for name in dict.fromkeys([*runs[0].outputs, *dict(network.named_modules())]):
        module, called = network.get_submodule(name), name in runs[0].outputs
        own = {parameter: shown(key) for key, parameter in module.named_parameters(name, recurse=False)}
        if own or (called and not list(module.children())):
            shape = axes.as_text([run.outputs.get(name) for run in runs]) if called else "not called"
            count = sum(parameter.numel() for parameter in own.keys() - listed.keys())
            notes = [f"Shares {listed[parameter]}." for parameter in own if parameter in listed]
            if called and isinstance(module, nn.RNNBase) and isinstance(runs[0].inputs[name][0], Tensor):
                notes.insert(0, misreading(module, input_labels(axes, runs, name)))
            yield Stage(shown(name), type(module).__name__, shape, count, " ".join(filter(None, notes)))
            listed = own | listed


def check_network(network: nn.Module) -> None:
    check_module("describe", network)
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"describe: {name or 'the network'} is a ScriptModule, which hides its layers; describe "
                "the module that it was made from."
            )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"describe: {name} has no size before the first call; call the network once, then describe it."
            )


def shown(name: str) -> str:
    return name.replace(".module", "")


@dataclass
class Run:
    """What the modules of a network were given and returned when they first ran, by name. Tensors have no values."""

    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)  # the modules that have not returned
    error: Exception | None = None


def record(network: nn.Module, axes: "Axes", device: str) -> list[Run]:
    """Runs the network as it is called and with each leading axis one longer."""
    network = network.to(device).float().eval()
    runs: list[Run] = []
    folded: list[tuple[int, ...]] = []  # the leading axes of each TimeDistributed that has not returned

    def enter(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        runs[-1].entered.append(name)
        runs[-1].inputs.setdefault(name, (*args, *kwargs.values()))
        if isinstance(module, TimeDistributed):
            (_, first), *_ = named_tensors((args, kwargs), "")
            leading = tuple(first.shape[: module.num_axes])
            folded.append((*folded[-1], *leading[1:]) if folded else leading)

    def leave(name: str, module: nn.Module, _: Any, outputs: Any) -> None:
        runs[-1].entered.pop()
        if isinstance(module, TimeDistributed):
            folded.pop()
        elif folded:  # shown as TimeDistributed returns them
            outputs = map_tensors(lambda tensor: tensor.new_empty(*folded[-1], *tensor.shape[1:]), outputs)
        runs[-1].outputs.setdefault(name, outputs)

    for name, module in network.named_modules():
        module.register_forward_pre_hook(partial(enter, name), with_kwargs=True)
        module.register_forward_hook(partial(leave, name))
    for axis in (None, *range(axes.count)):
        runs.append(Run())
        folded.clear()
        try:
            with torch.no_grad():
                network(*axes.inputs(axis, device))
        except Exception as error:
            runs[-1].error = error
    return runs


class Axes:
    """Finds the batch and the steps among the sizes of tensors."""

    def __init__(self, inputs: Any, count: int):
        self.given, self.count = inputs, count
        sizes = [tensor.shape[:count] for _, tensor in named_tensors(inputs, "inputs") if tensor.ndim >= count]
        if count < 1 or not sizes or 0 in sizes[0]:
            raise ValueError(
                f"describe: there is no tensor with num_axes={count} axes that are not empty in the inputs."
            )
        self.sizes = sizes[0]
        self.names = ["N", "T"] if count == 2 else ["N", *(f"T{number}" for number in range(1, count))]

    def inputs(self, longer: int | None, device: str) -> Any:
        """Returns the inputs on a device, with one of the leading axes one longer."""

        def prepare(tensor: Tensor) -> Tensor:
            dtype = torch.float if tensor.is_floating_point() else tensor.dtype
            tensor = tensor.to(device, dtype, copy=True)  # the network may change its inputs
            if longer is not None and tensor.shape[: longer + 1] == self.sizes[: longer + 1]:
                tensor = torch.cat([tensor, tensor.narrow(longer, 0, 1)], longer)
            return tensor

        return map_tensors(prepare, self.given)

    def as_text(self, values: Sequence[Any], with_sizes: bool = False) -> str:
        """Returns the shapes of nested tensors. `values` has those of each run; the first is that of the real sizes."""
        first = values[0]
        if isinstance(first, Tensor):
            shapes = [value.shape if isinstance(value, Tensor) else None for value in values]
            return f"[{', '.join(self.label(shapes, axis, with_sizes) for axis in range(first.ndim))}]"
        if isinstance(first, dict):
            return (
                f"{{{', '.join(f'{key}: {self.as_text([at(v, key) for v in values], with_sizes)}' for key in first)}}}"
            )
        if isinstance(first, tuple | list):
            items = [self.as_text([at(value, place) for value in values], with_sizes) for place in range(len(first))]
            return items[0] if len(items) == 1 else f"({', '.join(items)})"
        return str(first) if isinstance(first, int | float | str | None) else type(first).__name__

    def label(self, shapes: Sequence[Any], axis: int, with_size: bool = False) -> str:
        """Returns e.g. N, T=4, N*T, or 26 for a size that depends on neither."""
        first, longer = shapes[0], shapes[1:]
        size = first[axis]
        is_leading = [first[: axis + 1] == self.sizes[: axis + 1] and axis == number for number in range(self.count)]
        varies = [  # a network may refuse another number of steps
            leading if shape is None else shape[axis] != size for leading, shape in zip(is_leading, longer, strict=True)
        ]
        names = [name for name, does in zip(self.names, varies, strict=True) if does]
        factor, rest = divmod(size, math.prod(itertools.compress(self.sizes, varies)))
        if not names:
            return str(size)
        if rest:
            return f"{size} (by {' and '.join(names)})"
        text = "*".join(names if factor == 1 else [str(factor), *names])
        return f"{text}={size}" if with_size and text != "N" else text


def input_labels(axes: "Axes", runs: Sequence["Run"], name: str) -> list[str]:
    """Returns the labels of the axes of the first tensor that a stage was given."""
    shapes = [shape_of_first(run.inputs.get(name)) for run in runs]
    return [axes.label(shapes, axis) for axis in range(len(shapes[0] or ()))]


def shape_of_first(inputs: Any) -> torch.Size | None:
    return next((tensor.shape for _, tensor in named_tensors(inputs, "")), None)


def at(value: Any, place: Any) -> Any:
    return None if value is None else value[place]

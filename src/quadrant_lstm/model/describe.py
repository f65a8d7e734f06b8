"""Lists the stages of any network with the shapes of their outputs, in which the batch and the steps are marked.

    print(describe(network, torch.zeros(8, 4, 1, 56, 14)))

    stage   layer   output shape                         parameters
    inputs          [N, T=4, 1, 56, 14]                           0
    conv    Conv2d  [N*T, 32, 54, 12]                           320
    lstm    LSTM    ([N, T, 5], ([1, N, 5], [1, N, 5]))     414,860
    head    Linear  [N, 10]                                      60

The network runs on the meta device, which knows shapes and computes nothing. It then runs again with a batch of N + 1,
and again with T + 1 steps. A size that changed depends on that axis, wherever the network has moved it.
"""

import itertools
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter, is_lazy

from quadrant_lstm.model.mismatch import explain_mismatch, misreading, titled
from quadrant_lstm.model.protocols import check_module, count_parameters, in_full, map_tensors, named_tensors
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.text import align

# Axes: which are the batch `N` and the steps `T`, and which sizes depend on them
#
# A size is compared with that of other runs of the network, in each of which one of the leading axes was one longer.


class Axes:
    """Finds the batch and the steps among the sizes of tensors. `arguments` are the positional arguments of the
    network and those with a name.
    """

    def __init__(self, arguments: tuple[Sequence[Any], dict[str, Any]], count: int):
        self.arguments, self.count = arguments, count
        tensors = [*named_tensors(arguments[0], "inputs"), *named_tensors(arguments[1], "kwargs")]
        sizes = [tensor.shape[:count] for _, tensor in tensors if tensor.ndim >= count]
        if count < 1 or not sizes or 0 in sizes[0]:
            raise ValueError(
                f"describe: there is no tensor with num_axes={count} axes that are not empty in the inputs."
            )
        self.sizes = sizes[0]
        self.names = ["N", "T"] if count == 2 else ["N", *(f"T{number}" for number in range(1, count))]

    def inputs(self, longer: int | None, device: str) -> Any:
        """Returns the arguments, on a device and with one of the leading axes one longer."""

        def prepare(tensor: Tensor) -> Tensor:
            dtype = torch.float if tensor.is_floating_point() else tensor.dtype
            tensor = tensor.to(device, dtype, copy=True)  # the network may change its inputs
            if longer is not None and tensor.shape[: longer + 1] == self.sizes[: longer + 1]:
                tensor = torch.cat([tensor, tensor.narrow(longer, 0, 1)], longer)
            return tensor

        return map_tensors(prepare, self.arguments)

    def as_text(self, values: Sequence[Any], sized: Collection[str] = ()) -> str:
        """Returns the shapes of nested tensors. `values` has those of each run; the first is that of the real sizes.
        Labels with one of the names `sized` have their size, as in T=4.
        """
        first = values[0]
        if isinstance(first, Tensor):
            shapes = [value.shape if isinstance(value, Tensor) else None for value in values]
            return f"[{', '.join(self.label(shapes, axis, sized) for axis in range(first.ndim))}]"
        if isinstance(first, dict):
            items = [f"{key}: {self.as_text([at(value, key) for value in values], sized)}" for key in first]
            return f"{{{', '.join(items)}}}"
        if isinstance(first, tuple | list):
            items = [self.as_text([at(value, place) for value in values], sized) for place in range(len(first))]
            return items[0] if len(items) == 1 else f"({', '.join(items)})"
        return str(first) if isinstance(first, int | float | str | None) else type(first).__name__

    def labels_of_first(self, values: Sequence[Any]) -> list[str]:
        """Returns the labels of the axes of the first tensor in nested values, which are those of each run."""
        shapes = [shape_of_first(value) for value in values]
        return [self.label(shapes, axis) for axis in range(len(shapes[0] or ()))]

    def label(self, shapes: Sequence[Any], axis: int, sized: Collection[str] = ()) -> str:
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
        return text if set(names).isdisjoint(sized) else f"{text}={size}"


def shape_of_first(value: Any) -> torch.Size | None:
    """Returns the shape of the first tensor in a nested value, or None if there is none."""
    return next((tensor.shape for _, tensor in named_tensors(value, "")), None)


def at(value: Any, place: Any) -> Any:
    return None if value is None else value[place]


# A run of a network, with what each of its modules was given and returned
#
# The network runs once as it is called, and once more for each of the leading axes of its inputs, with this axis one
# longer.


@dataclass
class Folded:
    """A TimeDistributed that has not returned: the axes that it folds, and how many frames its module is given."""

    axes: tuple[int, ...]
    num_frames: int | None = None  # fewer than the axes have, if there is a mask

    def unfold(self, output: Tensor) -> Tensor:
        """Returns an output as TimeDistributed returns it; one whose first axis is not that of the frames stays."""
        of_frames = output.ndim > 0 and len(output) == self.num_frames
        return output.new_empty(*self.axes, *output.shape[1:]) if of_frames else output


@dataclass
class Run:
    """What the modules of a network were given and returned when they first ran, by name."""

    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)  # the modules that have not returned
    folded: list[Folded] = field(default_factory=list)  # for each TimeDistributed among them
    error: Exception | None = None

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.entered.append(name)
        self.inputs.setdefault(name, (*args, *kwargs.values()))
        shape = tuple(shape_of_first((args, kwargs)) or ())
        if self.folded and self.folded[-1].num_frames is None:
            self.folded[-1].num_frames = shape[0] if shape else None
        if isinstance(module, TimeDistributed):
            axes = shape[: module.num_axes]
            self.folded.append(Folded((*self.folded[-1].axes, *axes[1:]) if self.folded else axes))

    def leave(self, name: str, module: nn.Module, _: Any, outputs: Any) -> None:
        self.entered.pop()
        if isinstance(module, TimeDistributed):
            self.folded.pop()
        elif self.folded:
            outputs = map_tensors(self.folded[-1].unfold, outputs)
        self.outputs.setdefault(name, outputs)


def record(network: nn.Module, axes: Axes, device: str) -> list[Run]:
    """Runs the network on a device: as it is called, and with each leading axis one longer."""
    network = network.to(device).float().eval()
    return [record_run(network, *axes.inputs(longer, device)) for longer in (None, *range(axes.count))]


def record_run(network: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Run:
    run = Run()
    hooks: list[Any] = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(run.enter, name), with_kwargs=True))
        hooks.append(module.register_forward_hook(partial(run.leave, name)))
    try:
        with torch.no_grad():
            network(*args, **kwargs)
    except Exception as error:
        run.error = error
    for hook in hooks:
        hook.remove()
    return run


# The table


HEADER = ("stage", "layer", "output shape", "parameters", "")


class Stage(NamedTuple):
    name: str
    layer: str
    shape: str  # of all outputs, nested as they are
    num_parameters: int  # that no earlier stage has
    misreading: str = ""  # what the layer does with its inputs by mistake, and the remedy
    shared: str = ""  # which parameters are those of an earlier stage

    @property
    def note(self) -> str:
        return " ".join(filter(None, [self.misreading and f"It {self.misreading}", self.shared]))


@dataclass
class Description:
    stages: list[Stage]  # in the order in which they first run, then those that are not called but have parameters
    num_parameters: int  # of the whole network

    def rows(self) -> list[tuple[str, ...]]:
        rows = [(*stage[:3], f"{stage.num_parameters:,}", stage.note) for stage in self.stages]
        return [HEADER, *rows, ("total", "", "", f"{self.num_parameters:,}", "")]

    def warnings(self) -> list[str]:
        return [f"{titled(stage.name, stage.layer)} {stage.misreading}" for stage in self.stages if stage.misreading]

    def __str__(self) -> str:
        return align(self.rows())


def describe(network: nn.Module, *inputs: Any, num_axes: int = 2, **kwargs: Any) -> Description:
    """Returns the stages of a network that is called with these inputs and keyword arguments. The first `num_axes` axes
    of the inputs are the batch and the steps. The network itself is not changed. A recurrent layer that reads the
    samples as steps is marked.

    Raises ValueError if the inputs do not fit the network. Its message names the stage, what the stage was given, what
    it expects, and which reshape keeps the step axis. ScriptModules and uninitialized lazy modules are refused.
    """
    check_layers_are_visible(network)
    axes = Axes((inputs, kwargs), num_axes)
    runs = record(in_full(network), axes, "meta")
    if runs[0].error:  # also if the network needs values, such as lengths
        runs = record(in_full(network), axes, "cpu")
    if error := runs[0].error:
        name = next(reversed(runs[0].entered), "")
        layer_inputs = inputs_to(name, runs)
        texts = axes.as_text(layer_inputs, axes.names), axes.labels_of_first(layer_inputs)
        raise ValueError(explain_mismatch(name, network.get_submodule(name), layer_inputs[0], *texts, error)) from error
    text = axes.as_text(inputs_to("", runs), axes.names[1:])
    stages = [Stage("inputs", "", text, 0), *stages_of(network, axes, runs)]
    return Description(stages, count_parameters(network))


def stages_of(network: nn.Module, axes: Axes, runs: Sequence[Run]) -> Iterator[Stage]:
    listed: dict[Parameter, str] = {}  # with the names under which they are counted
    for name in dict.fromkeys([*runs[0].outputs, *dict(network.named_modules())]):
        module, called = network.get_submodule(name), name in runs[0].outputs
        parameters = {parameter: shown(key) for key, parameter in module.named_parameters(name, recurse=False)}
        if parameters or (called and not list(module.children())):
            shape = axes.as_text([run.outputs.get(name) for run in runs]) if called else "not called"
            count = sum(parameter.numel() for parameter in parameters.keys() - listed.keys())
            shared = " ".join(f"Shares {listed[parameter]}." for parameter in parameters if parameter in listed)
            wrong = ""
            if called and isinstance(module, nn.RNNBase) and isinstance(runs[0].inputs[name][0], Tensor):
                wrong = misreading(module, axes.labels_of_first(inputs_to(name, runs)))
            yield Stage(shown(name), type(module).__name__, shape, count, wrong, shared)
            listed = parameters | listed


def inputs_to(name: str, runs: Sequence[Run]) -> list[Any]:
    return [run.inputs.get(name) for run in runs]


def check_layers_are_visible(network: nn.Module) -> None:
    """Raises ValueError for ScriptModules, and for lazy modules, whose parameters have no sizes yet."""
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
    return re.sub(r"\.module(?=\.|$)", "", name)

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

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter, is_lazy

from quadrant_lstm.model.axes import Axes
from quadrant_lstm.model.mismatch import explain_mismatch, misreading, titled
from quadrant_lstm.model.parts import check_module, count_parameters
from quadrant_lstm.model.protocols import in_full
from quadrant_lstm.model.recording import Run, record
from quadrant_lstm.text import align

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

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        header, *rows = self.rows()
        table = Table(*header, box=None)
        table.columns[3].justify = "right"
        for row in rows:
            table.add_row(*map(Text, row))  # brackets are not markup
        return table


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
        given = inputs_to(name, runs)
        texts = axes.as_text(given, "all"), axes.labels_of_first(given)
        raise ValueError(explain_mismatch(name, network.get_submodule(name), given[0], *texts, error)) from error
    text = axes.as_text(inputs_to("", runs), "steps")
    stages = [Stage("inputs", "", text, 0), *stages_of(network, axes, runs)]
    return Description(stages, count_parameters(network))


def stages_of(network: nn.Module, axes: Axes, runs: Sequence[Run]) -> Iterator[Stage]:
    listed: dict[Parameter, str] = {}  # with the names under which they are counted
    for name in dict.fromkeys([*runs[0].outputs, *dict(network.named_modules())]):
        module, called = network.get_submodule(name), name in runs[0].outputs
        own = {parameter: shown(key) for key, parameter in module.named_parameters(name, recurse=False)}
        if own or (called and not list(module.children())):
            shape = axes.as_text([run.outputs.get(name) for run in runs]) if called else "not called"
            count = sum(parameter.numel() for parameter in own.keys() - listed.keys())
            shared = " ".join(f"Shares {listed[parameter]}." for parameter in own if parameter in listed)
            wrong = ""
            if called and isinstance(module, nn.RNNBase) and isinstance(runs[0].inputs[name][0], Tensor):
                wrong = misreading(module, axes.labels_of_first(inputs_to(name, runs)))
            yield Stage(shown(name), type(module).__name__, shape, count, wrong, shared)
            listed = own | listed


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

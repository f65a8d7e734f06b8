"""Runs a network and records what each of its modules was given and returned, by the name of the module.

The network runs once as it is called, and once more for each of the leading axes of its inputs, with this axis one
longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from quadrant_lstm.model.axes import Axes, shape_of_first
from quadrant_lstm.model.nested import map_tensors
from quadrant_lstm.model.time_distributed import TimeDistributed


@dataclass
class Run:
    """What the modules of a network were given and returned when they first ran, by name."""

    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    entered: list[str] = field(default_factory=list)  # the modules that have not returned
    folded: list[tuple[int, ...]] = field(default_factory=list)  # of each TimeDistributed among them, the leading axes
    error: Exception | None = None

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.entered.append(name)
        self.inputs.setdefault(name, (*args, *kwargs.values()))
        if isinstance(module, TimeDistributed):
            leading = tuple((shape_of_first((args, kwargs)) or ())[: module.num_axes])
            self.folded.append((*self.folded[-1], *leading[1:]) if self.folded else leading)

    def leave(self, name: str, module: nn.Module, _: Any, outputs: Any) -> None:
        self.entered.pop()
        if isinstance(module, TimeDistributed):
            self.folded.pop()
        elif self.folded:  # shown as TimeDistributed returns them
            leading = self.folded[-1]
            outputs = map_tensors(lambda tensor: tensor.new_empty(*leading, *tensor.shape[1:]), outputs)
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

"""Runs a network and records what each of its modules was given and returned, by the name of the module.

The network runs once as it is called, and once more for each of the leading axes of its inputs, with this axis one
longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quadrant_lstm.model.axes import Axes, shape_of_first
from quadrant_lstm.model.nested import map_tensors
from quadrant_lstm.model.time_distributed import TimeDistributed


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

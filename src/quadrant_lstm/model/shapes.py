"""Lists the stages of a network for frames of a given shape, with the output shape and parameters of each.

The sample and step axes stay visible, also inside TimeDistributed, which folds them into one. The network runs once on
the meta device, so that the shapes are those of its own forward pass but nothing is computed.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from quadrant_lstm.console import align
from quadrant_lstm.data.frames import Shape
from quadrant_lstm.model.protocols import in_full
from quadrant_lstm.model.time_distributed import TimeDistributed


class Stage(NamedTuple):
    name: str
    layer: str
    shape: tuple[int | str, ...]
    num_parameters: int


def stages(network: nn.Module, frame_shape: Shape, steps: int = 4) -> list[Stage]:
    network = in_full(network).to("meta").float().eval()
    rows = [Stage("frames", "", ("N", steps, *frame_shape), 0)]
    folded: list[tuple[int, ...]] = []  # the leading axes of each enclosing TimeDistributed

    def enter(module: TimeDistributed, inputs: Any) -> None:
        outer = folded[-1] if folded else ()
        leading = tuple(inputs[0].shape[: module.num_axes])
        folded.append((*outer, *leading[1:]) if outer else leading)

    def leave(*_: Any) -> None:
        folded.pop()

    def record(name: str, module: nn.Module, inputs: Any, outputs: Any) -> None:
        shape = tuple((outputs[0] if isinstance(outputs, tuple) else outputs).shape)
        if folded:
            shape = (*folded[-1], *shape[1:])
        count = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        rows.append(Stage(name, type(module).__name__, ("N", *shape[1:]), count))

    for name, module in network.named_modules():
        if isinstance(module, TimeDistributed):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)
        elif not list(module.children()) or list(module.parameters(recurse=False)):
            module.register_forward_hook(partial(record, name.replace(".module", "")))
    network(torch.empty(1, steps, *frame_shape, device="meta"))
    return rows


def as_text(rows: list[Stage]) -> str:
    cells = [("stage", "layer", "output shape", "parameters")]
    cells += [(r.name, r.layer, f"[{', '.join(map(str, r.shape))}]", f"{r.num_parameters:,}") for r in rows]
    return align([*cells, ("total", "", "", f"{sum(row.num_parameters for row in rows):,}")])

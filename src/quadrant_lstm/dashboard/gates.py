"""An LSTM and the frames of one image -> a picture: what its gates let through at each step, and what it keeps."""

from typing import Any

import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.dashboard.palette import new_figure
from quadrant_lstm.dashboard.tabs import as_pixels

PANELS = ("input gate", "forget gate", "candidate", "output gate", "cell", "output")
GATES = PANELS[:2] + PANELS[3:4]  # which are between 0 and 1


def draw_gates(network: Any, frames: UInt8[Tensor, "1 steps channels height width"], title: str) -> Figure:
    """A panel each, a row a step, a column a unit. The forget gate of the first step has nothing to forget."""
    maps: list[Tensor] = []
    hook = network.recurrent.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    with torch.inference_mode():
        network.outputs(as_pixels(frames, network))
        hook.remove()
        steps = list(network.recurrent.unrolled(maps[0]))
    figure = new_figure(9.6, 4.2)
    figure.suptitle(title, fontsize=11)
    for axes, name, values in zip(figure.subplots(2, 3).flat, PANELS, zip(*steps, strict=True), strict=True):
        shown = torch.cat(values).float().cpu().numpy()
        gate = name in GATES
        limit = 1.0 if gate else max(1.0, abs(shown).max())
        picture = axes.imshow(
            shown, cmap="Blues" if gate else "RdBu", vmin=0 if gate else -limit, vmax=limit, aspect="auto"
        )
        axes.set_yticks(range(len(shown)), [f"step {step}" for step in range(1, len(shown) + 1)], fontsize=8)
        axes.set_xticks(range(shown.shape[1]) if shown.shape[1] <= 10 else [])
        axes.set_title(name, fontsize=10)
        figure.colorbar(picture, ax=axes)
    figure.supxlabel("unit", fontsize=10)
    return figure

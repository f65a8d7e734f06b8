"""An LSTM and the frames of one image -> a picture: what its gates let through at each step, and what it keeps."""

from typing import Any

import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.dashboard.tabs import as_pixels
from quadrant_lstm.plotting import SMALL, new_figure, style

PANELS = ("input gate", "forget gate", "candidate", "output gate", "cell", "output")
GATES = PANELS[:2] + PANELS[3:4]  # which are between 0 and 1


@style
def draw_gates(network: Any, frames: UInt8[Tensor, "1 steps channels height width"], title: str) -> Figure:
    """A panel each, a row a step, a column a unit. The forget gate of the first step has nothing to forget."""
    maps: list[Tensor] = []
    hook = network.recurrent.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    with torch.inference_mode():
        network.outputs(as_pixels(frames, network))
        hook.remove()
        steps = list(network.recurrent.unrolled(maps[0]))
    figure = new_figure()
    figure.suptitle(title)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, name, values in zip(panels.flat, PANELS, zip(*steps, strict=True), strict=True):
        shown = torch.cat(values).float().cpu().numpy()
        gate = name in GATES
        limit = 1.0 if gate else max(1.0, abs(shown).max())
        axes.imshow(shown, cmap="Blues" if gate else "RdBu", vmin=0 if gate else -limit, vmax=limit, aspect="auto")
        axes.set_title(f"{name}, {'0 to 1' if gate else f'±{limit:.2g}'}", fontsize=SMALL)
        axes.set_yticks(range(len(shown)), range(1, len(shown) + 1))
        axes.set_xticks([])
    panels[0, 0].set_ylabel("step")
    panels[1, 0].set_ylabel("step")
    figure.supxlabel(f"{shown.shape[1]} units", fontsize=SMALL)
    return figure

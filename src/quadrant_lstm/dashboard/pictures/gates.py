"""Draws the gates of an LSTM at each step of an image, the cell state and the output."""

import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.model.protocols import Inspectable
from quadrant_lstm.model.recurrent import MapsLSTM
from quadrant_lstm.plotting import SMALL, new_figure, style

TITLES = ("input gate", "forget gate", "cell candidate", "output gate", "cell state", "output")  # of LSTMStep's values
GATES = ("input gate", "forget gate", "output gate")  # between 0 and 1


@style
def draw_gates(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"], title: str) -> Figure:
    """A panel each, a row per step, a column per unit. The forget gate of the first step has nothing to forget."""
    assert isinstance(network.recurrent, MapsLSTM)
    with torch.inference_mode():
        steps = list(network.recurrent.unrolled(network.features(scaled(frames))))
    figure = new_figure()
    figure.suptitle(title)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, name, values in zip(panels.flat, TITLES, zip(*steps, strict=True), strict=True):
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

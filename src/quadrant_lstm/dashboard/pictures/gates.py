"""Draws the gates, the cell state and the output of an LSTM at each step of one image."""

import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.dashboard.tabs import as_inputs
from quadrant_lstm.model.protocols import Inspectable
from quadrant_lstm.model.recurrent import MapsLSTM
from quadrant_lstm.plotting import SMALL, new_figure, style

TITLES = ("input gate", "forget gate", "cell candidate", "output gate", "cell state", "output")  # as in LSTMStep
GATES = ("input gate", "forget gate", "output gate")  # with values between 0 and 1


@style
def draw_gates(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"], title: str) -> Figure:
    """One panel per quantity, one row per step, one column per unit. The first step's forget gate has no effect."""
    assert isinstance(network.recurrent, MapsLSTM)
    with torch.inference_mode():
        steps = list(network.recurrent.unrolled(network.features(as_inputs(frames, network.encoder))))
    figure = new_figure()
    figure.suptitle(title)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, name, values in zip(panels.flat, TITLES, zip(*steps, strict=True), strict=True):
        shown = torch.cat(values).float().cpu().numpy()
        is_gate = name in GATES
        limit = 1.0 if is_gate else max(1.0, abs(shown).max())
        cmap, lowest = ("Blues", 0.0) if is_gate else ("RdBu", -limit)
        axes.imshow(shown, cmap=cmap, vmin=lowest, vmax=limit, aspect="auto")
        axes.set_title(f"{name}, {'0 to 1' if is_gate else f'±{limit:.2g}'}", fontsize=SMALL)
        axes.set_yticks(range(len(shown)), range(1, len(shown) + 1))
        axes.set_xticks([])
    panels[0, 0].set_ylabel("step")
    panels[1, 0].set_ylabel("step")
    figure.supxlabel(f"{shown.shape[1]} units", fontsize=SMALL)
    return figure

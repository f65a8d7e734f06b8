"""Draws the inside of a network: filters of its first convolution, feature maps of all, and the gates of its LSTM."""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.network_inputs import as_inputs
from quadrant_lstm.model.protocols import Inspectable
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.plotting import HEIGHT, SMALL, WIDTH, new_figure, style

MAX_TICKS = 8
MAX_MAPS = 32  # drawn of one convolution
TITLES = ("input gate", "forget gate", "cell candidate", "output gate", "cell state", "output")  # as in LSTMStep
GATES = ("input gate", "forget gate", "output gate")  # with values between 0 and 1


def feature_maps(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"]) -> dict[str, Tensor]:
    """Returns the ReLU of each convolution's output [maps, rows, columns] for the frame with the largest sum of pixels,
    by the convolution's name; that frame, or the part of it that the encoder takes at once, is under "input".
    """
    network = network.in_full()
    seen: list[tuple[str, Tensor, Tensor]] = []
    for path, layer in network.encoder.named_modules():
        if isinstance(layer, nn.Conv2d):
            name = path.removeprefix("module.")
            layer.register_forward_hook(lambda _, inputs, outputs, name=name: seen.append((name, inputs[0], outputs)))
    with torch.inference_mode():
        network.encoder(as_inputs(frames, network))
    fullest = int(seen[0][1].flatten(1).sum(1).argmax())
    return {"input": seen[0][1][fullest]} | {name: outputs[fullest].relu() for name, _, outputs in seen}


@style
def draw_features(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"]) -> dict[str, Figure]:
    """Each map is scaled by its own largest value, because the maps differ too much for a common scale."""
    convs = [layer for layer in network.encoder.modules() if isinstance(layer, nn.Conv2d)]
    if not convs:
        return {}
    maps = feature_maps(network, frames)
    frame = maps.pop("input").permute(1, 2, 0).float().cpu().numpy()
    weights = convs[0].weight.detach().mean(1)
    figures = {"filters": draw_maps(weights, f"the {len(weights)} filters of the first convolution", "RdBu", frame)}
    for name, layer_maps in maps.items():
        part = f", the first {MAX_MAPS}" if len(layer_maps) > MAX_MAPS else ""
        figures[name] = draw_maps(layer_maps, f"{name}: {len(layer_maps)} feature maps{part}", "gray_r", frame)
    return figures


def draw_maps(maps: Float[Tensor, "maps rows columns"], title: str, cmap: str, frame: np.ndarray) -> Figure:
    page = mosaic(maps[:MAX_MAPS].float().cpu().numpy())
    figure = new_figure()
    width = WIDTH / HEIGHT * frame.shape[1] / frame.shape[0]  # of the frame, relative to the maps
    left, right = figure.subplots(1, 2, width_ratios=[min(0.25, width), 1])
    left.imshow(frame, cmap="gray_r", vmin=0)
    left.set_title("input")
    right.imshow(page, cmap=cmap, vmin=-1 if (page < 0).any() else 0, vmax=1)
    right.set_facecolor("#dddddd")
    right.set_title(title)
    left.set(xticks=[], yticks=[])
    right.set(xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    return figure


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Lays out maps [maps, rows, columns] on a page, with gaps of NaN between them.

    The page is about twice as wide as high. A gap in the last row counts as much as twice that ratio, or half of it.
    """
    maps = maps / np.abs(maps).max((1, 2), keepdims=True).clip(min=1e-9)
    count, rows, columns = maps.shape[0], maps.shape[1] + 1, maps.shape[2] + 1

    def cost(per_row: int) -> float:
        shape = per_row * columns / (rows * -(-count // per_row))
        return abs(math.log(shape / 2)) + (math.log(2) if count % per_row else 0)

    per_row = min(range(1, count + 1), key=cost)
    places = np.pad(maps, ((0, -count % per_row), (0, 1), (0, 1)), constant_values=np.nan)
    return places.reshape(-1, per_row, rows, columns).transpose(0, 2, 1, 3).reshape(-1, per_row * columns)[:-1, :-1]


@style
def draw_gates(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"], title: str) -> Figure:
    """One panel per quantity, one row per step, one column per unit. The first step's forget gate has no effect."""
    assert isinstance(network.recurrent, LSTM)
    with torch.inference_mode():
        steps = list(network.recurrent.steps_of_first_layer(network.features(as_inputs(frames, network))))
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
        ticks = range(0, len(shown), -(-len(shown) // MAX_TICKS))
        axes.set_yticks(ticks, [step + 1 for step in ticks])
        axes.set_xticks([])
    panels[0, 0].set_ylabel("step")
    panels[1, 0].set_ylabel("step")
    figure.supxlabel(f"{shown.shape[1]} units", fontsize=SMALL)
    return figure

"""A network and the frames of one image -> a picture: the first filters, and what each conv makes of the frame that has
the most in it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.palette import new_figure
from quadrant_lstm.dashboard.tabs import as_pixels
from quadrant_lstm.model.time_distributed import in_full

MOST = 32  # maps of a conv
WIDTH = 10.0  # inches


def feature_maps(network: Any, frames: UInt8[Tensor, "1 steps channels height width"]) -> dict[str, Tensor]:
    """Stage -> [maps, rows, columns]: "input", which is a frame or as much of it as the encoder takes at once, and what
    each conv makes of it, with what is below 0 cut off.
    """
    seen: list[tuple[str, Tensor, Tensor]] = []
    convs = [(name, layer) for name, layer in network.encoder.module.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [
        layer.register_forward_hook(lambda _, inputs, outputs, name=name: seen.append((name, inputs[0], outputs)))
        for name, layer in convs
    ]
    try:
        with in_full(network), torch.inference_mode():
            network(as_pixels(frames, network))
    finally:
        for hook in hooks:
            hook.remove()
    fullest = int(seen[0][1].flatten(1).sum(1).argmax())
    return {"input": seen[0][1][fullest]} | {name: outputs[fullest].relu() for name, _, outputs in seen}


def draw_features(network: Any, frames: UInt8[Tensor, "1 steps channels height width"]) -> Figure:
    """Each map is as dark as its own highest value makes it: they differ too much to be seen together."""
    maps = feature_maps(network, frames)
    first = next(layer for layer in network.encoder.module.modules() if isinstance(layer, nn.Conv2d))
    panels = {"what comes in": maps.pop("input"), "filters of the first conv": first.weight.detach().mean(1)}
    panels |= {f"{name}, {len(some)} maps": some for name, some in maps.items()}
    pages = [mosaic(some[:MOST].float().cpu().numpy()) for some in panels.values()]
    heights = [max(0.25, WIDTH * len(page) / page.shape[1]) for page in pages]
    figure = new_figure(WIDTH, sum(heights) + 0.35 * len(pages))
    rows: Sequence[Any] = figure.subplots(len(pages), 1, height_ratios=heights)
    for axes, (title, some), page in zip(rows, panels.items(), pages, strict=True):
        axes.imshow(page, cmap="RdBu" if title.startswith("filters") else "gray_r", vmin=-1 if (page < 0).any() else 0)
        axes.set_facecolor("#dddddd")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title + (f", the first {MOST}" if len(some) > MOST else ""), fontsize=9, loc="left")
    return figure


def mosaic(maps: np.ndarray) -> np.ndarray:
    """[maps, rows, columns] -> [all rows, all columns], with a gap of nothing around each; tall maps in one row."""
    across = 32 if maps.shape[1] > 2 * maps.shape[2] else 16
    maps = maps / np.abs(maps).max((1, 2), keepdims=True).clip(min=1e-9)
    places = np.full((-(-len(maps) // across) * across, *maps.shape[1:]), np.nan, maps.dtype)
    places[: len(maps)] = maps
    places = np.pad(places, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    _, rows, columns = places.shape
    return places.reshape(-1, across, rows, columns).transpose(0, 2, 1, 3).reshape(-1, across * columns)[:-1, :-1]

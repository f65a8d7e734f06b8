"""A network and the frames of one image -> pictures: the first filters, and what each conv makes of the frame that has
the most in it.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.model.protocols import Inspectable
from quadrant_lstm.plotting import HEIGHT, WIDTH, new_figure, style

MOST = 32  # maps of a conv


def feature_maps(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"]) -> dict[str, Tensor]:
    """Stage -> [maps, rows, columns]: "input", which is a frame or as much of it as the encoder takes at once, and what
    each conv makes of it, with what is below 0 cut off.
    """
    network = network.in_full()
    seen: list[tuple[str, Tensor, Tensor]] = []
    convs = [(name, layer) for name, layer in network.encoder.module.named_modules() if isinstance(layer, nn.Conv2d)]
    for name, layer in convs:
        layer.register_forward_hook(lambda _, inputs, outputs, name=name: seen.append((name, inputs[0], outputs)))
    with torch.inference_mode():
        network.encoder(scaled(frames))
    fullest = int(seen[0][1].flatten(1).sum(1).argmax())
    return {"input": seen[0][1][fullest]} | {name: outputs[fullest].relu() for name, _, outputs in seen}


@style
def draw_features(network: Inspectable, frames: UInt8[Tensor, "1 steps channels height width"]) -> dict[str, Figure]:
    """Each map is as dark as its own highest value makes it: they differ too much to be seen together."""
    maps = feature_maps(network, frames)
    given = maps.pop("input").permute(1, 2, 0).float().cpu().numpy()
    first = next(layer for layer in network.encoder.module.modules() if isinstance(layer, nn.Conv2d))
    weights = first.weight.detach().mean(1)
    figures = {"filters": tiled(weights, f"the {len(weights)} filters of the first conv", "RdBu", given)}
    for name, some in maps.items():
        title = f"{name}: {len(some)} maps" + (f", the first {MOST}" if len(some) > MOST else "")
        figures[name] = tiled(some, title, "gray_r", given)
    return figures


def tiled(maps: Float[Tensor, "maps rows columns"], title: str, cmap: str, given: np.ndarray) -> Figure:
    page = mosaic(maps[:MOST].float().cpu().numpy())
    figure = new_figure()
    across = WIDTH / HEIGHT * given.shape[1] / given.shape[0]  # how wide the frame is, of the maps' width
    left, right = figure.subplots(1, 2, width_ratios=[min(0.25, across), 1])
    left.imshow(given, cmap="gray_r", vmin=0)
    left.set_title("input")
    right.imshow(page, cmap=cmap, vmin=-1 if (page < 0).any() else 0, vmax=1)
    right.set_facecolor("#dddddd")
    right.set_title(title)
    left.set(xticks=[], yticks=[])
    right.set(xticks=[], yticks=[])
    right.spines[:].set_visible(False)
    return figure


def mosaic(maps: np.ndarray) -> np.ndarray:
    """[maps, rows, columns] -> [all rows, all columns], at least twice as wide as high, with gaps of nothing."""
    maps = maps / np.abs(maps).max((1, 2), keepdims=True).clip(min=1e-9)
    maps = np.pad(maps, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    count, rows, columns = maps.shape
    wide = (across for across in range(1, count + 1) if across * columns >= 2 * rows * -(-count // across))
    across = next(wide, count)
    places = np.full((-(-count // across) * across, rows, columns), np.nan, maps.dtype)
    places[:count] = maps
    return places.reshape(-1, across, rows, columns).transpose(0, 2, 1, 3).reshape(-1, across * columns)[:-1, :-1]

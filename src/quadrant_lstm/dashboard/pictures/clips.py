"""Draws clips, as strips of frames."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import SMALL, new_figure, style

MAX_FRAMES = 8  # drawn of a clip


def shown_frames(num_frames: int) -> list[int]:
    """Returns the numbers of the frames that are drawn, evenly spaced, the first and the last among them."""
    return np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int).tolist()


@style
def draw_clips(clips: Sequence[UInt8[Tensor, "frames channels height width"]], classes: Sequence[str]) -> Figure:
    """Draws a row of frames for each clip, whose class stands on its left."""
    figure = new_figure()
    figure.suptitle("the first test clips: class, and numbered frames")
    longest = max(map(len, clips))
    rows = figure.subplots(len(clips), min(longest, MAX_FRAMES), squeeze=False)
    for place, (row, clip, name) in enumerate(zip(rows, clips, classes, strict=True)):
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, number in zip(row, shown_frames(len(clip)), strict=False):
            axes.imshow(clip[number].permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)
            if place == 0 or len(clip) != len(clips[place - 1]):
                axes.set_title(str(number + 1), fontsize=SMALL, pad=1)
    return figure

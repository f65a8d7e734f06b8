"""Draws an image, its quadrants, and the frame of each step."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from quadrant_lstm.data.orderings import ORDERINGS, sequences, spelled
from quadrant_lstm.data.quadrants import split_quadrants
from quadrant_lstm.plotting import ORDERING_COLOURS, SMALL, new_figure, style

MOST = 5  # orderings that are named


@style
def draw_orderings(
    image: UInt8[Tensor, "channels height width"], orderings: Sequence[Sequence[int]] = ORDERINGS
) -> Figure:
    quadrants = split_quadrants(image[None])[0]
    frames = sequences(image[None], orderings)[0]
    figure = new_figure(layout=None)  # margins by hand: every run's start waits for this
    margins = {"left": 0.01, "right": 0.99, "bottom": 0.08, "top": 0.92, "wspace": 0.1}
    columns: Any = figure.add_gridspec(1, 3, width_ratios=[1.8, 1.5, 4.4], **margins)
    digit, pieces, steps = columns
    show(figure.add_subplot(digit), image, "image")
    places = list(pieces.subgridspec(4, 2, height_ratios=[1, 1.6, 1.6, 1]))[2:6]  # the rows in the middle
    for number, (place, quadrant) in enumerate(zip(places, quadrants, strict=True), start=1):
        show(figure.add_subplot(place), quadrant, str(number))
    left, right = pieces.get_position(figure).intervalx
    figure.text((left + right) / 2, 0.82, "quadrants", ha="center")
    for step, (place, frame) in enumerate(zip(steps.subgridspec(1, 4), frames, strict=True)):
        axes = figure.add_subplot(place)
        show(axes, frame, f"step {step + 1}")
        label(axes, [ordering[step] for ordering in orderings], rows=quadrants.shape[-2], columns=quadrants.shape[-1])
    names = ", ".join(map(spelled, orderings[:MOST]))
    more = ", ..." if len(orderings) > MOST else ""
    figure.text(0.99, 0.02, f"top to bottom: orderings {names}{more}", ha="right")
    return figure


def show(axes: Axes, image: UInt8[Tensor, "channels height width"], title: str) -> None:
    pixels = image.permute(1, 2, 0) if len(image) == 3 else image[0]
    axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=SMALL)
    axes.set_axis_off()


def label(axes: Axes, quadrants: list[int], rows: int, columns: int) -> None:
    """Number the quadrants of a frame and frame each in the colour of its ordering."""
    for place, quadrant in enumerate(quadrants):
        colour = ORDERING_COLOURS[place % len(ORDERING_COLOURS)]
        corner = (-0.5, place * rows - 0.5)
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linewidth=1.2))
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1}
        axes.text(0, place * rows + 0.3, str(quadrant), color="white", bbox=box, va="top")

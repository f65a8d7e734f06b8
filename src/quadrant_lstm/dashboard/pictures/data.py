"""Draws the data: an image with its quadrants and the frame of each step, and augmented training images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from quadrant_lstm.data.orderings import ORDERINGS, ordering_name, sequences
from quadrant_lstm.data.quadrants import split_quadrants
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.plotting import GROUP_COLOURS, ORDERING_COLOURS, SMALL, WIDTH, new_figure, style

MAX_NAMED = 5  # orderings
NUM_VERSIONS = 10  # of each augmented image
TITLE_HEIGHT = 0.2  # inches


@style
def draw_orderings(image: UInt8[Tensor, "channels height width"], orderings: Orderings = ORDERINGS) -> Figure:
    quadrants = split_quadrants(image[None])[0]
    frames = sequences(image[None], orderings)[0]
    figure = new_figure(layout=None)  # fixed margins: the start of every run waits for this picture
    margins = {"left": 0.01, "right": 0.99, "bottom": 0.08, "top": 0.92, "wspace": 0.1}
    columns: Any = figure.add_gridspec(1, 3, width_ratios=[1.8, 1.5, 4.4], **margins)
    digit, pieces, steps = columns
    show_image(figure.add_subplot(digit), image, "image")
    places = list(pieces.subgridspec(4, 2, height_ratios=[1, 1.6, 1.6, 1]))[2:6]  # the two rows in the middle
    for number, (place, quadrant) in enumerate(zip(places, quadrants, strict=True), start=1):
        show_image(figure.add_subplot(place), quadrant, str(number))
    left, right = pieces.get_position(figure).intervalx
    figure.text((left + right) / 2, 0.82, "quadrants", ha="center")
    for step, (place, frame) in enumerate(zip(steps.subgridspec(1, 4), frames, strict=True)):
        axes = figure.add_subplot(place)
        show_image(axes, frame, f"step {step + 1}")
        outline_quadrants(axes, [ordering[step] for ordering in orderings], *quadrants.shape[-2:])
    names = ", ".join(map(ordering_name, orderings[:MAX_NAMED]))
    more = ", ..." if len(orderings) > MAX_NAMED else ""
    figure.text(0.99, 0.02, f"top to bottom: orderings {names}{more}", ha="right")
    return figure


def show_image(axes: Axes, image: UInt8[Tensor, "channels height width"], title: str) -> None:
    pixels = image.permute(1, 2, 0) if len(image) == 3 else image[0]
    axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=SMALL)
    axes.set_axis_off()


def outline_quadrants(axes: Axes, quadrants: list[int], rows: int, columns: int) -> None:
    """Outlines each quadrant, of `rows` x `columns` pixels, in the colour of its ordering, and adds its number."""
    for place, quadrant in enumerate(quadrants):
        colour = ORDERING_COLOURS[place % len(ORDERING_COLOURS)]
        corner = (-0.5, place * rows - 0.5)
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linewidth=1.2))
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1}
        axes.text(0, place * rows + 0.3, str(quadrant), color="white", bbox=box, va="top")


@style
def draw_augmentation(
    images: UInt8[Tensor, "images channels height width"], augment: Callable[[Tensor], Tensor]
) -> Figure:
    """Each row shows one image, first unchanged, then in NUM_VERSIONS augmented versions."""
    drawn = torch.stack([images.float(), *(augment(images).float() for _ in range(NUM_VERSIONS))], dim=1)
    pixels = np.pad(drawn.cpu().numpy(), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    rows, columns, _, height, width = pixels.shape
    page = pixels.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1) / 255
    side = WIDTH / columns  # of one image, in inches
    figure = new_figure(height=rows * side + TITLE_HEIGHT, layout=None)
    axes = figure.add_axes((0, 0, 1, rows * side / (rows * side + TITLE_HEIGHT)))
    axes.imshow(page.squeeze(-1) if page.shape[-1] == 1 else page, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axes.axvline(width - 0.5, color=GROUP_COLOURS[1], linewidth=1.5)
    axes.set_axis_off()
    axes.set_title("training images (left) and augmented versions of them")
    return figure

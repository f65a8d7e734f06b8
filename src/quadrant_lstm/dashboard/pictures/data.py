"""Draws the data: images with their pieces and frames, augmented training images, clips, and series."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from quadrant_lstm.data.orderings import ORDERINGS, QUADRANTS, frames_of, ordering_name, orderings_of, split_pieces
from quadrant_lstm.kinds import Grid, OrderingsOrNames
from quadrant_lstm.plotting import GROUP_COLOURS, ORDERING_COLOURS, SMALL, WIDTH, blank, new_figure, titled_page

# Clips, as strips of frames


MAX_FRAMES = 8  # drawn of a clip


def shown_frames(num_frames: int) -> list[int]:
    """Returns the numbers of the frames that are drawn, evenly spaced, the first and the last among them."""
    return np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int).tolist()


def draw_clips(
    clips: Sequence[UInt8[Tensor, "frames channels height width"]], classes: Sequence[str], title: str
) -> Figure:
    """Draws a row of frames for each clip, whose class stands on its left."""
    figure = new_figure()
    figure.suptitle(title)
    longest = max(map(len, clips))
    rows = figure.subplots(len(clips), min(longest, MAX_FRAMES), squeeze=False)
    for place, (row, clip, name) in enumerate(zip(rows, clips, classes, strict=True)):
        for axes in row:
            blank(axes)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, number in zip(row, shown_frames(len(clip)), strict=False):
            axes.imshow(clip[number].permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)
            if longest > 1 and (place == 0 or len(clip) != len(clips[place - 1])):
                axes.set_title(str(number + 1), fontsize=SMALL, pad=1)
    return figure


# Images


MAX_DRAWN_ORDERINGS = 5  # beside the frames, as paths
NUM_VERSIONS = 10  # of each augmented image
MAX_NUMBERED = 6  # pieces; more would not be legible, so paths are drawn
NUM_PATHS = 4
PATH_COLOUR = "#ccbb44"  # legible on black and on white
MARGINS = {"left": 0.01, "right": 0.99, "bottom": 0.03, "top": 0.91, "wspace": 0.1}


def draw_orderings(
    image: UInt8[Tensor, "channels height width"], orderings: OrderingsOrNames = ORDERINGS, grid: Grid = QUADRANTS
) -> Figure:
    figure = new_figure(layout=None)  # fixed margins: the start of every run waits for this picture
    permutations, (rows, columns) = orderings_of(orderings, grid), grid
    frames = frames_of(image[None], permutations, grid)[0]
    draw = draw_pieces_and_frames if rows * columns <= MAX_NUMBERED else draw_paths_and_frames
    draw(figure, image, frames, permutations, grid)
    return figure


def draw_pieces_and_frames(
    figure: Figure, image: Tensor, frames: Tensor, orderings: Sequence[Sequence[int]], grid: Grid
) -> None:
    """Draws the image, its numbered pieces, each ordering as a path if there are few, and the frame of each step."""
    pieces, (num_rows, num_columns) = split_pieces(image[None], grid)[0], grid
    columns: Any = figure.add_gridspec(1, 4, width_ratios=[1.6, 1.3, 0.75, 4.4], **MARGINS)
    digit, middle, names, steps = columns
    show_image(figure.add_subplot(digit), image, "image")
    heights = [1, *[3.2 / num_rows] * num_rows, 1]  # the rows of pieces are in the middle
    places = list(middle.subgridspec(num_rows + 2, num_columns, height_ratios=heights))[num_columns:-num_columns]
    for number, (place, piece) in enumerate(zip(places, pieces, strict=True), start=1):
        show_image(figure.add_subplot(place), piece, str(number))
    left, right = middle.get_position(figure).intervalx
    figure.text((left + right) / 2, 0.82, "quadrants" if tuple(grid) == QUADRANTS else "pieces", ha="center")
    for step, (place, frame) in enumerate(zip(steps.subgridspec(1, len(frames), wspace=0.1), frames, strict=True)):
        axes = figure.add_subplot(place)
        show_image(axes, frame, f"step {step + 1}")
        outline_pieces(axes, [ordering[step] for ordering in orderings], *pieces.shape[-2:])
    if len(orderings) > MAX_DRAWN_ORDERINGS:
        return
    axes.apply_aspect()
    stack, (left, right) = axes.get_position(), names.get_position(figure).intervalx
    height = stack.height / len(orderings)
    for number, (ordering, colour) in enumerate(zip(orderings, itertools.cycle(ORDERING_COLOURS), strict=False)):
        axes = figure.add_axes((left, stack.y1 - (number + 0.95) * height, right - left, 0.6 * height))
        axes.set(xlim=(-0.5, num_columns - 0.5), ylim=(num_rows - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
        axes.set_title(ordering_name(ordering, grid), fontsize=SMALL, pad=1.5)
        draw_path(axes, ordering, grid, colour)


def draw_path(
    axes: Axes, ordering: Sequence[int], grid: Grid, colour: str, height: float = 1.0, width: float = 1.0
) -> None:
    """Draws a path through the pieces, of this height and width in pixels, from a dot to an arrow head."""
    cells = [divmod(piece - 1, grid[1]) for piece in ordering]
    centres = [(column * width + (width - 1) / 2, row * height + (height - 1) / 2) for row, column in cells]
    axes.plot(*zip(*centres, strict=True), color=colour, linewidth=1)
    axes.plot(*centres[0], "o", color=colour, markersize=3)
    arrow = {"arrowstyle": "-|>,head_length=0.3,head_width=0.15", "color": colour, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", centres[-1], centres[-2], arrowprops=arrow)


def draw_paths_and_frames(
    figure: Figure, image: Tensor, frames: Tensor, orderings: Sequence[Sequence[int]], grid: Grid
) -> None:
    """Draws the path of each of the first orderings over the image, and below them some of the frames."""
    panels: Any = figure.add_gridspec(2, 1, height_ratios=[1.5, 1], hspace=0.25, **MARGINS)
    above, below = panels
    for place, ordering in zip(above.subgridspec(1, NUM_PATHS), orderings, strict=False):
        axes = figure.add_subplot(place)
        show_image(axes, image // 2, ordering_name(ordering, grid))
        draw_path(axes, ordering, grid, PATH_COLOUR, image.shape[1] / grid[0], image.shape[2] / grid[1])
    shown = shown_frames(len(frames))
    for step, place in zip(shown, below.subgridspec(1, len(shown)), strict=True):
        show_image(figure.add_subplot(place), frames[step], f"step {step + 1}")


def show_image(axes: Axes, image: UInt8[Tensor, "channels height width"], title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=SMALL)
    axes.set_axis_off()


def outline_pieces(axes: Axes, pieces: list[int], rows: int, columns: int) -> None:
    """Outlines each piece, of `rows` x `columns` pixels, in the colour of its ordering, and adds its number."""
    for place, piece in enumerate(pieces):
        colour = ORDERING_COLOURS[place % len(ORDERING_COLOURS)]
        corner = (-0.5, place * rows - 0.5)
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linewidth=1.2))
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1}
        axes.text(0, place * rows + 0.3, str(piece), color="white", bbox=box, va="top")


def draw_augmentation(
    images: UInt8[Tensor, "images channels height width"], augment: Callable[[Tensor], Tensor]
) -> Figure:
    """Each row shows one image, first unchanged, then in NUM_VERSIONS augmented versions."""
    drawn = torch.stack([images.float(), *(augment(images).float() for _ in range(NUM_VERSIONS))], dim=1)
    pixels = np.pad(drawn.cpu().numpy(), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
    rows, columns, _, height, width = pixels.shape
    page = pixels.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1) / 255
    figure, axes = titled_page(rows * WIDTH / columns)
    axes.imshow(page, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axes.axvline(width - 0.5, color=GROUP_COLOURS[1], linewidth=1.5)
    axes.set_title("training images (left) and augmented versions of them")
    return figure

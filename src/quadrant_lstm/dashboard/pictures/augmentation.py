"""Draws training images next to randomly augmented versions of them."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import GROUP_COLOURS, WIDTH, new_figure, style

NUM_VERSIONS = 10
TITLE_HEIGHT = 0.2  # inches


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

"""Draws the misclassified test images, each with its class, its prediction and the confidence of the prediction."""

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import HEIGHT, new_figure, style

COLUMNS, ROWS = 10, 4
TITLE_HEIGHT = 0.2  # inches
GAP, CAPTION = 6, 20  # between two images and below each, in pixels of the images


@style
def draw_mistakes(
    images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    logits: Float[Tensor, "images classes"], start: int = 0, rows: int = ROWS,
) -> Figure:  # fmt: skip
    """Draws `rows` rows of mistakes, the most confident first, from number `start` (counted from 0)."""
    confidences, predictions = logits.float().softmax(1).max(1)
    mistakes = most_confident_mistakes(logits, labels)
    shown = mistakes[start : start + rows * COLUMNS].tolist()
    channels, height, width = images.shape[1:]
    page = np.full((rows, height + CAPTION, COLUMNS, width + GAP, channels), 255, np.uint8)
    figure = new_figure(height=(HEIGHT - TITLE_HEIGHT) / ROWS * rows + TITLE_HEIGHT, layout=None)
    axes = figure.add_axes((0, 0, 1, 1 - TITLE_HEIGHT / figure.get_figheight()))
    for place, index in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        page[row, :height, column, GAP // 2 : -GAP // 2] = 255 - images[index].permute(1, 2, 0).cpu().numpy()
        caption = f"{labels[index]} as {predictions[index]}\n{100 * confidences[index]:.0f} %"
        x, y = (column + 0.5) * (width + GAP), row * (height + CAPTION) + height
        axes.text(x, y, caption, ha="center", va="top", linespacing=1.0)
    axes.imshow(page.reshape(rows * (height + CAPTION), COLUMNS * (width + GAP), channels), cmap="gray", aspect="auto")
    axes.set_axis_off()
    part = f": {start + 1} to {start + len(shown)}, most confident first" if len(mistakes) > len(shown) else ""
    axes.set_title(f"{len(mistakes):,} of {len(labels):,} misclassified{part}")
    return figure


def most_confident_mistakes(
    logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]
) -> Int64[Tensor, " mistakes"]:
    """Returns the indices of the misclassified images, the most confident prediction first."""
    confidences, predictions = logits.float().softmax(1).max(1)
    mistakes = (predictions != labels).nonzero().flatten()
    return mistakes[confidences[mistakes].argsort(descending=True)]

"""Draws the misclassified test images, each with its class, its prediction and the confidence of the prediction."""

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import HEIGHT, new_figure, style

COLUMNS, ROWS = 10, 4
TITLE = 0.2  # inches
GAP, WORDS = 6, 20  # pixels of an image's kind: between two, and below one


@style
def draw_mistakes(
    images: UInt8[Tensor, "images channels height width"],
    labels: Int64[Tensor, " images"],
    logits: Float[Tensor, "images classes"],
    start: int = 0,
    rows: int = ROWS,
) -> Figure:
    """The surest first; those from the `start`th on."""
    sureness, guesses = logits.float().softmax(1).max(1)
    wrong = surest_mistakes(logits, labels)
    shown = wrong[start : start + rows * COLUMNS].tolist()
    channels, height, width = images.shape[1:]
    page = np.full((rows, height + WORDS, COLUMNS, width + GAP, channels), 255, np.uint8)
    figure = new_figure(height=(HEIGHT - TITLE) / ROWS * rows + TITLE, layout=None)
    axes = figure.add_axes((0, 0, 1, 1 - TITLE / figure.get_figheight()))
    for place, index in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        page[row, :height, column, GAP // 2 : -GAP // 2] = 255 - images[index].permute(1, 2, 0).cpu().numpy()
        words = f"{labels[index]} as {guesses[index]}\n{100 * sureness[index]:.0f} %"
        x, y = (column + 0.5) * (width + GAP), row * (height + WORDS) + height
        axes.text(x, y, words, ha="center", va="top", linespacing=1.0)
    axes.imshow(page.reshape(rows * (height + WORDS), COLUMNS * (width + GAP), channels), cmap="gray", aspect="auto")
    axes.set_axis_off()
    which = f": {start + 1} to {start + len(shown)}, the surest first" if len(wrong) > len(shown) else ""
    axes.set_title(f"{len(wrong):,} of {len(labels):,} wrong{which}")
    return figure


def surest_mistakes(
    logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]
) -> Int64[Tensor, " mistakes"]:
    """Which images, the surest first."""
    sureness, guesses = logits.float().softmax(1).max(1)
    wrong = (guesses != labels).nonzero().flatten()
    return wrong[sureness[wrong].argsort(descending=True)]

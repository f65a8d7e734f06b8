"""Draws the misclassified test samples, each with its class, its prediction and the confidence of the prediction."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import HEIGHT, TITLE_HEIGHT, WIDTH, new_figure, style

ROWS = 4  # on a page
GAP = 6  # pixels between two pictures
CAPTION = 20 / 28  # height below a picture, as a share of that of the picture


@style
def draw_mistakes(
    pictures: Callable[[Int64[Tensor, " some"]], UInt8[Tensor, "some channels height width"]],
    mistakes: Int64[Tensor, " mistakes"], labels: Int64[Tensor, " images"], logits: Float[Tensor, "images classes"],
    names: Sequence[str], page_number: int = 1, rows: int = ROWS,
) -> Figure:  # fmt: skip
    """Draws the page with this number, of `rows` rows. `mistakes` are the indices that most_confident_mistakes returns.

    `pictures` returns those of given indices; `names` are those of the classes.
    """
    channels, height, width = pictures(torch.zeros(1, dtype=torch.long)).shape[1:]
    columns, caption_height = columns_for(height, width), round(CAPTION * height)
    start = (page_number - 1) * rows * columns
    shown = mistakes[start : start + rows * columns]
    confidences, predictions = (each.tolist() for each in logits[shown].float().softmax(1).max(1))
    drawn = zip(pictures(shown), labels[shown].tolist(), predictions, confidences, strict=True)
    page = np.full((rows, height + caption_height, columns, width + GAP, channels), 255, np.uint8)
    figure = new_figure(height=(HEIGHT - TITLE_HEIGHT) / ROWS * rows + TITLE_HEIGHT, layout=None)
    axes = figure.add_axes((0, 0, 1, 1 - TITLE_HEIGHT / figure.get_figheight()))
    for place, (image, label, prediction, confidence) in enumerate(drawn):
        row, column = divmod(place, columns)
        pixels = image.permute(1, 2, 0).numpy()
        page[row, :height, column, GAP // 2 : -GAP // 2] = 255 - pixels if channels == 1 else pixels
        caption = f"{names[label]} as {names[prediction]}\n{100 * confidence:.0f} %"
        x, y = (column + 0.5) * (width + GAP), row * (height + caption_height) + height
        axes.text(x, y, caption, ha="center", va="top", linespacing=1.0)
    whole = page.reshape(rows * (height + caption_height), columns * (width + GAP), channels)
    axes.imshow(whole, cmap="gray", aspect="auto")
    axes.set_axis_off()
    part = f": {start + 1} to {start + len(shown)}, most confident first" if len(mistakes) > len(shown) else ""
    axes.set_title(f"{len(mistakes):,} of {len(labels):,} misclassified{part}")
    return figure


def columns_for(height: int, width: int) -> int:
    """Returns how many pictures of this size stand in a row, so that they keep their shape."""
    page_height = ROWS * round((1 + CAPTION) * height)
    return max(1, int(WIDTH / (HEIGHT - TITLE_HEIGHT) * page_height / (width + GAP)))


def most_confident_mistakes(
    logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]
) -> Int64[Tensor, " mistakes"]:
    """Returns the indices of the misclassified images, the most confident prediction first."""
    confidences, predictions = logits.float().softmax(1).max(1)
    mistakes = (predictions != labels).nonzero().flatten()
    return mistakes[confidences[mistakes].argsort(descending=True)]

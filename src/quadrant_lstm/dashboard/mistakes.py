"""Test images that were taken for something else -> a picture: what each is, what it was taken for, how surely.

python -m quadrant_lstm.dashboard.mistakes RUN FILE    draws those of a finished run
"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.dashboard.palette import new_figure

COLUMNS = 12
MOST = 10 * COLUMNS


def draw_mistakes(
    images: UInt8[Tensor, "images channels height width"],
    labels: Int64[Tensor, " images"],
    logits: Float[Tensor, "images classes"],
) -> Figure:
    """The surest first; of many, the first ten rows."""
    sureness, guesses = logits.float().softmax(1).max(1)
    wrong = surest_mistakes(logits, labels)
    shown = wrong[:MOST].tolist()
    rows = max(1, -(-len(shown) // COLUMNS))
    channels, height, width = images.shape[1:]
    room = height // 2  # for the words below a digit
    page = np.full((rows, height + room, COLUMNS, width + 2, channels), 255, np.uint8)
    figure = new_figure(0.85 * COLUMNS, 0.85 * 1.4 * rows + 0.4)
    axes = figure.subplots()
    for place, index in enumerate(shown):
        row, column = divmod(place, COLUMNS)
        page[row, :height, column, 1:-1] = 255 - images[index].permute(1, 2, 0).cpu().numpy()
        words = f"{labels[index]} as {guesses[index]}, {100 * sureness[index]:.0f}"
        x, y = (column + 0.5) * (width + 2), row * (height + room) + height + room / 3
        axes.text(x, y, words, ha="center", va="center", fontsize=8)
    axes.imshow(page.reshape(rows * (height + room), COLUMNS * (width + 2), channels), cmap="gray", aspect="auto")
    axes.set_axis_off()
    most = f", the {len(shown)} surest" if len(wrong) > len(shown) else ""
    axes.set_title(
        f"{len(wrong):,} of {len(labels):,} test images are taken for another; how surely, in %{most}", fontsize=10
    )
    return figure


def surest_mistakes(
    logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]
) -> Int64[Tensor, " mistakes"]:
    """Which images, the surest first."""
    sureness, guesses = logits.float().softmax(1).max(1)
    wrong = (guesses != labels).nonzero().flatten()
    return wrong[sureness[wrong].argsort(descending=True)]


if __name__ == "__main__":
    from quadrant_lstm.run.evaluate import tested

    classifier, data = tested(Path(sys.argv[1]), "auto")
    images, labels = data.test[: len(classifier.test_labels)]
    draw_mistakes(images, labels, classifier.test_logits[:, -1]).savefig(sys.argv[2])

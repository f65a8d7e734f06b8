"""Draws a confusion matrix, and the share of misclassified images in each class.

Rows of the matrix are true classes, columns predicted classes.
"""

from collections.abc import Sequence

from jaxtyping import Int64
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import CORRECT, MAX_LABELLED_CLASSES, new_figure, style


@style
def draw_confusion(matrix: Int64[Tensor, "classes classes"], names: Sequence[str]) -> Figure:
    """`names` are those of the classes."""
    num_classes = len(matrix)
    figure = new_figure()
    axes = figure.subplots()
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    # the root makes 1 % visible
    axes.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto")
    if num_classes <= MAX_LABELLED_CLASSES:
        for row in range(num_classes):
            for column in range(num_classes):
                if count := int(matrix[row, column]):
                    colour = "white" if shares[row, column] > 0.3 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour)
        axes.set_xticks(range(num_classes), names)
        axes.set_yticks(range(num_classes), names)
    correct, total = int(matrix.diagonal().sum()), int(matrix.sum())
    axes.set(xlabel="predicted class", ylabel="true class", title=f"{correct:,} of {total:,} test samples correct")
    return figure


@style
def draw_classes(matrix: Int64[Tensor, "classes classes"], names: Sequence[str]) -> Figure:
    counts, correct = matrix.sum(1).tolist(), matrix.diagonal().tolist()
    errors = [100 * (1 - hits / max(1, count)) for hits, count in zip(correct, counts, strict=True)]
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.bar(range(len(errors)), errors, color=CORRECT)
    if len(errors) <= MAX_LABELLED_CLASSES:
        texts = [f"{error:.1f}\n{count - hits:,}" for error, hits, count in zip(errors, correct, counts, strict=True)]
        axes.bar_label(bars, texts, padding=1)
        axes.set_xticks(range(len(errors)), names)
    axes.margins(y=0.25)
    axes.set(xlabel="class", ylabel="error, %", title="misclassified test samples: share (%) and number")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

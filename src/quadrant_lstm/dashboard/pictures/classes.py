"""Draws the share of misclassified images in each class, from the confusion matrix of the test."""

from jaxtyping import Int64
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import CORRECT, new_figure, style


@style
def draw_classes(matrix: Int64[Tensor, "classes classes"]) -> Figure:
    """Rows of `matrix` are true classes, columns predicted classes."""
    counts, correct = matrix.sum(1).tolist(), matrix.diagonal().tolist()
    errors = [100 * (1 - hits / max(1, count)) for hits, count in zip(correct, counts, strict=True)]
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.bar(range(len(errors)), errors, color=CORRECT)
    if len(errors) <= 10:  # labels of more bars would overlap
        texts = [f"{error:.1f}\n{count - hits:,}" for error, hits, count in zip(errors, correct, counts, strict=True)]
        axes.bar_label(bars, texts, padding=1)
        axes.set_xticks(range(len(errors)))
    axes.margins(y=0.25)
    axes.set(xlabel="class", ylabel="error, %", title="misclassified test images: share (%) and number")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

"""A confusion matrix -> a picture: the share of each class that was taken for another."""

from jaxtyping import Int64
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.plotting import RIGHT, new_figure, style


@style
def draw_classes(matrix: Int64[Tensor, "classes classes"]) -> Figure:
    counts, right = matrix.sum(1).tolist(), matrix.diagonal().tolist()
    errors = [100 * (1 - good / max(1, count)) for good, count in zip(right, counts, strict=True)]
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.bar(range(len(errors)), errors, color=RIGHT)
    if len(errors) <= 10:
        words = [f"{error:.1f}\n{count - good:,}" for error, good, count in zip(errors, right, counts, strict=True)]
        axes.bar_label(bars, words, padding=1)
        axes.set_xticks(range(len(errors)))
    axes.margins(y=0.25)
    axes.set(xlabel="class", ylabel="error, %", title="test images taken for another: %, and how many")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

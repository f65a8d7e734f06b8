"""A confusion matrix -> a picture: rows are what an image is, columns what was said of it."""

from jaxtyping import Int64
from matplotlib.figure import Figure
from torch import Tensor

from quadrant_lstm.dashboard.palette import new_figure


def draw_confusion(matrix: Int64[Tensor, "classes classes"]) -> Figure:
    num_classes = len(matrix)
    figure = new_figure(6.4, 5.6)
    axes = figure.subplots()
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    picture = axes.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=1)
    if num_classes <= 20:  # more would not be legible
        for row in range(num_classes):
            for column in range(num_classes):
                if count := int(matrix[row, column]):
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(num_classes))
        axes.set_yticks(range(num_classes))
    correct, total = int(matrix.diagonal().sum()), int(matrix.sum())
    axes.set(xlabel="predicted", ylabel="true", title=f"test images: {correct:,} of {total:,} right")
    figure.colorbar(picture, label="share of the row")
    return figure

"""What was said of the test images, and how surely -> a picture: of those said with 80 %, are 80 % right?"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from quadrant_lstm.plotting import GREY, RIGHT, new_figure, style

BINS = 15


def expected_calibration_error(logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]) -> float:
    """ECE of Guo et al. 2017 (arXiv 1706.04599): the mean distance of sureness and accuracy over bins of sureness."""
    error = multiclass_calibration_error(logits.float().softmax(1), labels, logits.shape[1], n_bins=BINS, norm="l1")
    return error.item()


@style
def draw_calibration(logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]) -> Figure:
    sureness, guesses = logits.float().softmax(1).max(1)
    right = (guesses == labels).float()
    edges = torch.linspace(0, 1, BINS + 1)
    bins = torch.bucketize(sureness.cpu(), edges[1:-1])
    counts = bins.bincount(minlength=BINS)
    accuracy = bins.bincount(right.cpu(), minlength=BINS) / counts.clamp(min=1)
    centres, width = ((edges[1:] + edges[:-1]) / 2).numpy(), 0.92 / BINS
    figure = new_figure()
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as sure as right")
    above.bar(centres, np.where(counts > 0, accuracy, 0), width, color=RIGHT)
    error = expected_calibration_error(logits, labels)
    above.set(ylabel="right", xlim=(0, 1), ylim=(0, 1), title=f"expected calibration error {error:.2%}")
    above.legend(loc="upper left")
    below.bar(centres, counts.numpy(), width, color=GREY)
    below.set(xlabel="how surely it was said", ylabel="images", yscale="symlog")
    return figure

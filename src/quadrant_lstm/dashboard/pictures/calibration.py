"""Draws a reliability diagram: are 80 % of the predictions with a confidence of 80 % correct?"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from quadrant_lstm.plotting import CORRECT, GREY, new_figure, style
from quadrant_lstm.text import percent

BINS = 15


def expected_calibration_error(logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]) -> float:
    """ECE of Guo et al. 2017 (arXiv 1706.04599): mean distance between confidence and accuracy over confidence bins."""
    error = multiclass_calibration_error(logits.float().softmax(1), labels, logits.shape[1], n_bins=BINS, norm="l1")
    return error.item()


@style
def draw_calibration(logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]) -> Figure:
    confidences, predictions = logits.float().softmax(1).max(1)
    correct = (predictions == labels).float()
    edges = torch.linspace(0, 1, BINS + 1)
    bins = torch.bucketize(confidences, edges[1:-1])
    counts = bins.bincount(minlength=BINS)
    accuracy = bins.bincount(correct, minlength=BINS) / counts.clamp(min=1)
    centres, width = ((edges[1:] + edges[:-1]) / 2).numpy(), 0.92 / BINS
    figure = new_figure()
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
    above.bar(centres, np.where(counts > 0, accuracy, 0), width, color=CORRECT)
    error = expected_calibration_error(logits, labels)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=f"expected calibration error {percent(error)}")
    above.legend(loc="upper left")
    below.bar(centres, counts.numpy(), width, color=GREY)
    below.set(xlabel="confidence", ylabel="samples", yscale="symlog", yticks=[0, 10, 1000])
    below.yaxis.set_major_formatter("{x:,.0f}")
    return figure

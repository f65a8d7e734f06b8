"""Draws the predictions of a network: after each step, by class, by confidence, and the mistakes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from quadrant_lstm import plotting
from quadrant_lstm.dashboard.pictures.data import shown_frames
from quadrant_lstm.plotting import CORRECT, GREY, HEIGHT, TITLE_HEIGHT, WIDTH, WRONG, new_axes, new_figure
from quadrant_lstm.text import percent

# Class probabilities after each step


MAX_BARS = 6  # steps; more, or wide frames, leave no room for bars
FRAME, BARS = (0.06, 0.36), (0.42, 0.94)  # where the two parts of a step start and end, as shares of its width


def draw_belief(
    frames: UInt8[Tensor, "frames channels height width"], logits: Float[Tensor, "steps classes"], label: int,
    names: Sequence[str], title: str,
) -> Figure:  # fmt: skip
    """Blue stands for the true class, red for a predicted class that is wrong. `names` are those of the classes."""
    figure = new_figure()
    figure.suptitle(title)
    is_tall = frames.shape[2] >= 2 * frames.shape[3]
    draw = draw_bars if is_tall and len(frames) <= MAX_BARS else draw_strip
    draw(figure, frames.permute(0, 2, 3, 1).numpy(), logits.float().softmax(-1).numpy(), label, names)
    return figure


def draw_bars(figure: Figure, frames: np.ndarray, probabilities: np.ndarray, label: int, names: Sequence[str]) -> None:
    """Draws bars for the probabilities to the right of each frame."""
    num_steps, num_classes = probabilities.shape
    axes = figure.subplots(subplot_kw={"xlim": (0, num_steps), "ylim": (num_classes - 0.5, -0.5)})
    plotting.blank(axes)
    set_class_ticks(axes, names)
    axes.tick_params(length=0)
    tick_labels = []
    for step in range(num_steps):
        left, right, below, above = extent = (step + FRAME[0], step + FRAME[1], num_classes - 0.5, -0.5)
        axes.imshow(frames[step], cmap="gray_r", vmin=0, vmax=255, extent=extent, aspect="auto")
        axes.add_patch(Rectangle((left, above), right - left, below - above, fill=False, edgecolor=GREY, linewidth=0.6))
        predicted = int(probabilities[step].argmax())
        colours = [CORRECT if i == label else WRONG if i == predicted else GREY for i in range(num_classes)]
        widths = (BARS[1] - BARS[0]) * probabilities[step]
        axes.barh(range(num_classes), widths, left=step + BARS[0], color=colours, height=0.75)
        axes.plot([step + BARS[0]] * 2, [-0.5, num_classes - 0.5], color=GREY, linewidth=0.6)
        tick_labels.append(f"step {step + 1}\n{names[predicted]}: {probabilities[step, predicted]:.0%}")
    axes.set_xticks([step + 0.5 for step in range(num_steps)], tick_labels)


def draw_strip(figure: Figure, frames: np.ndarray, probabilities: np.ndarray, label: int, names: Sequence[str]) -> None:
    """Draws some frames above a map of the probabilities, which has a column per step and a dot per prediction. The
    picture of a series is a single frame.
    """
    num_steps = len(probabilities)
    is_clip = len(frames) == num_steps
    shown = shown_frames(len(frames))
    rows: Any = figure.subfigures(2, 1, height_ratios=[1, 2.2])
    for axes, step in zip(rows[0].subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.imshow(frames[step], cmap="gray_r", vmin=0, vmax=255, aspect="equal" if is_clip else "auto")
        axes.set(xticks=[], yticks=[])
        if is_clip:
            axes.set_title(f"step {step + 1}")
    axes = rows[1].subplots()
    extent = (0.5, num_steps + 0.5, len(names) - 0.5, -0.5)
    axes.imshow(probabilities.T, cmap="Greys", vmin=0, vmax=1.5, aspect="auto", extent=extent)
    predictions = probabilities.argmax(1)
    colours = [CORRECT if predicted == label else WRONG for predicted in predictions]
    axes.scatter(range(1, num_steps + 1), predictions, color=colours, s=12)
    axes.axhline(label, color=CORRECT, linewidth=0.6, zorder=0)
    axes.set(xlabel=f"step; class {names[label]} is true, and dots are predictions")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    set_class_ticks(axes, names)


def set_class_ticks(axes: Axes, names: Sequence[str]) -> None:
    labelled = names if len(names) <= plotting.MAX_LABELLED_CLASSES else []
    axes.set_yticks(range(len(labelled)), labelled)


# The confusion matrix, and the share of misclassified images in each class


def draw_confusion(matrix: Int64[Tensor, "classes classes"], names: Sequence[str]) -> Figure:
    """`names` are those of the classes."""
    title = f"{int(matrix.diagonal().sum()):,} of {int(matrix.sum()):,} test samples correct"
    figure, axes = new_axes(xlabel="predicted class", ylabel="true class", title=title)
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    # the root makes 1 % visible
    axes.imshow(shares.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto")
    if len(names) <= plotting.MAX_LABELLED_CLASSES:
        counts = [[str(count or "") for count in row] for row in matrix.tolist()]
        plotting.label_cells(axes, counts, (shares > 0.3).tolist())
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
    return figure


def draw_classes(matrix: Int64[Tensor, "classes classes"], names: Sequence[str]) -> Figure:
    title = "misclassified test samples: share (%) and number"
    figure, axes = new_axes(xlabel="class", ylabel="error, %", title=title)
    counts = matrix.sum(1)
    mistakes = counts - matrix.diagonal()
    errors = (100 * mistakes.double() / counts.clamp(min=1)).tolist()
    bars = axes.bar(range(len(errors)), errors, color=CORRECT)
    if len(errors) <= plotting.MAX_LABELLED_CLASSES:
        labelled = zip(errors, mistakes.tolist(), counts, strict=True)
        texts = [f"{error:.1f}\n{number:,}" if count else "no samples" for error, number, count in labelled]
        axes.bar_label(bars, texts, padding=1)
        axes.set_xticks(range(len(errors)), names)
    axes.set_ylim(0, 1.25 * max(errors) or 1)  # room for the labels
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# Reliability: are 80 % of the predictions with a confidence of 80 % correct?


BINS = 15


def draw_calibration(logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]) -> Figure:
    probabilities = logits.float().softmax(1)
    confidences, predictions = probabilities.max(1)
    edges = torch.linspace(0, 1, BINS + 1)
    bins = torch.bucketize(confidences, edges[1:-1])
    counts = bins.bincount(minlength=BINS)
    accuracy = bins.bincount((predictions == labels).float(), minlength=BINS) / counts.clamp(min=1)
    # ECE of Guo et al. 2017 (arXiv 1706.04599): mean distance between confidence and accuracy over confidence bins
    error = multiclass_calibration_error(probabilities, labels, logits.shape[1], n_bins=BINS, norm="l1").item()
    centres, width = ((edges[1:] + edges[:-1]) / 2).numpy(), 0.92 / BINS
    figure = new_figure()
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
    above.bar(centres, accuracy.numpy(), width, color=CORRECT)
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=f"expected calibration error {percent(error)}")
    above.legend(loc="upper left")
    below.bar(centres, counts.numpy(), width, color=GREY)
    below.set(xlabel="confidence", ylabel="samples", yscale="symlog", yticks=[0, 10, 1000])
    below.yaxis.set_major_formatter("{x:,.0f}")
    return figure


# Misclassified test samples


ROWS = 4  # in a picture of the usual height
GAP = 6  # pixels between two pictures
CAPTION = 20 / 28  # height below a picture, as a share of that of the picture


def draw_mistakes(
    pictures: UInt8[Tensor, "shown channels height width"], labels: Int64[Tensor, " shown"],
    logits: Float[Tensor, "shown classes"], names: Sequence[str], title: str, rows: int = ROWS,
) -> Figure:  # fmt: skip
    """Draws misclassified samples with their classes and predictions. `names` are those of the classes."""
    _, channels, height, width = pictures.shape
    columns, caption_height = columns_for(height, width), round(CAPTION * height)
    confidences, predictions = (values.tolist() for values in logits.float().softmax(1).max(1))
    page = np.full((rows, height + caption_height, columns, width + GAP, channels), 255, np.uint8)
    figure, axes = plotting.titled_page((HEIGHT - TITLE_HEIGHT) / ROWS * rows)
    for place, (image, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        row, column = divmod(place, columns)
        pixels = image.permute(1, 2, 0).numpy()
        page[row, :height, column, GAP // 2 : -GAP // 2] = 255 - pixels if channels == 1 else pixels
        caption = f"{names[label]} as {names[predictions[place]]}\n{100 * confidences[place]:.0f} %"
        x, y = (column + 0.5) * (width + GAP), row * (height + caption_height) + height
        axes.text(x, y, caption, ha="center", va="top", linespacing=1.0)
    whole = page.reshape(rows * (height + caption_height), columns * (width + GAP), channels)
    axes.imshow(whole, cmap="gray", aspect="auto")
    axes.set_title(title)
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

"""Measures and draws a network's accuracy when one piece of the image or one ordering is occluded."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.network_inputs import BATCH_SIZE, as_arguments
from quadrant_lstm.data.orderings import QUADRANTS, frames_of, occlude_piece, ordering_name
from quadrant_lstm.kinds import Grid, Orderings
from quadrant_lstm.model.protocols import Lengths
from quadrant_lstm.plotting import CORRECT, GREY, MAX_LABELLED_CLASSES, new_figure, style

MAX_ROWS = 9  # pieces; the accuracies of more are drawn as a map


def is_correct(
    network: nn.Module, frames: Tensor, labels: Int64[Tensor, " samples"], lengths: Lengths = None
) -> Int64[Tensor, " samples"]:
    """Returns 1 for each sample whose predicted class is its label, and 0 for the others. Samples are on the CPU."""
    predictions = []
    with torch.inference_mode():
        for start in range(0, len(frames), BATCH_SIZE):
            some = slice(start, start + BATCH_SIZE)
            inputs, padded = as_arguments(frames[some], None if lengths is None else lengths[some], network)
            predictions.append(network(inputs, **padded).argmax(1).cpu())
    return torch.eq(torch.cat(predictions), labels).long()


def correct_by_occluded_piece(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Orderings, grid: Grid,
) -> Int64[Tensor, "pieces images"]:  # fmt: skip
    pieces = range(1, math.prod(grid) + 1)
    occluded = (frames_of(occlude_piece(images, piece, grid), orderings, grid) for piece in pieces)
    return torch.stack([is_correct(network, frames, labels) for frames in occluded])


def correct_by_occluded_ordering(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Orderings, grid: Grid,
) -> Int64[Tensor, "orderings images"]:  # fmt: skip
    """Blanks the pieces of one ordering in every frame, so `network` must encode each frame in full."""
    rows = images.shape[2] // grid[0]
    correct = []
    for place in range(len(orderings)):
        frames = frames_of(images, orderings, grid)
        frames[..., place * rows : (place + 1) * rows, :] = 0
        correct.append(is_correct(network, frames, labels))
    return torch.stack(correct)


@style
def draw_occluded_pieces(
    correct: Int64[Tensor, "pieces images"], labels: Int64[Tensor, " images"], grid: Grid, names: Sequence[str]
) -> Figure:
    """Draws the accuracy as a matrix with one row per occluded piece and one column per class, or for more than
    MAX_ROWS pieces as a map of the image.
    """
    if len(correct) > MAX_ROWS:
        return draw_map(correct, grid)
    num_classes = len(names)
    counts = labels.bincount(minlength=num_classes).clamp(min=1)
    shares = torch.stack([100 * labels.bincount(row.float(), minlength=num_classes) / counts for row in correct])
    figure = new_figure()
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    if num_classes <= MAX_LABELLED_CLASSES:
        for row, share in enumerate(shares.tolist()):
            for column, value in enumerate(share):
                colour = "white" if value > 55 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(num_classes), names)
    means = 100 * correct.float().mean(1)
    axes.set_yticks(range(len(correct)), [f"{number}: {mean:.1f} %" for number, mean in enumerate(means.tolist(), 1)])
    axes.set(
        xlabel="class",
        ylabel="occluded quadrant" if tuple(grid) == QUADRANTS else "occluded piece",
        title=f"accuracy on {len(labels):,} test images, %",
    )
    return figure


def draw_map(correct: Int64[Tensor, "pieces images"], grid: Grid) -> Figure:
    means = (100 * correct.float().mean(1)).unflatten(0, tuple(grid)).numpy()
    figure = new_figure()
    axes = figure.subplots()
    shown = axes.imshow(means, cmap="Blues_r")
    figure.colorbar(shown, ax=axes)
    axes.set(xticks=[], yticks=[], title=f"accuracy without each piece, {correct.shape[1]:,} test images, %")
    return figure


@style
def draw_occluded_orderings(
    correct: Int64[Tensor, "orderings images"], orderings: Orderings, grid: Grid, unoccluded: Int64[Tensor, " images"]
) -> Figure:
    """`unoccluded` is 1 for each image that is classified correctly when nothing is occluded."""
    shares = (100 * torch.cat([unoccluded[None], correct]).float().mean(1)).tolist()
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.barh(
        ["none", *(ordering_name(ordering, grid) for ordering in orderings)],
        shares,
        color=[GREY] + [CORRECT] * len(orderings),
    )
    axes.bar_label(bars, [f"{bar.get_width():.1f}" for bar in bars], padding=2)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), ylabel="occluded ordering")
    axes.set_title(f"accuracy on {correct.shape[1]:,} test images, %")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

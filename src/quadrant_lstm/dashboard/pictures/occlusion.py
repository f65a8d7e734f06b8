"""Measures and draws a network's accuracy when one quadrant or one ordering is occluded."""

import torch
from jaxtyping import Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.tabs import BATCH_SIZE, as_inputs
from quadrant_lstm.data.orderings import ordering_name, sequences
from quadrant_lstm.data.quadrants import occlude_quadrant
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.plotting import CORRECT, GREY, new_figure, style


def is_correct(network: nn.Module, frames: Tensor, labels: Int64[Tensor, " images"]) -> Int64[Tensor, " images"]:
    """Returns 1 for each image whose predicted class is its label, and 0 for the others."""
    with torch.inference_mode():
        predictions = [network(as_inputs(batch, network)).argmax(1) for batch in frames.split(BATCH_SIZE)]
    return (torch.cat(predictions) == labels).long()


def correct_by_occluded_quadrant(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Orderings,
) -> Int64[Tensor, "4 images"]:  # fmt: skip
    occluded = [sequences(occlude_quadrant(images, quadrant), orderings) for quadrant in range(1, 5)]
    return torch.stack([is_correct(network, frames, labels) for frames in occluded])


def correct_by_occluded_ordering(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Orderings,
) -> Int64[Tensor, "orderings images"]:  # fmt: skip
    """Blanks the quadrants of one ordering in every frame, so `network` must encode each frame in full."""
    rows = images.shape[2] // 2
    correct = []
    for place in range(len(orderings)):
        frames = sequences(images, orderings)
        frames[..., place * rows : (place + 1) * rows, :] = 0
        correct.append(is_correct(network, frames, labels))
    return torch.stack(correct)


@style
def draw_occluded_quadrants(correct: Int64[Tensor, "4 images"], labels: Int64[Tensor, " images"]) -> Figure:
    """Draws the accuracy as a matrix with one row per occluded quadrant and one column per class."""
    num_classes = int(labels.max()) + 1
    counts = labels.bincount(minlength=num_classes).clamp(min=1)
    shares = torch.stack([100 * labels.bincount(row.float(), minlength=num_classes) / counts for row in correct])
    figure = new_figure()
    axes = figure.subplots()
    axes.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    if num_classes <= 10:  # numbers for more classes would not be legible
        for row, share in enumerate(shares.tolist()):
            for column, value in enumerate(share):
                colour = "white" if value > 55 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(num_classes))
    means = 100 * correct.float().mean(1)
    axes.set_yticks(range(4), [f"{number}: {mean:.1f} %" for number, mean in enumerate(means.tolist(), 1)])
    axes.set(xlabel="class", ylabel="occluded quadrant", title=f"accuracy on {len(labels):,} test images, %")
    return figure


@style
def draw_occluded_orderings(
    correct: Int64[Tensor, "orderings images"], orderings: Orderings, unoccluded: Int64[Tensor, " images"]
) -> Figure:
    """`unoccluded` is 1 for each image that is classified correctly when nothing is occluded."""
    shares = (100 * torch.cat([unoccluded[None], correct]).float().mean(1)).tolist()
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.barh(["none", *map(ordering_name, orderings)], shares, color=[GREY] + [CORRECT] * len(orderings))
    axes.bar_label(bars, [f"{bar.get_width():.1f}" for bar in bars], padding=2)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), ylabel="occluded ordering")
    axes.set_title(f"accuracy on {correct.shape[1]:,} test images, %")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

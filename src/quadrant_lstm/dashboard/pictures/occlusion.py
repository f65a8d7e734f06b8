"""What a network needs -> pictures: how often it is right when a quadrant is hidden, and when an ordering is."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.tabs import BATCH
from quadrant_lstm.data.orderings import sequences, spelled
from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.data.quadrants import occlude_quadrant
from quadrant_lstm.plotting import GREY, RIGHT, new_figure, style


def right(network: nn.Module, frames: Tensor, labels: Int64[Tensor, " images"]) -> Int64[Tensor, " images"]:
    """1 where it is right."""
    with torch.inference_mode():
        guesses = [network(scaled(batch)).argmax(1) for batch in frames.split(BATCH)]
    return (torch.cat(guesses) == labels).long()


def with_occluded_quadrants(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Sequence[Sequence[int]],
) -> Int64[Tensor, "4 images"]:  # fmt: skip
    hidden = [sequences(occlude_quadrant(images, quadrant), orderings) for quadrant in range(1, 5)]
    return torch.stack([right(network, frames, labels) for frames in hidden])


def with_occluded_orderings(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Sequence[Sequence[int]],
) -> Int64[Tensor, "orderings images"]:  # fmt: skip
    """Its quadrants are blank in every frame, so `network` must encode each frame in full."""
    rows = images.shape[2] // 2
    found = []
    for place in range(len(orderings)):
        frames = sequences(images, orderings)
        frames[..., place * rows : (place + 1) * rows, :] = 0
        found.append(right(network, frames, labels))
    return torch.stack(found)


@style
def draw_occluded_quadrants(right: Int64[Tensor, "4 images"], labels: Int64[Tensor, " images"]) -> Figure:
    """A row a quadrant, a column a class."""
    num_classes = int(labels.max()) + 1
    counts = labels.bincount(minlength=num_classes).clamp(min=1)
    shares = torch.stack([100 * labels.bincount(one.float(), minlength=num_classes) / counts for one in right])
    figure = new_figure()
    axes = figure.subplots()
    axes.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    if num_classes <= 10:  # more would not be legible
        for row, share in enumerate(shares.tolist()):
            for column, value in enumerate(share):
                colour = "white" if value > 55 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(num_classes))
    means = 100 * right.float().mean(1)
    axes.set_yticks(range(4), [f"{number}: {mean:.1f} %" for number, mean in enumerate(means.tolist(), 1)])
    axes.set(xlabel="class", ylabel="hidden quadrant", title=f"right when a quadrant is hidden, % of {len(labels):,}")
    return figure


@style
def draw_occluded_orderings(
    right: Int64[Tensor, "orderings images"], orderings: Sequence[Sequence[int]], whole: Int64[Tensor, " images"]
) -> Figure:
    """`whole` says where it is right with nothing hidden."""
    shares = (100 * torch.cat([whole[None], right]).float().mean(1)).tolist()
    figure = new_figure()
    axes = figure.subplots()
    bars = axes.barh(["nothing", *map(spelled, orderings)], shares, color=[GREY] + [RIGHT] * len(orderings))
    axes.bar_label(bars, [f"{bar.get_width():.1f}" for bar in bars], padding=2)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), ylabel="hidden ordering")
    axes.set_title(f"right when an ordering is hidden, % of {right.shape[1]:,}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

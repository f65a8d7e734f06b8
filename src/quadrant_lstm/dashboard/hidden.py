"""What a network needs -> a picture: how often it is right when a quadrant is hidden, and when an ordering is."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.palette import RIGHT, new_figure
from quadrant_lstm.dashboard.tabs import BATCH, as_pixels
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.data.quadrants import hide_quadrant
from quadrant_lstm.model.time_distributed import in_full


def right(network: nn.Module, frames: Tensor, labels: Int64[Tensor, " images"]) -> Int64[Tensor, " images"]:
    """1 where it is right."""
    with torch.inference_mode():
        guesses = [network(as_pixels(batch, network)).argmax(1) for batch in frames.split(BATCH)]
    return (torch.cat(guesses) == labels).long()


def with_a_quadrant_hidden(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Sequence[Sequence[int]],
) -> Int64[Tensor, "4 images"]:  # fmt: skip
    hidden = [sequences(hide_quadrant(images, quadrant), orderings) for quadrant in range(1, 5)]
    return torch.stack([right(network, frames, labels) for frames in hidden])


def with_an_ordering_hidden(
    network: nn.Module, images: UInt8[Tensor, "images channels height width"], labels: Int64[Tensor, " images"],
    orderings: Sequence[Sequence[int]],
) -> Int64[Tensor, "orderings images"]:  # fmt: skip
    """Its quadrants are blank in every frame; such frames share nothing, so each is encoded in full."""
    rows = images.shape[2] // 2
    found = []
    with in_full(network):
        for place in range(len(orderings)):
            frames = sequences(images, orderings)
            frames[..., place * rows : (place + 1) * rows, :] = 0
            found.append(right(network, frames, labels))
    return torch.stack(found)


def draw_hidden(
    quadrants: Int64[Tensor, "4 images"],
    orderings: Int64[Tensor, "orderings images"],
    names: Sequence[str],
    labels: Int64[Tensor, " images"],
    accuracy: Float[Tensor, ""] | float,
) -> Figure:
    """`accuracy` is that with nothing hidden."""
    num_classes = int(labels.max()) + 1
    counts = labels.bincount(minlength=num_classes).clamp(min=1)
    shares = [100 * labels.bincount(one.float(), minlength=num_classes) / counts for one in quadrants]
    figure = new_figure(9.6, 4.2)
    left, beside = figure.subplots(1, 2, width_ratios=[2.6, 1])
    left.imshow(torch.stack(shares).cpu().numpy(), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, share in enumerate(shares):
        for column, value in enumerate(share.tolist() if num_classes <= 20 else []):
            left.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
    means = 100 * quadrants.float().mean(1)
    left.set_yticks(range(4), [f"{number}: {mean:.1f} %" for number, mean in enumerate(means.tolist(), 1)])
    left.set(xlabel="class", ylabel="hidden quadrant", title="right when a quadrant is hidden, %")
    if num_classes <= 20:
        left.set_xticks(range(num_classes))
    without = (100 * orderings.float().mean(1)).tolist()
    bars = beside.barh(range(len(names)), without, color=RIGHT)
    beside.bar_label(bars, [f"{value:.1f}" for value in without], padding=2, fontsize=9)
    beside.set_yticks(range(len(names)), names)
    beside.invert_yaxis()
    beside.set(xlim=(0, 115), xticks=[0, 50, 100], title="... an ordering is hidden")
    beside.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{len(labels):,} test images; nothing hidden: {100 * accuracy:.1f} %", fontsize=11)
    return figure

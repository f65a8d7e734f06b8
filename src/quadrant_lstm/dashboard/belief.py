"""What a network says after each step of a few images -> a picture: the frame that it saw, and how likely each class
is to it since.
"""

from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from quadrant_lstm.dashboard.palette import GREY, RIGHT, WRONG, new_figure

FRAME, BARS = (0.03, 0.19), (0.27, 0.85)  # where a step's two parts begin and end, of a width of 1


def draw_belief(
    frames: UInt8[Tensor, "images steps channels height width"],
    logits: Float[Tensor, "images steps classes"],
    labels: Int64[Tensor, " images"],
    title: str,
) -> Figure:
    """A row an image; the bar of what it is in blue, and of another that is likelier in red."""
    probabilities = logits.float().softmax(-1).cpu().numpy()
    num_images, num_steps, num_classes = probabilities.shape
    figure = new_figure(9.6, 1.55 * max(1, num_images) + 0.6)
    rows = figure.subplots(max(1, num_images), 1, squeeze=False)[:, 0]
    figure.suptitle(title, fontsize=11)
    for axes in rows:
        axes.set(xlim=(0, num_steps), ylim=(num_classes - 0.5, -0.5), xticks=[])
        axes.set_yticks(range(num_classes) if num_classes <= 10 else [])
        axes.tick_params(labelsize=7, length=0, pad=1)
        axes.spines[:].set_visible(False)
    for index, axes in zip(range(num_images), rows, strict=False):
        label = int(labels[index])
        for step in range(num_steps):
            pixels = frames[index, step].permute(1, 2, 0).cpu().numpy()
            extent = (step + FRAME[0], step + FRAME[1], num_classes - 0.5, -0.5)
            axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=255, extent=extent, aspect="auto")
            left, right, below, above = extent
            axes.add_patch(Rectangle((left, above), right - left, below - above, fill=False, edgecolor=GREY))
            said = probabilities[index, step]
            likeliest = int(said.argmax())
            colours = [RIGHT if one == label else WRONG if one == likeliest else GREY for one in range(num_classes)]
            axes.barh(range(num_classes), (BARS[1] - BARS[0]) * said, left=step + BARS[0], color=colours, height=0.75)
            axes.plot([step + BARS[0]] * 2, [-0.5, num_classes - 0.5], color=GREY, linewidth=0.8)
            end = step + BARS[0] + (BARS[1] - BARS[0]) * said[likeliest]
            axes.text(end + 0.015, likeliest, f"{likeliest}: {said[likeliest]:.0%}", va="center", fontsize=8)
            if index == 0:
                axes.text(step + 0.5, -1.2, f"after step {step + 1}", ha="center", fontsize=9)
    return figure

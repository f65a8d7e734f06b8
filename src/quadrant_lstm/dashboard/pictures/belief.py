"""Draws the frame of each step of an image, and the class probabilities after that step."""

from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from quadrant_lstm.plotting import CORRECT, GREY, WRONG, new_figure, style

FRAME, BARS = (0.06, 0.36), (0.42, 0.94)  # where the two parts of a step start and end, as shares of its width


@style
def draw_belief(
    frames: UInt8[Tensor, "steps channels height width"], logits: Float[Tensor, "steps classes"], label: int, title: str
) -> Figure:
    """The bar of the true class is blue; that of the predicted class is red where the prediction is wrong."""
    probabilities = logits.float().softmax(-1).cpu().numpy()
    num_steps, num_classes = probabilities.shape
    figure = new_figure()
    axes = figure.subplots()
    axes.set(xlim=(0, num_steps), ylim=(num_classes - 0.5, -0.5), title=title)
    axes.set_yticks(range(num_classes) if num_classes <= 10 else [])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    tick_labels = []
    for step in range(num_steps):
        pixels = frames[step].permute(1, 2, 0).cpu().numpy()
        left, right, below, above = extent = (step + FRAME[0], step + FRAME[1], num_classes - 0.5, -0.5)
        axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=255, extent=extent, aspect="auto")
        axes.add_patch(Rectangle((left, above), right - left, below - above, fill=False, edgecolor=GREY, linewidth=0.6))
        predicted = int(probabilities[step].argmax())
        colours = [CORRECT if i == label else WRONG if i == predicted else GREY for i in range(num_classes)]
        widths = (BARS[1] - BARS[0]) * probabilities[step]
        axes.barh(range(num_classes), widths, left=step + BARS[0], color=colours, height=0.75)
        axes.plot([step + BARS[0]] * 2, [-0.5, num_classes - 0.5], color=GREY, linewidth=0.6)
        tick_labels.append(f"step {step + 1}\n{predicted}: {probabilities[step, predicted]:.0%}")
    axes.set_xticks([step + 0.5 for step in range(num_steps)], tick_labels)
    return figure

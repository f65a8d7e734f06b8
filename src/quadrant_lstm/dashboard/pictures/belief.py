"""Draws the frames of a sequence, and the class probabilities after each step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from quadrant_lstm.dashboard.pictures.clips import shown_frames
from quadrant_lstm.plotting import CORRECT, GREY, MAX_LABELLED_CLASSES, WRONG, new_figure, style

MAX_BARS = 6  # steps; more, or wide frames, leave no room for bars
FRAME, BARS = (0.06, 0.36), (0.42, 0.94)  # where the two parts of a step start and end, as shares of its width


@style
def draw_belief(
    frames: UInt8[Tensor, "steps channels height width"], logits: Float[Tensor, "steps classes"], label: int,
    names: Sequence[str], title: str,
) -> Figure:  # fmt: skip
    """Blue stands for the true class, red for a predicted class that is wrong. `names` are those of the classes."""
    figure = new_figure()
    figure.suptitle(title)
    probabilities = logits.float().softmax(-1).numpy()
    is_tall = frames.shape[2] >= 2 * frames.shape[3]
    draw = draw_bars if is_tall and len(frames) <= MAX_BARS else draw_strip
    draw(figure, frames.permute(0, 2, 3, 1).numpy(), probabilities, label, names)
    return figure


def draw_bars(figure: Figure, frames: np.ndarray, probabilities: np.ndarray, label: int, names: Sequence[str]) -> None:
    """Draws bars for the probabilities to the right of each frame."""
    num_steps, num_classes = probabilities.shape
    axes = figure.subplots()
    axes.set(xlim=(0, num_steps), ylim=(num_classes - 0.5, -0.5))
    set_class_ticks(axes, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
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
    """Draws some frames above a map of the probabilities, which has a column per step and a dot per prediction."""
    num_steps = len(frames)
    shown = shown_frames(num_steps)
    rows: Any = figure.subfigures(2, 1, height_ratios=[1, 2.2])
    for axes, step in zip(rows[0].subplots(1, len(shown)), shown, strict=True):
        axes.imshow(frames[step], cmap="gray_r", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"step {step + 1}")
    axes = rows[1].subplots()
    extent = (0.5, num_steps + 0.5, len(names) - 0.5, -0.5)
    axes.imshow(probabilities.T, cmap="Greys", vmin=0, vmax=1.5, aspect="auto", extent=extent)
    predictions = probabilities.argmax(1)
    colours = [CORRECT if predicted == label else WRONG for predicted in predictions]
    axes.scatter(range(1, num_steps + 1), predictions, color=colours, s=12)
    axes.axhline(label, color=CORRECT, linewidth=0.6, zorder=0)
    axes.set(xlabel=f"step; class {names[label]} is true, and dots are predictions")
    set_class_ticks(axes, names)


def set_class_ticks(axes: Axes, names: Sequence[str]) -> None:
    if len(names) <= MAX_LABELLED_CLASSES:
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_yticks([])

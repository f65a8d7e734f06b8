"""The rows of metrics.csv -> a picture: loss and accuracy by epoch, and the accuracy after each step."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quadrant_lstm.dashboard.palette import GREY, ORDERING_COLOURS, RIGHT, WRONG, new_figure
from quadrant_lstm.model.geometry import after_steps

PANELS = {
    "loss": {"train/loss": GREY, "val/loss": RIGHT},
    "accuracy": {"train/accuracy": GREY, "val/accuracy": RIGHT},
    "val/accuracy after each step": dict(zip(after_steps("val"), (*ORDERING_COLOURS[1:], RIGHT), strict=True)),
}


def draw_history(rows: Sequence[Mapping[str, str]], best_epoch: int) -> Figure:
    figure = new_figure(11.0, 3.6)
    for axes, (title, curves) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for name, colour in curves.items():
            draw_curve(axes, rows, name, colour)
        axes.axvline(best_epoch, color=WRONG, linewidth=1, linestyle=":")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines[:-1]:
            axes.legend(frameon=False, fontsize=8)
    return figure


def draw_curve(axes: Axes, rows: Sequence[Mapping[str, str]], name: str, colour: str) -> None:
    points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
    if points:
        label = name.replace("val/accuracy_step_", "step ")
        axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="o", markersize=3)

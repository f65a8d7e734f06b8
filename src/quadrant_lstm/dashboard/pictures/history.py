"""The rows of metrics.csv -> pictures: loss and accuracy by epoch, and the accuracy after each step."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quadrant_lstm.data.frames import after_steps
from quadrant_lstm.plotting import GREY, ORDERING_COLOURS, RIGHT, WRONG, new_figure, style

HISTORIES = {
    "Loss by epoch": {"train/loss": GREY, "val/loss": RIGHT},
    "Accuracy by epoch": {"train/accuracy": GREY, "val/accuracy": RIGHT},
    "Validation accuracy after each step, by epoch": dict(
        zip(after_steps("val"), (*ORDERING_COLOURS[1:], RIGHT), strict=True)
    ),
}


@style
def draw_history(title: str, rows: Sequence[Mapping[str, str]], best_epoch: int) -> Figure:
    """`title` is one of HISTORIES."""
    figure = new_figure()
    axes = figure.subplots()
    for name, colour in HISTORIES[title].items():
        if points := [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]:
            label = name.replace("val/accuracy_step_", "step ")
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="o", markersize=2)
    if axes.lines:
        axes.legend()
    axes.axvline(best_epoch, color=WRONG, linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return figure

"""Draws a run's loss and accuracy by epoch, from the rows of metrics.csv."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quadrant_lstm.data.frames import step_accuracy_names
from quadrant_lstm.plotting import CORRECT, GREY, ORDERING_COLOURS, WRONG, new_figure, style

HISTORIES = {  # title: the colour of each metric's curve
    "Loss by epoch": {"train/loss": GREY, "val/loss": CORRECT},
    "Accuracy by epoch": {"train/accuracy": GREY, "val/accuracy": CORRECT},
    "Validation accuracy after each step, by epoch": dict(
        zip(step_accuracy_names("val"), (*ORDERING_COLOURS[1:], CORRECT), strict=True)
    ),
}


@style
def draw_history(title: str, rows: Sequence[Mapping[str, str]], best_epoch: int) -> Figure:
    """`title` is a key of HISTORIES; a dotted line marks the best epoch."""
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure

"""Draws the test errors of jobs, with a panel for each column of a table."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

from docs.measurements import AFTER_STEPS, column_means, read
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.sweep.plots import error_percent
from quadrant_lstm.sweep.sweep_folder import Mean


@style
def draw(name: str, down: Sequence[str], across: Sequence[str]) -> bytes:
    columns = column_means(read(name), down, across)
    if across == AFTER_STEPS:
        columns = dict(list(columns.items())[:1])
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    figure = new_figure(2 * WIDTH, 0.6 + 0.2 * len(lines))
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (title, means) in zip(panels, columns.items(), strict=True):
        for position, line in enumerate(lines):
            if line in means:
                draw_jobs(axes, position, means[line])
        axes.set_yticks(range(len(lines)), lines)
        axes.set_xscale("log")
        mark_errors(axes.xaxis)
        axes.set(title="" if across == AFTER_STEPS else title, xlabel="test error, %")
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_ylim(len(lines) - 0.5, -0.5)  # the first line on top
    return as_png(figure, SCALE)


def mark_errors(axis: Axis) -> None:
    """Marks 1, 2, 5, 10, 20, ... on a logarithmic axis."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")


def draw_jobs(axes: Axes, position: int, accuracies: Mean) -> None:
    errors = list(map(error_percent, accuracies.values))
    axes.plot(errors, [position] * len(errors), "o", color=GREY, markersize=3)
    axes.plot(error_percent(accuracies.mean), position, "|", color=CORRECT, markersize=10, markeredgewidth=2)
    if accuracies.interval:
        axes.hlines(position, *map(error_percent, accuracies.interval), color=CORRECT)

"""Draws a run's loss and accuracy by epoch, from the rows of metrics.csv."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quadrant_lstm.plotting import CORRECT, GREY, WRONG, new_figure, style
from quadrant_lstm.text import step_accuracies_in

HISTORIES = {  # title: the colour of each metric's curve
    "Loss by epoch": {"train/loss": GREY, "val/loss": CORRECT},
    "Accuracy by epoch": {"train/accuracy": GREY, "val/accuracy": CORRECT},
}
AFTER_EACH_STEP = "Validation accuracy after each step, by epoch"
EARLY, MAX_NAMED_STEPS = "#d9e2ea", 8  # the colour of the first step; steps in the legend


def histories(rows: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, Any]]:
    """Returns the figures of a run, as HISTORIES does; one of the steps if there are accuracies after each step."""
    steps = [name for name in step_accuracies_in("val", rows[0]) if rows[0][name]]
    return HISTORIES | ({AFTER_EACH_STEP: colours_of_steps(steps)} if steps else {})


def colours_of_steps(names: Sequence[str]) -> dict[str, Any]:
    """Returns colours that grow darker from step to step."""
    shades = LinearSegmentedColormap.from_list("steps", [EARLY, CORRECT])
    return {name: shades((number + 1) / len(names)) for number, name in enumerate(names)}


@style
def draw_history(curves: Mapping[str, Any], rows: Sequence[Mapping[str, str]], tested_epoch: int) -> Figure:
    """`curves` has the colour of each metric's curve."""
    figure = new_figure()
    axes = figure.subplots()
    for number, (name, colour) in enumerate(curves.items(), start=1):
        if points := [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]:
            is_named = number == len(curves) or number % -(-len(curves) // MAX_NAMED_STEPS) == 0
            label = name.replace("val/accuracy_step_", "step ") if is_named else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="o", markersize=2)
    axes.axvline(tested_epoch, color=WRONG, linewidth=0.8, linestyle=":", label="tested epoch")
    figure.legend(loc="outside right center")
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure

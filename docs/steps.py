"""Draws docs/steps.png from docs/measured/scans.csv: the test error after each piece, for each grid and ordering.

python -m docs.steps
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from docs.measurements import Row, read, short
from docs.panels import mark_errors
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.plotting import GREY, GROUP_COLOURS, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.sweep.plots import error_percent
from quadrant_lstm.text import step_accuracies_in

IMAGE = 28 * 28  # pixels
# RAM reads glimpses of 8 x 8 pixels at places that it chooses: Mnih et al. 2014, arXiv 1406.6247, table 1.
RAM_GLIMPSE, RAM_ERRORS = 64, {2: 3.79, 3: 1.51, 4: 1.54, 6: 1.12, 7: 1.07}


@style
def draw(rows: Sequence[Row]) -> bytes:
    grids = list(dict.fromkeys(row["experiment/scans"] for row in rows))
    figure = new_figure(2 * WIDTH, 3.4)
    panels = figure.subplots(1, len(grids), sharex=True, sharey=True, squeeze=False)[0]
    for axes, grid in zip(panels, grids, strict=True):
        draw_grid(axes, [row for row in rows if row["experiment/scans"] == grid])
        axes.set(title=grid, xlabel="share of the pieces that were read", yscale="log")
        mark_errors(axes.yaxis)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test error, %")
    panels[-1].legend()
    return as_png(figure, SCALE)


def draw_grid(axes: Axes, rows: Sequence[Row]) -> None:
    colours = dict(zip(dict.fromkeys(row["data.orderings"] for row in rows), GROUP_COLOURS, strict=False))
    for ordering, colour in colours.items():
        for joined, dashes in (("True", "-"), ("False", ":")):
            found = [r for r in rows if (r["data.orderings"], r["model.join_pieces"]) == (ordering, joined)]
            if not found:
                continue
            steps = [name for name in step_accuracies_in("test", found[0]) if found[0][name]]
            errors = [statistics.mean(error_percent(float(row[name])) for row in found) for name in steps]
            shares = [step / len(steps) for step in range(1, len(steps) + 1)]
            name = short("data.orderings", ordering) if joined == "True" else None
            axes.plot(shares, errors, dashes, color=colour, label=name)
    axes.plot(
        [glimpses * RAM_GLIMPSE / IMAGE for glimpses in RAM_ERRORS], RAM_ERRORS.values(), "x", color=GREY, label="RAM"
    )


if __name__ == "__main__":
    with handle_errors():
        Path(__file__).with_name("steps.png").write_bytes(draw(read("scans")))

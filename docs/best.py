"""A finished sweep over seeds -> docs/best.png: the error of each seed by epoch, and the epoch that was kept.

python docs/best.py outputs/sweeps/DATE/TIME
"""

import argparse
import itertools
from pathlib import Path

from quadrant_lstm.cli.command import command
from quadrant_lstm.errors import UserError
from quadrant_lstm.plotting import GREY, GROUP_COLOURS, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run_folder import METRICS, read_rows
from quadrant_lstm.sweep.jobs import find_sweep, read_jobs
from quadrant_lstm.sweep.plots import error, scale

HERE = Path(__file__).parent


@style
def draw(sweep: Path) -> bytes:
    figure = new_figure(2 * WIDTH, 3.2)
    axes = figure.subplots()
    for job, colour in zip(read_jobs(sweep), itertools.cycle(GROUP_COLOURS), strict=False):
        rows = read_rows(job.folder / METRICS)
        epochs = [int(row["epoch"]) for row in rows]
        train, val = ([error(float(row[f"{stage}/accuracy"])) for row in rows] for stage in ("train", "val"))
        results = job.results()
        if results is None:
            raise UserError(f"sweep: {sweep}: job {job.number} is not done; first: python train.py sweep={sweep}")
        kept, test = results["best_epoch"], results["test/accuracy"]
        axes.plot(epochs, train, color=GREY, linewidth=0.8)
        axes.plot(epochs, val, color=colour, label=f"{job}: test {test:.2%}")
        axes.plot(kept, val[kept - 1], "o", color=colour)
    axes.plot([], [], color=GREY, linewidth=0.8, label="on training images, turned and moved")
    scale(axes, "epoch", "error on validation")
    axes.legend()
    return as_png(figure, SCALE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A finished sweep over seeds -> docs/best.png.")
    parser.add_argument("sweep", help="its folder, or latest")
    given = parser.parse_args()
    with command():
        (HERE / "best.png").write_bytes(draw(find_sweep(given.sweep)))

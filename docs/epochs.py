"""Draws docs/epochs.png from a finished sweep over seeds: each seed's error after each epoch, and the epoch it keeps.

python docs/epochs.py outputs/sweeps/DATE/TIME
"""

import argparse
from pathlib import Path

from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.errors import UserError
from quadrant_lstm.plotting import CORRECT, GREY, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run_folder import METRICS, read_rows
from quadrant_lstm.sweep.plots import error_percent, format_error_axes
from quadrant_lstm.sweep.sweep_folder import Sweep, find_sweep

HERE = Path(__file__).parent


@style
def draw(sweep: Sweep) -> bytes:
    figure = new_figure(2 * WIDTH, 3.2)
    axes = figure.subplots()
    for job in sweep.jobs:
        results = job.results()
        if results is None:
            raise UserError(f"{job.folder}: has not finished; first: python train.py sweep={sweep.folder}.")
        if "val/accuracy" not in results:
            raise UserError(f"{job.folder}: has no validation images; give another sweep.")
        rows = read_rows(job.folder / METRICS)
        epochs = [int(row["epoch"]) for row in rows]
        train, val = ([error_percent(float(row[f"{split}/accuracy"])) for row in rows] for split in ("train", "val"))
        kept = results["best_epoch"]
        (on_train,) = axes.plot(epochs, train, color=GREY, linewidth=0.8)
        (on_validation,) = axes.plot(epochs, val, color=CORRECT, linewidth=0.8)
        (dot,) = axes.plot(kept, val[kept - 1], "o", color=CORRECT, markersize=4)
    names = {"on augmented training images": on_train, "on validation images": on_validation, "kept epoch": dot}
    format_error_axes(axes, "epoch", "error")
    axes.legend(names.values(), names)
    return as_png(figure, SCALE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws docs/epochs.png from a finished sweep over seeds.")
    parser.add_argument("sweep", help="the folder of the sweep, or latest")
    given = parser.parse_args()
    with handle_errors():
        (HERE / "epochs.png").write_bytes(draw(find_sweep(given.sweep)))

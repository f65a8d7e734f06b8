"""A finished sweep over seeds -> docs/best.png: the error of each seed by epoch, and the epoch that was kept.

python docs/best.py outputs/sweeps/DATE/TIME
"""

import itertools
import sys
from pathlib import Path

from quadrant_lstm.dashboard.palette import GREY, GROUP_COLOURS, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run.folder import METRICS, read_rows
from quadrant_lstm.sweep.jobs import read_jobs
from quadrant_lstm.sweep.pictures import error, scale

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
        assert results is not None, f"job {job.number} is not done"
        kept, test = results["best_epoch"], results["test/accuracy"]
        axes.plot(epochs, train, color=GREY, linewidth=0.8)
        axes.plot(epochs, val, color=colour, label=f"{job}: test {test:.2%}")
        axes.plot(kept, val[kept - 1], "o", color=colour)
    axes.plot([], [], color=GREY, linewidth=0.8, label="on training images, turned and moved")
    scale(axes, "epoch", "error on validation")
    axes.legend()
    return as_png(figure, SCALE)


if __name__ == "__main__":
    (HERE / "best.png").write_bytes(draw(Path(sys.argv[1])))

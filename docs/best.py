"""Finished runs, a seed each -> docs/best.png: the error of each by epoch, and the epoch that was kept.

python docs/best.py outputs/sweeps/DATE/TIME/[0-9]*
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from quadrant_lstm.dashboard.palette import GREY, GROUP_COLOURS, SCALE, WIDTH, as_png, new_figure, style
from quadrant_lstm.run.folder import CONFIG, METRICS, RESULTS, read_rows
from quadrant_lstm.sweep.pictures import error, scale

HERE = Path(__file__).parent


@style
def draw(runs: Sequence[Path]) -> bytes:
    figure = new_figure(2 * WIDTH, 3.2)
    axes = figure.subplots()
    for run, colour in zip(runs, itertools.cycle(GROUP_COLOURS), strict=False):
        rows = read_rows(run / METRICS)
        epochs = [int(row["epoch"]) for row in rows]
        train, val = ([error(float(row[f"{stage}/accuracy"])) for row in rows] for stage in ("train", "val"))
        results = json.loads((run / RESULTS).read_text())
        seed = OmegaConf.load(run / CONFIG).seed
        kept, test = results["best_epoch"], results["test/accuracy"]
        axes.plot(epochs, train, color=GREY, linewidth=0.8)
        axes.plot(epochs, val, color=colour, label=f"seed={seed}: test {test:.2%}")
        axes.plot(kept, val[kept - 1], "o", color=colour)
    axes.plot([], [], color=GREY, linewidth=0.8, label="on training images, turned and moved")
    scale(axes, "epoch", "error on validation")
    axes.legend()
    return as_png(figure, SCALE)


if __name__ == "__main__":
    (HERE / "best.png").write_bytes(draw([Path(run) for run in sys.argv[1:]]))

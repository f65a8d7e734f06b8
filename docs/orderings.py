"""Draws a digit, its quadrants and its frames in the orderings of the question into docs/orderings.png.

python docs/orderings.py [FILE]
"""

import argparse
from pathlib import Path

import torch

from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.dashboard.pictures.data import draw_orderings
from quadrant_lstm.data.images import load_images
from quadrant_lstm.files import write_atomically
from quadrant_lstm.plotting import as_png

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws a digit in the orderings of the question.")
    parser.add_argument("file", type=Path, nargs="?", default=Path(__file__).with_name("orderings.png"))
    given = parser.parse_args()
    with handle_errors():
        figure = draw_orderings(torch.from_numpy(load_images("mnist", None).test_images[0]))
        write_atomically(given.file, as_png(figure, scale=3))

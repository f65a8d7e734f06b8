"""Draws the test images that a run misclassifies into docs/mistakes.png.

python docs/mistakes.py RUN [FILE]
"""

import argparse
from pathlib import Path

import torch

from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.dashboard.pictures.mistakes import columns_for, draw_mistakes, most_confident_mistakes
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.run.evaluate import run_test
from quadrant_lstm.run_folder import BEST, find_run, write_atomically

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the test images that a run misclassifies.")
    parser.add_argument("run", help="its folder, or latest")
    parser.add_argument("file", type=Path, nargs="?", default=Path(__file__).with_name("mistakes.png"))
    given = parser.parse_args()
    with handle_errors():
        classifier, data = run_test(find_run(given.run, BEST), "auto")
        labels, logits = classifier.test_labels, classifier.test_logits[:, -1]
        columns = columns_for(*data.test_pictures(torch.arange(1)).shape[2:])
        rows = max(1, -(-len(most_confident_mistakes(logits, labels)) // columns))
        figure = draw_mistakes(data.test_pictures, labels, logits, data.spec.class_names, rows=rows)
        write_atomically(given.file, as_png(figure, SCALE))

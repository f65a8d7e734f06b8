"""Draws the test images that a run misclassifies into docs/mistakes.png, or those that the mean of several runs does.

python -m docs.mistakes RUN [RUN ...] [--out FILE]

Several runs are an ensemble: the mean of their probabilities. How many images all of its networks misclassify, and how
many at least one does, is printed too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.dashboard.pictures.predictions import columns_for, draw_mistakes, most_confident_mistakes
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import write_atomically
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.run.load import run_test
from quadrant_lstm.run_folder import BEST, find_run
from quadrant_lstm.text import percent


def main(runs: Sequence[Path], out: Path) -> None:
    probabilities, tested = [], []
    for run in runs:
        classifier, data = run_test(run, "auto")
        probabilities.append(classifier.test_logits[:, -1].float().softmax(1))
        tested.append((data.sha256(), classifier.test_labels.tolist()))
        if tested[-1] != tested[0]:
            raise UserError(f"{run}: was tested on other samples than {runs[0]}; give runs with the same data.")
    each, labels = torch.stack(probabilities), classifier.test_labels
    logits = each.mean(0).log()
    mistakes = most_confident_mistakes(logits, labels)
    print(
        f"test accuracy  {percent(1 - len(mistakes) / len(labels))}  ({len(mistakes)} of {len(labels):,} misclassified)"
    )
    if len(runs) > 1:
        wrong = each.argmax(2) != labels
        all_of_them, one = (int(count.sum()) for count in (wrong.all(0), wrong.any(0)))
        print(f"misclassified by all {len(runs)} networks: {all_of_them}, by at least one: {one}")
    columns = columns_for(*data.test_pictures(torch.arange(1)).shape[2:])
    rows = max(1, -(-len(mistakes) // columns))
    figure = draw_mistakes(data.test_pictures, mistakes, labels, logits, data.spec.class_names, rows=rows)
    write_atomically(out, as_png(figure, SCALE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the test images that runs misclassify.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, or latest")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("mistakes.png"))
    given = parser.parse_args()
    with handle_errors():
        main([find_run(run, BEST) for run in given.runs], given.out)

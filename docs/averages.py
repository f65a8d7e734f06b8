"""Tests the networks of a sweep in each of the 24 orderings of four quadrants, and by the mean of their predictions.

    python -m docs.averages outputs/sweeps/DATE/TIME

A frame must be one quadrant, as in experiment=unseen. The script prints a line for each job, and then a table with the
means over seeds for docs/ablations.md.
"""

import argparse
import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from docs.measurements import label
from docs.tables import points
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import scaled
from quadrant_lstm.data.pieces import QUADRANTS
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.step_classifier import StepClassifier
from quadrant_lstm.pages import percent
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.sweep.groups import Mean, without_repetitions
from quadrant_lstm.sweep.jobs import Job, Sweep, find_sweep

ORDERINGS = list(itertools.permutations(range(4)))


class Accuracies(NamedTuple):
    one_ordering: float  # the mean over all orderings
    all_orderings: float  # of the mean of the probabilities in all orderings


@torch.inference_mode()
def accuracies(
    network: StepClassifier, frames: Float[Tensor, "samples 4 channels rows columns"], labels: Int64[Tensor, " samples"]
) -> Accuracies:
    probabilities = torch.cat([in_all_orderings(network, part) for part in frames.split(500)], dim=1)
    correct = [(each.argmax(-1) == labels).float().mean().item() for each in (probabilities, probabilities.mean(0))]
    return Accuracies(*correct)


def in_all_orderings(
    network: StepClassifier, frames: Float[Tensor, "samples 4 channels rows columns"]
) -> Float[Tensor, "24 samples classes"]:
    """Returns probabilities. A quadrant is encoded once, because its features do not depend on its step."""
    features = network.features(frames)
    outputs = (network.recurrent(features[:, ordering])[0] for ordering in ORDERINGS)
    return torch.stack([network.classify(network.last_step(each)).softmax(-1) for each in outputs])


def accuracies_of(job: Job) -> Accuracies:
    classifier, cfg = load_classifier(job.folder)
    data = build_data(cfg)
    network = classifier.network.eval()
    if not isinstance(data, ImageSequences) or data.grid != QUADRANTS or len(data.orderings) > 1:
        raise UserError(f"{job.folder}: a frame is not one quadrant; give a sweep of experiment=unseen.")
    assert isinstance(network, StepClassifier)
    images, labels, _ = data.test.tensors
    return accuracies(network, scaled(data.cut(images)), labels)


def main(sweep: Sweep) -> None:
    lines: dict[str, list[Accuracies]] = {}
    for job in sweep.jobs:
        if job.results():
            found = accuracies_of(job)
            print(f"job {job.number}  {job}  {'  '.join(map(percent, found))}", flush=True)
            swept = without_repetitions(job)
            lines.setdefault(label(list(swept), swept), []).append(found)
    print("\n| | one ordering | mean of the predictions in 24 orderings | difference |\n|---|---|---|---|")
    for line, found in lines.items():
        cells = [str(Mean(values)).replace(" %", "") for values in zip(*found, strict=True)]
        gains = [each.all_orderings - each.one_ordering for each in found]
        print(f"| {line} | {' | '.join([*cells, points(gains)])} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Averages the predictions of networks over orderings of quadrants.")
    parser.add_argument("sweep", help="the folder of a sweep of experiment=unseen, or latest")
    given = parser.parse_args()
    with handle_errors():
        main(find_sweep(given.sweep))

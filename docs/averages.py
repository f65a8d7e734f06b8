"""Tests the networks of a sweep in each of the 24 orderings of four quadrants, and with the mean of the probabilities.

    python -m docs.averages outputs/sweeps/DATE/TIME

A frame must be one quadrant that is encoded alone, as in experiment=unseen. The script prints a line for each job, and
then the table with means over seeds that stands in docs/ablations.md.
"""

import argparse
import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from docs.measurements import label, points, table_row
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import QUADRANTS, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.recurrent import StepClassifier
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.sweep.sweep_folder import Job, Mean, Sweep, find_sweep, without_repetitions
from quadrant_lstm.text import percent

ALL_ORDERINGS = list(itertools.permutations(range(4)))


class Accuracies(NamedTuple):
    of_each: float  # the mean of the accuracies in each ordering
    of_mean: float  # the accuracy of the mean of the probabilities in all orderings


@torch.inference_mode()
def measure(
    network: StepClassifier, frames: Float[Tensor, "samples 4 channels rows columns"], labels: Int64[Tensor, " samples"]
) -> Accuracies:
    probabilities = torch.cat([in_all_orderings(network, part) for part in frames.split(500)], dim=1)
    found = [(each.argmax(-1) == labels).float().mean().item() for each in (probabilities, probabilities.mean(0))]
    return Accuracies(*found)


def in_all_orderings(
    network: StepClassifier, frames: Float[Tensor, "samples 4 channels rows columns"]
) -> Float[Tensor, "24 samples classes"]:
    """Returns probabilities. A quadrant is encoded once, because its features do not depend on its step."""
    features = network.features(frames)
    outputs = (network.recurrent(features[:, ordering])[0] for ordering in ALL_ORDERINGS)
    return torch.stack([network.classify(network.last_step(each)).softmax(-1) for each in outputs])


def measure_job(job: Job) -> Accuracies:
    classifier, cfg = load_classifier(job.folder)
    data, network = build_data(cfg), classifier.network.eval()
    of_quadrants = isinstance(data, ImageSequences) and data.grid == QUADRANTS and len(data.orderings) == 1
    if not (of_quadrants and isinstance(network, StepClassifier) and isinstance(network.encoder, TimeDistributed)):
        raise UserError(f"{job.folder}: does not encode single quadrants; give a sweep of experiment=unseen.")
    images, labels, _ = data.test.tensors
    return measure(network, scaled(data.cut(images)), labels)


def main(sweep: Sweep) -> None:
    rows: dict[str, list[Accuracies]] = {}
    for job in sweep.jobs:
        if job.results():
            found = measure_job(job)
            print(f"job {job.number}  {job}  {'  '.join(map(percent, found))}", flush=True)
            swept = without_repetitions(job)
            rows.setdefault(label(list(swept), swept), []).append(found)
    print("\n| | one ordering | mean of 24 probabilities | difference |\n|---|---|---|---|")
    for name, measured in rows.items():
        means = map(Mean, zip(*measured, strict=True))
        gains = [each.of_mean - each.of_each for each in measured]
        print(table_row(name, *means, points(gains)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Averages the predictions of networks over orderings of quadrants.")
    parser.add_argument("sweep", help="the folder of a sweep of experiment=unseen, or latest")
    given = parser.parse_args()
    with handle_errors():
        main(find_sweep(given.sweep))

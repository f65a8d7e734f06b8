"""Yields the pictures of a run with their tags: of its data, of its predictions, of its network.

To add a picture, write a function in pictures/ that draws it, yield it here, and give its tag a caption in report.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from quadrant_lstm.dashboard.pictures import data as of_data
from quadrant_lstm.dashboard.pictures import network as of_network
from quadrant_lstm.dashboard.pictures import predictions as of_predictions
from quadrant_lstm.data.datamodule import Batch, SequenceDataModule
from quadrant_lstm.data.image_sequences import ImageSequences
from quadrant_lstm.data.orderings import shown_orderings
from quadrant_lstm.data.series import Series
from quadrant_lstm.model.protocols import Inspectable, in_full
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.plotting import undrawable
from quadrant_lstm.text import counted, plural

NUM_CLIPS = 4  # or series, that are drawn before training
SERIES_SIZE = 80, 600  # pixels: height and width of the picture of a series
NUM_BELIEFS = 6  # samples, and as many mistakes, whose class probabilities are drawn after each step
NUM_OCCLUDED = 1000  # samples on which occlusion is measured

Pictures = Iterator[tuple[str, Figure]]


@dataclass(frozen=True)
class TestOutputs:
    """What a test returns, on the CPU. `indices` are the places of the samples in the test set."""

    indices: Int64[Tensor, " samples"]
    logits_per_step: Float[Tensor, "samples steps classes"]  # of every step, or of the last step only
    labels: Int64[Tensor, " samples"]
    confusion: Int64[Tensor, "classes classes"]

    @property
    def logits(self) -> Float[Tensor, "samples classes"]:
        return self.logits_per_step[:, -1]

    @cached_property
    def mistakes(self) -> Int64[Tensor, " mistakes"]:
        """The places of the misclassified samples among the tested ones."""
        return of_predictions.most_confident_mistakes(self.logits, self.labels)


def spread(total: int, number: int) -> Int64[Tensor, " places"]:
    """Returns so many places of `total`, or all, evenly spaced: files are sorted by class."""
    return torch.linspace(0, total - 1, min(number, total)).long()


def drawn_names(data: SequenceDataModule) -> list[str]:
    """Returns the name of each class, or its number if no font of this machine has the characters of the name."""
    names = data.spec.class_names
    missing = set(undrawable("".join(names)))
    return [f"#{number}" if missing & set(name) else name for number, name in enumerate(names, start=1)]


def data_pictures(data: SequenceDataModule) -> Pictures:
    if not isinstance(data, ImageSequences):
        samples, names = data.test_samples(spread(len(data.test), NUM_CLIPS)), drawn_names(data)
        classes, clips = [names[label] for label in samples.labels.tolist()], drawn_frames(data, samples)
        name, content = plural(data.kind), "features" if data.spec.is_series else "numbered frames"
        yield f"data/{name}", of_data.draw_clips(clips, classes, f"test {name}: class, and {content}")
        return
    shown = shown_orderings(data.orderings, data.train_orderings)
    yield "data/orderings", of_data.draw_orderings(data.test_pictures(torch.arange(1))[0], shown, data.grid)
    images = data.train[data.train_indices[:6]][0]
    if data.augmentation(images) is not images:
        yield "data/augmentation", of_data.draw_augmentation(images, data.augmentation)


def drawn_frames(data: SequenceDataModule, samples: Batch) -> list[UInt8[Tensor, "frames channels height width"]]:
    """Returns the real frames of each sample, or a picture of each series."""
    if isinstance(data, Series):
        return [data.picture(steps, *SERIES_SIZE)[None] for steps in samples.unpadded()]
    return samples.unpadded()


def prediction_pictures(data: SequenceDataModule, tested: TestOutputs) -> Pictures:
    indices, names, mistakes = tested.indices, drawn_names(data), tested.mistakes
    yield "test/confusion", of_predictions.draw_confusion(tested.confusion, names)
    yield "test/classes", of_predictions.draw_classes(tested.confusion, names)
    yield "test/calibration", of_predictions.draw_calibration(tested.logits, tested.labels)
    if not len(mistakes):
        return
    shown = mistakes[: of_predictions.ROWS * of_predictions.columns_for(*data.test_pictures(indices[:1]).shape[2:])]
    part = f"; the {len(shown)} most confident" if len(mistakes) > len(shown) else ""
    process = " by the first process" if len(indices) < tested.confusion.sum() else ""
    title = f"{len(mistakes):,} of {len(indices):,} misclassified{process}{part}"
    pictures, labels = data.test_pictures(indices[shown]), tested.labels[shown]
    yield "test/mistakes", of_predictions.draw_mistakes(pictures, labels, tested.logits[shown], names, title)


def network_pictures(network: nn.Module, data: SequenceDataModule, tested: TestOutputs) -> Pictures:
    """The network must be in eval mode. Images must have been tested in data.orderings, which occlusion uses."""
    if tested.logits_per_step.shape[1] == data.spec.num_steps:
        yield from belief_pictures(data, tested)
    yield from occlusion_pictures(network, data, tested)
    if isinstance(network, Inspectable):
        yield from inside_pictures(network, data, tested)


def belief_pictures(data: SequenceDataModule, tested: TestOutputs) -> Pictures:
    names, windows = drawn_names(data), data.num_windows
    averaged = f"\nmean over {windows} windows, of which one is shown" if windows > 1 else ""
    for name, places in (("example", spread(len(tested.indices), NUM_BELIEFS)), ("mistake", tested.mistakes)):
        if not len(first := places[:NUM_BELIEFS]):
            continue
        samples = data.test_samples(tested.indices[first])
        ends = map(len, samples.unpadded())
        shown = zip(first.tolist(), drawn_frames(data, samples), ends, samples.labels.tolist(), strict=True)
        for number, (place, frames, end, label) in enumerate(shown, start=1):
            title = f"test sample {tested.indices[place]} of class {names[label]}{averaged}"
            figure = of_predictions.draw_belief(frames, tested.logits_per_step[place, :end], label, names, title)
            yield f"belief/{name}_{number}", figure


def occlusion_pictures(network: nn.Module, data: SequenceDataModule, tested: TestOutputs) -> Pictures:
    places = spread(len(tested.indices), data.num_that_fit(NUM_OCCLUDED))
    indices = tested.indices[places]
    if not isinstance(data, ImageSequences):
        samples = of_network.encoded(network, data.test_samples(indices))
        by_step = of_network.accuracy_by_occluded_step(network, samples, data.blank)
        by_order = of_network.accuracy_by_order(network, samples)
        number = counted(len(indices), f"test {data.kind}")
        yield "test/occluded_step", of_network.draw_occluded_steps(by_step, by_order, number)
        return
    images, labels = data.test[indices][:2]
    orderings, grid, unoccluded = data.orderings, data.grid, (tested.logits.argmax(1) == tested.labels).long()
    by_piece = of_network.correct_by_occluded_piece(network, images, labels, orderings, grid)
    yield "test/occluded_piece", of_network.draw_occluded_pieces(by_piece, labels, grid, drawn_names(data))
    by_ordering = of_network.correct_by_occluded_ordering(in_full(network), images, labels, orderings, grid)
    figure = of_network.draw_occluded_orderings(by_ordering, orderings, grid, unoccluded[places])
    yield "test/occluded_ordering", figure


def inside_pictures(network: Inspectable, data: SequenceDataModule, tested: TestOutputs) -> Pictures:
    first = data.test_samples(tested.indices[:1])
    frames = first.unpadded()[0][None]
    for name, figure in of_network.draw_features(network, frames).items():
        yield f"inside/{name}", figure
    if isinstance(network.recurrent, LSTM):
        title = f"LSTM on the first test sample, of class {drawn_names(data)[int(first.labels[0])]}"
        yield "inside/gates", of_network.draw_gates(network, frames, title)

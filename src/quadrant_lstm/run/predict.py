"""Classifies image files, or the test images of a run's data, with the run's best checkpoint.

The predictions are printed as a table or written to a file (predictions.py). Images are read, classified and written
in batches, so that memory does not grow with their number.
"""

import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from quadrant_lstm.data.frames import image_shape_of
from quadrant_lstm.data.image_files import read_image
from quadrant_lstm.data.orderings import scaled, sequences
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.predictions import Prediction, open_output

log = logging.getLogger(__name__)
BATCH_SIZE = 256


class Picture(NamedTuple):
    name: str
    pixels: np.ndarray | None  # uint8 [channels, height, width]; None if nothing is drawn
    label: int | None = None


def predict(
    folder: Path, files: Iterable[Path] | None, invert: bool | None, output: str | None, trust: Sequence[str] = ()
) -> None:
    """Predicts `files`, or the test images if that is None. Raises UserError at the end if files could not be read."""
    classifier, cfg = load_classifier(folder, trust)
    image_shape = image_shape_of(classifier.hparams["frame_shape"], len(cfg.data.orderings))
    classify = Classify(classifier.network.eval(), cfg.data.orderings)
    batches = read_test_images(cfg) if files is None else read_files(files, image_shape, invert)
    count = correct = unreadable = 0
    _, num_steps, num_classes = classify.probabilities(np.zeros((1, *image_shape), np.uint8)).shape
    with open_output(output, num_steps, num_classes) as write:
        for pictures in batches if output is None else with_progress(batches, files):
            for error in (picture for picture in pictures if isinstance(picture, UserError)):
                print(error, file=sys.stderr)
            readable = [picture for picture in pictures if isinstance(picture, Picture)]
            for prediction in classify(readable):
                write(prediction)
                correct += prediction.label is not None and prediction.label == prediction.predicted
            count += len(pictures)
            unreadable += len(pictures) - len(readable)
    if files is None:
        log.info(f"{correct:,} of {count:,} test images are classified correctly: {100 * correct / count:.2f} %")
    if output:
        log.info(f"wrote the predictions of {count - unreadable:,} images to {output}")
    if unreadable:
        raise UserError(f"images: {unreadable:,} of {count:,} files cannot be read; they are named above.")


def read_test_images(cfg: DictConfig) -> Iterator[list[Picture | UserError]]:
    images = build_data(cfg).images
    for start in range(0, len(images.test_images), BATCH_SIZE):
        batch = zip(images.test_images[start:][:BATCH_SIZE], images.test_labels[start:], strict=False)
        yield [Picture(f"test image {start + number}", *pair) for number, pair in enumerate(batch)]


def read_files(
    files: Iterable[Path], image_shape: tuple[int, int, int], invert: bool | None
) -> Iterator[list[Picture | UserError]]:
    def read(file: Path) -> Picture | UserError:
        try:
            return Picture(str(file), read_image(file, image_shape, invert))
        except UserError as error:
            return error

    pictures = map(read, files)  # in one thread: for small files, several of them wait for each other
    while batch := list(itertools.islice(pictures, BATCH_SIZE)):
        yield batch


def with_progress(batches: Iterable[list[Any]], files: Iterable[Path] | None) -> Iterable[list[Any]]:
    """Shows a progress bar on a terminal. Without the number of files, it shows how many batches are done."""
    total = -(-len(files) // BATCH_SIZE) if isinstance(files, Sized) else None
    return track(batches, "batches of 256 images", total, console=Console(stderr=True), disable=not sys.stderr.isatty())


class Classify:
    def __init__(self, network: nn.Module, orderings: Orderings):
        self.network, self.orderings = network, orderings

    def __call__(self, pictures: Sequence[Picture]) -> Iterator[Prediction]:
        pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
        probabilities = iter(self.probabilities(np.stack(pixels)).tolist() if pixels else [])
        for name, image, label in pictures:
            yield Prediction(name, [] if image is None else next(probabilities), label)

    @torch.inference_mode()
    def probabilities(self, pixels: np.ndarray) -> Float[Tensor, "images steps classes"]:
        frames = scaled(sequences(torch.from_numpy(pixels), self.orderings))
        return logits_after_steps(self.network, frames).softmax(dim=2)

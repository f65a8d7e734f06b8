"""Classifies files of images or clips, or the test samples of a run's data.

The predictions are printed as a table or written to a file (predictions.py). Samples are read, classified and written
in batches, so that memory does not grow with their number.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from quadrant_lstm.data.datamodule import MAX_BYTES, SequenceDataModule
from quadrant_lstm.errors import UserError, as_text, printable
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import check_same_data, load_classifier
from quadrant_lstm.run.predictions import Prediction, open_output
from quadrant_lstm.run.predictor import Predictor, of_clips, predictor_of_run
from quadrant_lstm.text import counted, with_progress

log = logging.getLogger(__name__)
BATCH_SIZE = 256


class Sample(NamedTuple):
    name: str
    pixels: np.ndarray | None  # uint8, of an image or a clip; None if nothing is drawn
    label: int | None = None
    note: str = ""  # what makes the prediction doubtful


def predict(folder: Path, images: str, invert: bool | None, output: str | None, trust: Sequence[str] = ()) -> None:
    """`images` names files, or is "test". Raises UserError at the end if files could not be read."""
    classifier, cfg = load_classifier(folder, trust)
    network = classifier.network.eval()
    predictor = predictor_of_run(network, cfg.data, classifier.spec)
    if images != "test":
        predict_files(predictor, predictor.files.find(images), invert, output)
        return
    predictor = predictor._replace(probabilities=of_clips(network, classifier.spec))  # the samples are cut already
    data = build_data(cfg)
    check_same_data(data, classifier.spec, folder)
    count, correct = write_predictions(predictor, read_test_samples(data), output)
    log.info(f"{correct:,} of {count:,} test samples are classified correctly: {100 * correct / count:.2f} %")


def predict_files(predictor: Predictor, files: Iterable[Path], invert: bool | None, output: str | None) -> None:
    """Names the files that cannot be read on stderr, and raises UserError at the end if there are any."""
    errors: list[UserError] = []
    if output is not None:  # otherwise the predictions show the progress
        files = with_progress(files, "classifying files", len(files) if isinstance(files, Sized) else None)
    count, _ = write_predictions(predictor, read_files(predictor, files, invert, errors), output)
    if errors:
        raise UserError(
            f"images: {len(errors):,} of {count + len(errors):,} files cannot be read; they are named above."
        )


def write_predictions(predictor: Predictor, batches: Iterable[Sequence[Sample]], output: str | None) -> tuple[int, int]:
    """Returns the number of samples, and that of correct predictions of samples whose class is known."""
    count = correct = 0
    with open_output(output, predictor.num_steps, predictor.classes) as write:
        for samples in batches:
            for prediction in classify(predictor, samples):
                write(prediction)
                if output and prediction.note:
                    note = printable(f"{prediction.name}: {prediction.note}; check its prediction.")
                    print(note, file=sys.stderr)
                correct += prediction.label is not None and prediction.label == prediction.predicted
            count += len(samples)
    if output:
        log.info(f"wrote the predictions of {counted(count, 'sample')} to {output}")
    return count, correct


def classify(predictor: Predictor, samples: Sequence[Sample]) -> Iterator[Prediction]:
    drawn = [sample.pixels for sample in samples if sample.pixels is not None]
    probabilities = iter(predictor.probabilities(drawn) if drawn else [])
    for name, pixels, label, note in samples:
        yield Prediction(name, [] if pixels is None else next(probabilities).tolist(), label, note)


def read_test_samples(data: SequenceDataModule) -> Iterator[list[Sample]]:
    for numbers in torch.arange(len(data.test)).split(data.num_that_fit(BATCH_SIZE)):
        samples = data.test_samples(numbers)
        found = zip(data.test_names(numbers), samples.unpadded(), samples.labels.tolist(), strict=True)
        yield [Sample(name, clip.numpy(), label) for name, clip, label in found]


def read_files(
    predictor: Predictor, files: Iterable[Path], invert: bool | None, errors: list[UserError]
) -> Iterator[list[Sample]]:
    """Prints the errors about files that cannot be read, and adds them to `errors`."""
    samples, num_bytes = [], 0
    for file in files:  # in one thread: for small files, several of them wait for each other
        try:
            pixels, note = predictor.files.read(file, invert)
        except UserError as error:
            print(error, file=sys.stderr)
            errors.append(error)
            continue
        samples.append(Sample(as_text(file), pixels, note=note))
        num_bytes += 0 if pixels is None else pixels.nbytes
        if len(samples) == BATCH_SIZE or num_bytes > MAX_BYTES:
            yield samples
            samples, num_bytes = [], 0
    yield samples

"""Classifies files of images or clips, or the test samples of a run's data.

The predictions are printed as a table, or written to a CSV file or as JSON lines. A CSV file has a column for the
probability of each class, and then those after each earlier step, such as `step1_0`. A line of JSON has a list of
probabilities for each step. An image in which nothing is drawn is blank: it has no prediction and no probabilities. In
a CSV file, a name that a spreadsheet would run as a formula begins with an apostrophe.

Samples are read, classified and written in batches, so that memory does not grow with their number.
"""

import contextlib
import csv
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch

from quadrant_lstm.data.datamodule import MAX_BYTES, SequenceDataModule
from quadrant_lstm.errors import UserError, as_text, printable
from quadrant_lstm.files import csv_cell, expanded
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.load import check_same_data, load_classifier
from quadrant_lstm.run.predictor import Classes, Predictor, of_clips, predictor_of_run
from quadrant_lstm.text import counted, with_progress

log = logging.getLogger(__name__)

# The table, CSV files and JSON lines


TABLE_HEADER = "prediction  confidence  second  confidence  after each step  file"


class Prediction(NamedTuple):
    name: str
    steps: list[list[float]]  # the probabilities of the classes after each step; empty if the image is blank
    label: int | None = None  # the class, if it is known
    note: str = ""  # what makes the prediction doubtful

    @property
    def predicted(self) -> int | None:
        return most_probable(self.steps[-1]) if self.steps else None


Write = Callable[[Prediction], None]


def most_probable(probabilities: list[float]) -> int:
    return probabilities.index(max(probabilities))


@contextlib.contextmanager
def open_output(output: str | None, num_steps: int, classes: Classes) -> Iterator[Write]:
    """Yields a function that prints a prediction, or writes it to the file, which replaces an older one at the end.

    Classes are written by their names.
    """
    if output is None:
        log.info(TABLE_HEADER)
        yield lambda prediction: log.info(table_row(prediction, classes))
        return
    output = str(expanded(output))
    with contextlib.ExitStack() as stack:
        try:
            part = f"{output}.part"
            file = stack.enter_context(open(part, "w", newline="", encoding="utf-8"))
        except OSError as error:
            raise UserError(f"output: {output} cannot be written ({error.strerror}); write another path.") from error
        if output.lower().endswith(".csv"):
            yield csv_writer(file, num_steps, classes)
        else:
            yield lambda prediction: print(json.dumps(json_row(prediction, classes)), file=file)
    os.replace(part, output)


def table_row(prediction: Prediction, classes: Classes) -> str:
    name = prediction.name + ("" if prediction.label is None else f", class {classes[prediction.label]}")
    name += f" ({prediction.note})" if prediction.note else ""
    if not prediction.steps:
        return printable(f"{'blank':{len(TABLE_HEADER) - len('file')}}{name}")
    last = prediction.steps[-1]
    first, second = sorted(range(len(last)), key=last.__getitem__, reverse=True)[:2]
    steps = " ".join(str(classes[most_probable(probabilities)]) for probabilities in prediction.steps)
    one, other = classes[first], classes[second]
    row = f"{one:<10}  {100 * last[first]:8.1f} %  {other:<6}  {100 * last[second]:8.1f} %  {steps:<15}  {name}"
    return printable(row)  # also without line breaks, which a name may contain


def csv_writer(file: TextIO, num_steps: int, classes: Classes) -> Write:
    writer = csv.writer(file)
    earlier = [f"step{step}_{name}" for step in range(1, num_steps) for name in classes]
    writer.writerow(["file", "class", "prediction", *map(csv_cell, classes), *earlier])

    def write(prediction: Prediction) -> None:
        steps: Sequence[Sequence[object]] = prediction.steps or [[""] * len(classes)]
        *before, last = steps
        before += [[""] * len(classes)] * (num_steps - len(steps))  # of a clip that is shorter than others
        names = (None if number is None else classes[number] for number in (prediction.label, prediction.predicted))
        writer.writerow([csv_cell(prediction.name), *map(csv_cell, names), *last, *itertools.chain(*before)])

    return write


def json_row(prediction: Prediction, classes: Classes) -> dict[str, Any]:
    known = {} if prediction.label is None else {"class": classes[prediction.label]}
    predicted = None if prediction.predicted is None else classes[prediction.predicted]
    return {"file": prediction.name, **known, "prediction": predicted, "probabilities": prediction.steps}


# Files and test samples


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
        named = zip(data.test_names(numbers), samples.unpadded(), samples.labels.tolist(), strict=True)
        yield [Sample(name, clip.numpy(), label) for name, clip, label in named]


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

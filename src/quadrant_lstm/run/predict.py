"""Classifies files of images, clips or series, or the test samples of a run's data.

The predictions are printed as a table, or written to a CSV file or as JSON lines. A CSV file has a column for the
probability of each class, and then those after each earlier step, such as `step1_0`. A line of JSON has a list of
probabilities for each step. An image in which nothing is drawn is blank: it has no prediction and no probabilities. In
a CSV file, a name that a spreadsheet would run as a formula begins with an apostrophe. Windows of a video have their
start and end in seconds.

Samples are read, classified and written in batches, so that memory does not grow with their number.
"""

import contextlib
import csv
import functools
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch

from quadrant_lstm.config.check import Trust
from quadrant_lstm.data.datamodule import MAX_BYTES, SequenceDataModule
from quadrant_lstm.data.image_reader import Reading
from quadrant_lstm.errors import CommandError, UserError, as_text, printable
from quadrant_lstm.files import csv_cell, expanded
from quadrant_lstm.run.load import data_of_run, load_classifier
from quadrant_lstm.run.predictor import Classes, Predictor, num_windows, predictor_of_run
from quadrant_lstm.run_folder import BEST, find_run
from quadrant_lstm.text import counted, with_progress

log = logging.getLogger(__name__)

# The table, CSV files and JSON lines


TABLE_HEADER = "prediction  confidence  second  confidence  after each step  file"
MOST_STEPS = 16  # of more, equal predictions one after another are counted


class Sample(NamedTuple):
    name: str
    pixels: np.ndarray | None  # as the predictor takes them; None if nothing is drawn
    label: int | None = None  # the class, if it is known
    note: str = ""  # what makes the prediction doubtful
    steps: Sequence[Sequence[float]] = ()  # the probabilities of the classes after each step, once it is classified
    window: tuple[float, ...] = ()  # its start and end in seconds, of a part of a video

    @property
    def predicted(self) -> int | None:
        return most_probable(self.steps[-1]) if self.steps else None


Write = Callable[[Sample], None]


def most_probable(probabilities: Sequence[float]) -> int:
    return probabilities.index(max(probabilities))


@contextlib.contextmanager
def open_output(output: str | None, num_steps: int, classes: Classes, has_windows: bool = False) -> Iterator[Write]:
    """Yields a function that prints a prediction, or writes it to the file, which replaces an older one at the end.

    Classes are written by their names. `has_windows` adds columns for their start and end.
    """
    if output is None:
        header = iter((TABLE_HEADER,))  # before the first row only

        def write_row(sample: Sample) -> None:
            for line in (*header, table_row(sample, classes)):
                log.info(line)

        yield write_row
        return
    file = expanded(output)
    part = Path(f"{file}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as opened:
            if file.suffix.lower() == ".csv":
                yield csv_writer(opened, num_steps, classes, ["start", "end"] if has_windows else [])
            else:
                yield lambda sample: print(json.dumps(json_row(sample, classes)), file=opened)
    except UserError:  # nothing was predicted
        part.unlink()
        raise
    os.replace(part, file)


def table_row(sample: Sample, classes: Classes) -> str:
    name = sample.name + (", {:.2f} to {:.2f} s".format(*sample.window) if sample.window else "")
    name += "" if sample.label is None else f", class {classes[sample.label]}"
    name += f" ({sample.note})" if sample.note else ""
    if not sample.steps:
        return printable(f"{'blank':{len(TABLE_HEADER) - len('file')}}{name}")
    last = sample.steps[-1]
    first, second = sorted(range(len(last)), key=last.__getitem__, reverse=True)[:2]
    after_steps = [str(classes[most_probable(probabilities)]) for probabilities in sample.steps]
    if len(after_steps) > MOST_STEPS:
        after_steps = [f"{label} x{len([*steps])}" for label, steps in itertools.groupby(after_steps)]
    one, other, listed = classes[first], classes[second], " ".join(after_steps)
    row = f"{one:<10}  {100 * last[first]:8.1f} %  {other:<6}  {100 * last[second]:8.1f} %  {listed:<15}  {name}"
    return printable(row)  # also without line breaks, which a name may contain


def csv_writer(file: TextIO, num_steps: int, classes: Classes, of_window: Sequence[str]) -> Write:
    writer = csv.writer(file)
    earlier = [f"step{step}_{name}" for step in range(1, num_steps) for name in classes]
    blank: Sequence[Any] = [""] * len(classes)
    others = ["file", *of_window, "class", "prediction"]
    names = [f"probability of {name}" if name in others else csv_cell(name) for name in classes]
    writer.writerow([*others, *names, *earlier])

    def write(sample: Sample) -> None:
        *before, last = sample.steps or [blank]
        before += [blank] * (num_steps - 1 - len(before))  # of a clip that is shorter than others
        names = (None if number is None else classes[number] for number in (sample.label, sample.predicted))
        start = csv_cell(sample.name), *sample.window
        writer.writerow([*start, *map(csv_cell, names), *last, *itertools.chain(*before)])

    return write


def json_row(sample: Sample, classes: Classes) -> dict[str, Any]:
    known: dict[str, Any] = dict(zip(("start", "end"), sample.window, strict=False))
    known |= {} if sample.label is None else {"class": classes[sample.label]}
    predicted = None if sample.predicted is None else classes[sample.predicted]
    return {"file": sample.name, **known, "prediction": predicted, "probabilities": sample.steps}


# In a program


class Prediction(NamedTuple):
    label: str | None  # the name of the predicted class; None for an image in which nothing is drawn
    probabilities: Sequence[float]  # of the classes; none for such an image
    steps: Sequence[Sequence[float]]  # the probabilities after each step; the last are `probabilities`
    note: str  # what makes the prediction doubtful, or nothing


class LoadedPredictor:
    """Classifies files and arrays as predict.py does, with equal results for equal files. Several threads may call it.

    `classes` are the names of the classes, in the order of the probabilities.
    """

    def __init__(self, predictor: Predictor):
        self.predictor, self.classes = predictor, tuple(map(str, predictor.classes))

    def __call__(self, samples: Any, invert: bool | None = None) -> Any:
        """Returns the Prediction of a sample, or a list of them for a list. A sample is the path of a file or of a
        folder of frames, or an array in uint8: an image [height, width] or [height, width, 3], or a clip [frames,
        height, width] or [frames, height, width, 3]; or a series, an array of numbers [time, features]. Raises
        UserError for a file that cannot be read, and ValueError for another array.
        """
        is_single = not isinstance(samples, Iterable) or isinstance(samples, str) or hasattr(samples, "__array__")
        sources = map(as_source, [samples] if is_single else samples)
        batches = read_files(functools.partial(self.predictor.read, invert=invert), sources, [], is_single=True)
        predictions = []
        for sample in classify(self.predictor, batches):
            label, steps = None if sample.predicted is None else self.classes[sample.predicted], list(sample.steps)
            predictions.append(Prediction(label, steps[-1] if steps else [], steps, sample.note))
        return predictions[0] if is_single else predictions


def load_predictor(path: str | Path, trust: Trust = ()) -> LoadedPredictor:
    """Returns what classifies files and arrays with the best epoch of a run, on the CPU.

        predictor = load_predictor("outputs/2026-11-24/23-59-05")
        label, probabilities, steps, _ = predictor("seven.png")

    Raises UserError as load_run does, which explains `trust`.
    """
    classifier, cfg = load_classifier(find_run(str(path), BEST), trust)
    return LoadedPredictor(predictor_of_run(classifier.network.eval(), cfg.data, classifier.spec))


def as_source(sample: Any) -> Path | np.ndarray:
    if isinstance(sample, np.ndarray | torch.Tensor):
        return np.asarray(sample)
    if isinstance(sample, str | Path):
        return expanded(str(sample))
    raise ValueError(f"a sample is a {type(sample).__name__}; give a path, or an array, such as numpy.asarray(sample).")


# Files and test samples


BATCH_SIZE = 256


def predict(
    folder: Path, images: str, invert: bool | None, output: str | None, trust: Trust = (), window: float = 0.0,
    places: Mapping[str, Any] = {},
) -> None:  # fmt: skip
    """`images` names files, or is "test"; `places` are those that `data_of_run` takes. Raises UserError at the end if
    files could not be read.
    """
    classifier, cfg = load_classifier(folder, trust)
    predictor = predictor_of_run(classifier.network.eval(), cfg.data, classifier.spec)
    if images != "test":
        predict_files(predictor, predictor.find(images), invert, output, window)
        return
    data = data_of_run(folder, cfg, classifier.spec, places)
    count, correct = write_predictions(predictor, read_test_samples(data), output)
    log.info(f"{correct:,} of {count:,} test samples are classified correctly: {100 * correct / count:.2f} %")


def predict_files(
    predictor: Predictor, files: Iterable[Path], invert: bool | None, output: str | None, window: float = 0.0
) -> None:
    """Names the files that cannot be read on stderr, and raises UserError at the end if there are any. Videos are cut
    into windows of so many seconds.
    """
    failed: list[bool] = []
    number = len(files) if isinstance(files, Sized) else None

    def read(file: Path) -> Iterable[Reading]:
        readings = predictor.read(file, invert, window)
        if not window or output is None:
            return readings
        return with_progress(readings, "classifying windows", num_windows(file, window))

    if output is not None and not window:  # otherwise the predictions or the windows show the progress
        files = with_progress(files, "classifying files", number)
    batches = read_files(read, files, failed, number == 1)
    write_predictions(predictor, batches, output, window > 0)
    if any(failed):
        raise UserError(f"images: {sum(failed):,} of {len(failed):,} files cannot be read; they are named above.")


def write_predictions(
    predictor: Predictor, batches: Iterable[Sequence[Sample]], output: str | None, has_windows: bool = False
) -> tuple[int, int]:
    """Returns the number of samples, and that of correct predictions of samples whose class is known."""
    count = correct = 0
    with open_output(output, predictor.num_steps, predictor.classes, has_windows) as write:
        for sample in classify(predictor, batches):
            write(sample)
            if output and sample.note:
                print(printable(f"{sample.name}: {sample.note}; check its prediction."), file=sys.stderr)
            correct += sample.label is not None and sample.label == sample.predicted
            count += 1
    if output:
        log.info(f"wrote the predictions of {counted(count, 'sample')} to {output}")
    return count, correct


def classify(predictor: Predictor, batches: Iterable[Sequence[Sample]]) -> Iterator[Sample]:
    for samples in batches:
        drawn = [sample.pixels for sample in samples if sample.pixels is not None]
        probabilities = iter(predictor.probabilities(drawn) if drawn else [])
        for sample in samples:
            yield sample if sample.pixels is None else sample._replace(steps=next(probabilities).tolist())


def read_test_samples(data: SequenceDataModule) -> Iterator[list[Sample]]:
    for numbers in torch.arange(len(data.test)).split(data.num_that_fit(BATCH_SIZE)):
        samples = data.test_samples(numbers, data.num_windows)
        sequences = samples.unpadded()  # the windows of the first sample, those of the second one, ...
        windows = zip(*[iter(sequences)] * (len(sequences) // len(numbers)), strict=True)
        named = zip(data.test_names(numbers), windows, samples.labels.tolist(), strict=True)
        yield [Sample(name, torch.stack(clips).numpy(), label) for name, clips, label in named]


def read_files(
    read: Callable[[Any], Iterable[Reading]], files: Iterable[Path | np.ndarray], failed: list[bool], is_single: bool
) -> Iterator[list[Sample]]:
    """Prints the errors about files that cannot be read, and notes for each in `failed` whether it is one; raises the
    error about a single file, or that of the command.
    """
    samples, num_bytes = [], 0
    for file in files:  # in one thread: for small files, several of them wait for each other
        failed.append(False)
        name = as_text(file) if isinstance(file, Path) else "array"
        try:
            for pixels, note, times in read(file):
                samples.append(Sample(name, pixels, note=note, window=times))
                num_bytes += 0 if pixels is None else pixels.nbytes
                if len(samples) == BATCH_SIZE or num_bytes > MAX_BYTES:
                    yield samples
                    samples, num_bytes = [], 0
        except UserError as error:
            if is_single or isinstance(error, CommandError):
                raise
            print(error, file=sys.stderr)
            failed[-1] = True
    yield samples

"""Classifies image files, or the test images of a run's data, with the run's best checkpoint or an ONNX file.

The predictions are printed as a table or written to a file (predictions.py). Images are read, classified and written
in batches, so that memory does not grow with their number.
"""

import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.data.frames import numbered
from quadrant_lstm.data.image_files import read_image
from quadrant_lstm.data.orderings import scaled
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.build import build_data
from quadrant_lstm.run.inputs import inputs_of
from quadrant_lstm.run.load import load_classifier
from quadrant_lstm.run.predictions import Classes, Prediction, open_output

log = logging.getLogger(__name__)
BATCH_SIZE = 256


class Picture(NamedTuple):
    name: str
    pixels: np.ndarray | None  # uint8, of an image or of the frames of a sequence; None if nothing is drawn
    label: int | None = None


class Predictor(NamedTuple):
    shape: tuple[int, ...]  # of an image or of the frames of a sequence
    probabilities: Callable[[np.ndarray], np.ndarray]  # uint8 [samples, *shape] -> [samples, steps, classes]
    classes: Classes


def predict(
    folder: Path, files: Iterable[Path] | None, invert: bool | None, output: str | None, trust: Sequence[str] = ()
) -> None:
    """Predicts `files`, or the test images if that is None. Raises UserError at the end if files could not be read."""
    classifier, cfg = load_classifier(folder, trust)
    network, spec = classifier.network.eval(), classifier.spec
    inputs, classes = inputs_of(cfg.data, spec), names_or_numbers(spec.class_names)

    @torch.inference_mode()
    def of_frames(frames: np.ndarray) -> np.ndarray:
        return logits_after_steps(network, scaled(torch.from_numpy(frames))).softmax(dim=2).numpy()

    if files is None:
        predictor = Predictor((spec.num_steps, *spec.frame_shape), of_frames, classes)
        count, correct = write_predictions(predictor, read_test_samples(build_data(cfg)), output)
        log.info(f"{correct:,} of {count:,} test samples are classified correctly: {100 * correct / count:.2f} %")
        return
    if inputs.name == "clips":
        raise UserError(f"images: this run reads clips of {cfg.data.dataset}, not images; write images=test.")

    def of_images(images: np.ndarray) -> np.ndarray:
        return of_frames(inputs.to_frames(torch.from_numpy(images)).numpy())

    predict_files(Predictor(inputs.shape, of_images, classes), files, invert, output)


def names_or_numbers(names: Sequence[str]) -> Classes:
    return range(len(names)) if tuple(names) == numbered(len(names)) else names


def predict_files(predictor: Predictor, files: Iterable[Path], invert: bool | None, output: str | None) -> None:
    """Names the files that cannot be read on stderr, and raises UserError at the end if there are any."""
    errors: list[UserError] = []
    batches = read_files(files, predictor.shape, invert, errors)
    count, _ = write_predictions(predictor, batches if output is None else with_progress(batches, files), output)
    if errors:
        raise UserError(
            f"images: {len(errors):,} of {count + len(errors):,} files cannot be read; they are named above."
        )


def write_predictions(
    predictor: Predictor, batches: Iterable[Sequence[Picture]], output: str | None
) -> tuple[int, int]:
    """Returns the number of images, and that of correct predictions of images whose class is known."""
    count = correct = 0
    _, num_steps, _ = predictor.probabilities(np.zeros((1, *predictor.shape), np.uint8)).shape
    with open_output(output, num_steps, predictor.classes) as write:
        for pictures in batches:
            for prediction in classify(predictor, pictures):
                write(prediction)
                correct += prediction.label is not None and prediction.label == prediction.predicted
            count += len(pictures)
    if output:
        log.info(f"wrote the predictions of {count:,} images to {output}")
    return count, correct


def classify(predictor: Predictor, pictures: Sequence[Picture]) -> Iterator[Prediction]:
    pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
    probabilities = iter(predictor.probabilities(np.stack(pixels)).tolist() if pixels else [])
    for name, image, label in pictures:
        yield Prediction(name, [] if image is None else next(probabilities), label)


def read_test_samples(data: SequenceDataModule) -> Iterator[list[Picture]]:
    for numbers in torch.arange(len(data.test)).split(BATCH_SIZE):
        frames, labels, _ = data.test_samples(numbers)
        samples = zip(numbers.tolist(), frames.numpy(), labels.tolist(), strict=True)
        yield [Picture(f"test sample {number}", clip, label) for number, clip, label in samples]


def read_files(
    files: Iterable[Path], image_shape: Sequence[int], invert: bool | None, errors: list[UserError]
) -> Iterator[list[Picture]]:
    """Prints the errors about files that cannot be read, and adds them to `errors`."""
    remaining = iter(files)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        pictures = []
        for file in batch:  # in one thread: for small files, several of them wait for each other
            try:
                pictures.append(Picture(str(file), read_image(file, image_shape, invert)))
            except UserError as error:
                print(error, file=sys.stderr)
                errors.append(error)
        yield pictures


def with_progress(batches: Iterable[list[Any]], files: Iterable[Path] | None) -> Iterable[list[Any]]:
    """Shows a progress bar on a terminal. Without the number of files, it shows how many batches are done."""
    total = -(-len(files) // BATCH_SIZE) if isinstance(files, Sized) else None
    return track(batches, "batches of 256 images", total, console=Console(stderr=True), disable=not sys.stderr.isatty())


def load_onnx_file(model: str) -> Predictor:
    """Reads a file that export.py wrote. Its probabilities are those after the last step."""
    with needs_extra("model", "export"):
        import onnxruntime
    try:
        session = onnxruntime.InferenceSession(Path(model).read_bytes(), providers=["CPUExecutionProvider"])
        channels, height, width = map(int, session.get_inputs()[0].shape[1:])

        def probabilities(images: np.ndarray) -> np.ndarray:
            return session.run(["probabilities"], {"images": images.astype(np.float32) / 255})[0][:, None]

        for count in (1, 2):  # it must take any number
            _, _, num_classes = probabilities(np.zeros((count, channels, height, width), np.uint8)).shape
        metadata = session.get_modelmeta().custom_metadata_map
        names = json.loads(metadata["class_names"]) if "class_names" in metadata else numbered(num_classes)
    except Exception as error:  # onnxruntime raises errors of many types
        reason = error.strerror if isinstance(error, OSError) else "it is no ONNX file of this project"
        raise UserError(
            f"model: {model} cannot be read ({reason}); give a file that export.py format=onnx wrote."
        ) from error
    return Predictor((channels, height, width), probabilities, names_or_numbers(names))

"""Makes a Predictor of a run's best checkpoint, or of an ONNX file that export.py wrote.

A sample is an image [channels, height, width] or a clip [frames, channels, height, width], in uint8. Clips of one batch
may have different lengths.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from quadrant_lstm.data.clip_files import BrokenClip, FrameFormat, count_frames, frame_numbers, read_frames, steps_in
from quadrant_lstm.data.clip_folder import find_clip_files
from quadrant_lstm.data.frames import SequenceSpec, Shape, numbered_names
from quadrant_lstm.data.image_files import find_image_files, read_image
from quadrant_lstm.data.orderings import scaled
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded, parse_yaml
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.inputs import Inputs, inputs_of, reads_more_steps
from quadrant_lstm.run.predictions import Classes


class Predictor(NamedTuple):
    find: Callable[[str], Iterable[Path]]  # the files that the key `images` names
    read: Callable[[Path, bool | None], np.ndarray | None]  # a sample; None if nothing is drawn
    probabilities: Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # [steps, classes] of each sample
    num_steps: int  # of the probabilities, at most
    classes: Classes


def predictor_of_run(network: nn.Module, data: DictConfig, spec: SequenceSpec) -> Predictor:
    """`data` is that group of the run's config."""
    inputs = inputs_of(data, spec)
    if inputs.name == "images":
        predict, files = of_images(network, inputs), image_files(inputs.shape)
    else:
        predict, files = of_clips(network, spec), clip_files(data, spec.frame_shape, spec.num_steps)
    (steps,) = predict([np.zeros(inputs.shape, np.uint8)])
    return Predictor(*files, predict, len(steps), names_or_numbers(spec.class_names))


def of_images(network: nn.Module, inputs: Inputs) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    @torch.inference_mode()
    def probabilities(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        frames = scaled(inputs.to_frames(torch.from_numpy(np.stack(images))))
        return list(logits_after_steps(network, frames).softmax(dim=2).numpy())

    return probabilities


def of_clips(network: nn.Module, spec: SequenceSpec) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    example = torch.zeros(1, spec.num_steps, *spec.frame_shape)
    num_steps = 0 if reads_more_steps(network, example) else spec.num_steps

    @torch.inference_mode()
    def probabilities(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        frames, lengths = padded(clips, num_steps)
        steps = logits_after_steps(network, scaled(frames), lengths).softmax(dim=2).numpy()
        return [each[: len(clip)] for each, clip in zip(steps, clips, strict=True)]

    return probabilities


def padded(clips: Sequence[np.ndarray], num_steps: int) -> tuple[Tensor, Tensor | None]:
    """Returns the frames of all clips, at least `num_steps` of each, and the clips' lengths if any is padded."""
    lengths = torch.tensor([len(clip) for clip in clips])
    longest = max(num_steps, int(lengths.max()))
    frames = torch.zeros(len(clips), longest, *clips[0].shape[1:], dtype=torch.uint8)
    for place, clip in enumerate(clips):
        frames[place, : len(clip)] = torch.from_numpy(clip)
    return frames, None if bool((lengths == longest).all()) else lengths


def image_files(shape: Shape) -> tuple[Any, Any]:
    """Returns functions that find and read files."""
    return find_image_files, lambda file, invert: read_image(file, shape, invert)


def clip_files(data: DictConfig, frame_shape: Shape, num_frames: int | None, fewest_frames: int = 1) -> tuple[Any, Any]:
    """Returns functions that find and read clips, of which they take what the test does: every n-th frame, and the
    middle of a long clip. Reading raises UserError for a clip of fewer frames than `fewest_frames`.
    """
    channels, height, width = frame_shape
    frame_format, step = FrameFormat(channels, (height, width), data.get("layout")), data.get("frame_step", 1)

    def read(file: Path, invert: bool | None) -> np.ndarray:
        if invert is not None:
            raise UserError("invert: is for images, but this run reads clips; leave it out.")
        try:
            return read_middle(file)
        except BrokenClip as error:
            raise UserError(f"{error}; replace it or leave it out.") from error

    def read_middle(file: Path) -> np.ndarray:
        available = steps_in(count_frames(file, frame_format.layout), step)
        if available < fewest_frames:
            raise UserError(
                f"{file}: has {available} frames, but the network of this file reads exactly {fewest_frames}; predict "
                "with run=PATH instead of model=, which pads it."
            )
        length = min(available, num_frames or available)
        start = (available - length) // 2
        frames = np.empty((length, height, width, channels), np.uint8)
        read_frames(file, frame_format, frame_numbers(start, length, step), frames)
        return np.moveaxis(frames, 3, 1)

    return find_clip_files, read


def names_or_numbers(names: Sequence[str]) -> Classes:
    return range(len(names)) if tuple(names) == numbered_names(len(names)) else names


def predictor_of_onnx(model: str) -> Predictor:
    """The probabilities are those after the last step."""
    with needs_extra("model", "export"):
        import onnxruntime
    try:
        session = onnxruntime.InferenceSession(expanded(model).read_bytes(), providers=["CPUExecutionProvider"])
        return predictor_of_session(session)
    except Exception as error:  # onnxruntime raises errors of many types
        reason = error.strerror if isinstance(error, OSError) else "it is not an ONNX file of this project"
        raise UserError(
            f"model: {model} cannot be read ({reason}); give a file that export.py format=onnx wrote."
        ) from error


def predictor_of_session(session: Any) -> Predictor:
    (given,), metadata = session.get_inputs(), session.get_modelmeta().custom_metadata_map

    def run(samples: np.ndarray) -> np.ndarray:
        return session.run(["probabilities"], {given.name: samples.astype(np.float32) / 255})[0]

    def of_equal_samples(samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(run(np.stack(samples))[:, None])

    def of_any_clips(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [run(clip[None]) for clip in clips]  # the program has no lengths of padded clips

    predict: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
    *steps, channels, height, width = given.shape[1:]
    if given.name != ("clips" if steps else "images"):
        raise ValueError(f"its input is called {given.name}")
    shape = int(channels), int(height), int(width)
    if steps:
        data = parse_yaml(metadata["config"]).data
        fixed = steps[0] if isinstance(steps[0], int) else None
        files = clip_files(data, shape, fixed or data.num_frames, fixed or 1)
        predict = of_equal_samples if fixed else of_any_clips
        example = np.zeros((fixed or 2, *shape), np.uint8)
    else:
        files, predict, example = image_files(shape), of_equal_samples, np.zeros(shape, np.uint8)
    for count in (1, 2):  # a program must take batches of any size
        probabilities = predict([example] * count)
    num_classes = probabilities[0].shape[1]
    names = json.loads(metadata["class_names"]) if "class_names" in metadata else numbered_names(num_classes)
    return Predictor(*files, predict, 1, names_or_numbers(names))

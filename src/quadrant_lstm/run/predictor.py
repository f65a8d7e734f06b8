"""Makes a Predictor of the network of a run, or of an exported ONNX file.

A sample is the frames of an image [1, steps, channels, height, width] or windows of a clip [windows, frames, channels,
height, width], in uint8, or windows of a series [windows, steps, ...], in float32; for a program, an image is [1,
channels, height, width]. Sequences of one batch may have different lengths.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from quadrant_lstm.config.values import resolve_interpolations
from quadrant_lstm.data import clip_frames
from quadrant_lstm.data.datamodule import num_at_once
from quadrant_lstm.data.file_sequences import windows_of
from quadrant_lstm.data.image_files import find_image_files
from quadrant_lstm.data.image_reader import Reading, read_image
from quadrant_lstm.data.orderings import SequenceSpec, Shape, network_inputs, numbered_names
from quadrant_lstm.data.series import steps_at, steps_available
from quadrant_lstm.data.series_files import as_series, find_series_files, read_series
from quadrant_lstm.data.videos import opened_video
from quadrant_lstm.errors import CommandError, UserError, needs_extra
from quadrant_lstm.files import expanded, parse_yaml
from quadrant_lstm.model.protocols import logits_after_steps
from quadrant_lstm.run.build import parts_without_lengths
from quadrant_lstm.run.exported_program import Inputs, inputs_of, reads_more_steps
from quadrant_lstm.text import counted

Classes = Sequence[int | str]  # the names of the classes, or their numbers if they have no names
Compute = Callable[[Tensor, Tensor], Tensor]  # padded frames and their lengths -> the probabilities after each step
Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # [steps, classes] of each sample
Read = Callable[..., Iterator[Reading]]  # of a file or array, by `invert` and the seconds of windows of a video, if any


class Predictor(NamedTuple):
    find: Callable[[str], Iterable[Path]]  # the files that the key `images` names
    read: Read
    probabilities: Predict
    num_steps: int  # of the probabilities, at most
    classes: Classes


def predictor_of(
    compute: Compute, inputs: Inputs, data: Mapping[Any, Any], spec: SequenceSpec, takes_lengths: bool, any_steps: bool
) -> Predictor:
    """`data` is that group of the run's config. `any_steps` tells whether sequences may have any number of steps."""
    fewest = 1 if any_steps else spec.num_steps
    fewest_in_file = 1 if takes_lengths else fewest  # shorter sequences cannot be padded
    if inputs.name == "images":
        files = find_image_files, reader_of_images(inputs, data)
    elif inputs.name == "series":
        files = find_series_files, reader_of_series(series_format(data, spec), fewest_in_file)
    else:
        files = clip_frames.find_clip_files, reader_of_clips(data, spec.frame_shape, spec.num_steps, fewest_in_file)
    together = of_clips(compute, spec.frame_shape, fewest)
    one_by_one = any_steps and not takes_lengths  # sequences of different lengths cannot be padded
    predict = (lambda samples: [together([sample])[0] for sample in samples]) if one_by_one else together
    (steps,) = predict([np.zeros((1, spec.num_steps, *spec.frame_shape), np.uint8)])
    are_numbers = tuple(spec.class_names) == numbered_names(spec.num_classes)
    return Predictor(*files, predict, len(steps), range(spec.num_classes) if are_numbers else spec.class_names)


def predictor_of_run(network: nn.Module, data: DictConfig, spec: SequenceSpec) -> Predictor:
    """`data` is that group of the run's config. Samples are sequences of frames: images are cut when they are read."""
    any_steps = reads_more_steps(network, torch.zeros(1, spec.num_steps, *spec.frame_shape))

    def compute(frames: Tensor, lengths: Tensor) -> Tensor:
        padded = lengths if lengths.min() < frames.shape[1] else None
        return logits_after_steps(network, frames, padded).softmax(dim=2)

    return predictor_of(compute, inputs_of(data, spec), data, spec, not parts_without_lengths(network), any_steps)


def of_clips(compute: Compute, frame_shape: Shape, fewest_steps: int) -> Predict:
    """Returns a function that pads windows of clips or series to the longest, and at least to `fewest_steps`, and
    averages the probabilities of the windows of each sample.
    """

    @torch.inference_mode()
    def probabilities(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        windows = [window for clip in clips for window in clip]
        lengths = torch.tensor(list(map(len, windows)))
        shape = max(fewest_steps, int(lengths.max())), *frame_shape
        parts = []
        for numbers in torch.arange(len(windows)).split(num_at_once(shape)):
            frames = torch.zeros(len(numbers), *shape)
            for place, number in enumerate(numbers.tolist()):
                frames[place, : lengths[number]] = network_inputs(torch.from_numpy(windows[number]))
            parts.append(compute(frames, lengths[numbers]))
        steps = torch.cat(parts)
        by_clip = zip(steps.split([len(clip) for clip in clips]), clips, strict=True)
        return [after_steps.mean(0)[: clip.shape[1]].numpy() for after_steps, clip in by_clip]

    return probabilities


def reader_of_images(inputs: Inputs, data: Mapping[Any, Any]) -> Read:
    like_mnist = data["dataset"].lower() == "mnist"

    def read(source: Path | np.ndarray, invert: bool | None = None, window: float = 0.0) -> Iterator[Reading]:
        if window:
            raise CommandError("window: is for videos, but this network reads images; leave it out.")
        if isinstance(source, np.ndarray):
            check_array(source, ("height", "width"), (3, 4))
        image = read_image(source, inputs.shape, invert, like_mnist)
        if image.pixels is not None:
            image = image._replace(pixels=inputs.to_frames(torch.from_numpy(image.pixels)[None]).numpy())
        yield image

    return read


def clip_format(data: Mapping[Any, Any], frame_shape: Shape, num_frames: int) -> dict[str, Any]:
    """Returns how a test clip is read, as the metadata of a program tell it. `data` is that group of the config."""
    channels, *size = frame_shape
    form = {"colours": "RGB" if channels == 3 else "grey", "size": size, "num_frames": num_frames}
    defaults = {"fit": "stretch", "sampling": "consecutive", "frame_step": 1, "fps": None, "test_windows": 1}
    return form | {key: data.get(key, default) for key, default in defaults.items()}


def reader_of_clips(data: Mapping[Any, Any], frame_shape: Shape, num_frames: int, fewest_frames: int = 1) -> Read:
    """Reading takes the frames that the test does. It raises UserError for a clip of fewer than `fewest_frames`."""
    channels, height, width = frame_shape
    form = clip_format(data, frame_shape, num_frames)
    frame_format = clip_frames.FrameFormat(channels, (height, width), data.get("layout"), form["fit"])

    def numbers_of(note: clip_frames.Note, name: str) -> np.ndarray:
        """Returns the numbers of the frames [windows, steps] that the test reads."""
        if form["fps"] and note.seconds is None:
            raise UserError(f"{name}: has no times, but this network was trained with data.fps; give a video.")
        available = clip_frames.frames_available(note, form["frame_step"], form["fps"])
        return in_windows(available, form, fewest_frames, name)

    def read(source: Any, invert: bool | None = None, window: float = 0.0) -> Iterator[Reading]:
        if invert is not None:
            raise CommandError("invert: is for images, but this run reads clips; leave it out.")
        try:
            if window:
                for start, end, times, shown in cut_video(source, frame_format, window):
                    note = clip_frames.Note(None, len(shown), height, width, "", end - start, times, [])
                    chosen = numbers_of(note, f"{source}, {start:g} to {end:g} s")
                    pixels = np.moveaxis(np.stack(shown)[chosen], 4, 2)
                    yield Reading(pixels, window=(round(start, 6), round(end, 6)))
                return
            if is_array := isinstance(source, np.ndarray):
                check_array(source, ("frames", "height", "width"), (3,))
                note, name = clip_frames.Note(None, len(source), height, width, "", None, None, []), "the array"
            else:
                note, name = clip_frames.examine(source, frame_format, checks_files=False), str(source)
                if num_frames > 1 and clip_frames.is_still(source, note.num_frames):
                    remedy = "put the frames of a clip, and nothing else, into a folder"
                    raise UserError(f"{name}: is a single picture, but this network reads clips; {remedy}.")
            chosen = numbers_of(note, name)
            numbers, places = np.unique(chosen, return_inverse=True)
            frames = np.empty((len(numbers), height, width, channels), np.uint8)
            if is_array:
                frames[:] = [clip_frames.as_array(source[number], frame_format) for number in numbers]
            else:
                clip_frames.read_frames(source, frame_format, numbers.tolist(), frames)
            is_part = 10 * chosen.size < note.num_frames or num_frames == 1 < note.num_frames
            doubt = f"only {len(numbers)} of {note.num_frames:,} frames were read" if is_part else ""
            yield Reading(np.moveaxis(frames[places.reshape(chosen.shape)], 4, 2), doubt)
        except clip_frames.BrokenClip as error:
            remedy = "correct its name" if isinstance(error.__cause__, FileNotFoundError) else "replace it"
            raise UserError(f"{error}; {remedy}, or leave it out.") from error

    return read


def in_windows(available: np.ndarray, form: Mapping[str, Any], fewest: int, name: str) -> np.ndarray:
    """Returns those of the available frames or steps that a test reads, [windows, steps]."""
    if len(available) < fewest:
        rule = f"but this network needs {fewest}"
        remedy = "give a longer one; or, with model=, predict with run=PATH, which may pad it"
        raise UserError(f"{name}: has {counted(len(available), 'step')}, {rule}; {remedy}.")
    return available[windows_of(form["sampling"], len(available), form["num_frames"], form["test_windows"])]


def series_format(data: Mapping[Any, Any], spec: SequenceSpec) -> dict[str, Any]:
    """Returns how a test series is read, as the metadata of a program tell it. `data` is that group of the config."""
    keys = ("sampling", "window", "stride", "test_windows", "missing")
    form = {"features": spec.frame_shape[0], "feature_names": spec.feature_names, "num_frames": spec.num_steps}
    return form | {key: data[key] for key in keys}


def reader_of_series(form: Mapping[str, Any], fewest_steps: int) -> Read:
    size, missing, names = form["window"], form["missing"], form["feature_names"]

    def read(source: Any, invert: bool | None = None, window: float = 0.0) -> Iterator[Reading]:
        if invert is not None or window:
            key = "window: is for videos" if window else "invert: is for images"
            raise CommandError(f"{key}, but this network reads series; leave it out.")
        is_array = isinstance(source, np.ndarray)
        name = "the array" if is_array else str(source)
        values = as_series(source, missing) if is_array else read_series(source, missing, names)[0]
        if values.shape[1] != form["features"] or len(values) < (size or 1):
            rule = f"{form['features']} features{f', in windows of {size} times' if size else ''}"
            shape = f"{name}: is {list(values.shape)}, [time, features]"
            error = ValueError if is_array else UserError
            raise error(f"{shape}, but the network reads {rule}; give such a series.")
        available = steps_available(len(values), size, form["stride"])
        chosen = in_windows(available, form, fewest_steps, name)
        is_part = form["sampling"] == "consecutive" and 2 * chosen.size < len(available)  # far longer than in training
        note = f"only {chosen.size} of {len(available)} steps were read" if is_part else ""
        yield Reading(steps_at(values, chosen, size), note)

    return read


def cut_video(
    video: Path, frame_format: clip_frames.FrameFormat, seconds: float
) -> Iterator[tuple[float, float, list[float], list[np.ndarray]]]:
    """Yields the start and the end of each window, when its frames begin after the start, and the frames; where none
    begins, the one that is still shown. The last window may be shorter by half.
    """
    start, times, frames, last = 0.0, list[float](), list[Any](), None
    for time, frame in timed_frames(video, frame_format):
        is_end = frame is None
        while time - start >= (seconds / 2 if is_end and start else seconds - clip_frames.TOLERANCE):
            yield start, min(start + seconds, time if is_end else math.inf), times or [0.0], frames or [last]
            start, times, frames = start + seconds, [], []
        last = frame
        times.append(max(0.0, time - start))
        frames.append(frame)
    if not start:
        raise UserError(f"window: {seconds:g}s is longer than {video}, which has {time:.2f} s; write a shorter one.")


def num_windows(video: Path, seconds: float) -> int | None:
    """Returns about how many windows `cut_video` yields, if the video tells how long it is."""
    with contextlib.suppress(Exception):  # the reader explains it
        if clip_frames.is_video(video) and video.is_file():
            with opened_video(video) as (container, _):
                return container.duration and round(container.duration / 1e6 / seconds)  # which is in microseconds
    return None


def timed_frames(video: Path, frame_format: clip_frames.FrameFormat) -> Iterator[tuple[float, Any]]:
    """Yields when each frame begins, in seconds after the first, and the frame; then when the video ends, and None."""
    if not clip_frames.is_video(video):
        raise UserError(f"window: is for videos, but {video} is none; leave it out.")
    first, now, frame = math.nan, -math.inf, None
    with clip_frames.decoder_errors_explained(video):
        for frame in clip_frames.frames_in(video, None):
            if frame.time is None or frame.time < now:  # an AVI file has no times of B-frames
                raise UserError(f"{video}: lacks the times of some frames; convert it to mp4.")
            now, first = frame.time, frame.time if math.isnan(first) else first
            yield now - first, clip_frames.as_array(frame, frame_format)
        if frame is None:
            raise ValueError("it holds no frames")
        yield now - first + float((frame.duration or 0) * frame.time_base), None


def check_array(array: np.ndarray, axes: Sequence[str], colours: Sequence[int]) -> None:
    if array.dtype != np.uint8:
        raise ValueError(f"the array is {array.dtype}; give uint8, with values from 0 to 255.")
    is_picture = array.ndim == 3 == len(axes) == array.shape[-1]  # one in colour, which is no clip of three columns
    endings = [(), *((each,) for each in colours)]
    if is_picture or not array.size or array.ndim < len(axes) or array.shape[len(axes) :] not in endings:
        rule = f"give [{', '.join(axes)}, {colours[0]}], or without the {colours[0]} for grey, and several as a list"
        raise ValueError(f"the array is {list(array.shape)}; {rule}.")


# ONNX files, whose probabilities are those after the last step


def predictor_of_onnx(model: str) -> Predictor:
    with needs_extra("model", "export"):
        import onnxruntime
    try:
        session = onnxruntime.InferenceSession(expanded(model).read_bytes(), providers=["CPUExecutionProvider"])
        return predictor_of_session(session)
    except Exception as error:  # onnxruntime raises errors of many types
        reason = error.strerror if isinstance(error, OSError) else "it is not an ONNX file of this project"
        if isinstance(error, UserError):
            reason = str(error).partition(";")[0]  # without the remedy, which is for a config that one can edit
        raise UserError(f"model: {model} cannot be read ({reason}); give a file of export.py format=onnx.") from error


def predictor_of_session(session: Any) -> Predictor:
    (program_input, *others), metadata = session.get_inputs(), session.get_modelmeta().custom_metadata_map
    kind, (_, steps, *shape) = program_input.name, program_input.shape  # of an image, the channels stand for steps
    data = resolve_interpolations(parse_yaml(metadata["config"]), trusted=False)["data"]
    names, num_classes = json.loads(metadata["class_names"]), session.get_outputs()[0].shape[1]
    if len(names) != num_classes:
        raise ValueError(f"it has {num_classes} classes, but the names {names}")

    def compute(frames: Tensor, lengths: Tensor) -> Tensor:
        inputs = {kind: frames.numpy()} | {each.name: lengths.numpy() for each in others}
        return torch.from_numpy(session.run(["probabilities"], inputs)[0])[:, None]

    any_steps = not isinstance(steps, int)
    columns = json.loads(metadata.get("reading", "{}")).get("feature_names", ())
    spec = SequenceSpec(tuple(shape), data["num_frames"] if any_steps else steps, names, columns)
    inputs = Inputs(kind, (steps, *shape), lambda images: images)
    return predictor_of(compute, inputs, data, spec, takes_lengths=bool(others), any_steps=any_steps)

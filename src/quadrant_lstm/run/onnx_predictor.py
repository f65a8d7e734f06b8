"""Makes a Predictor of an ONNX file that export.py wrote. Its probabilities are those after the last step."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from quadrant_lstm.config.check_value import check_value
from quadrant_lstm.config.interpolations import resolve_interpolations
from quadrant_lstm.config.schema import CLASSES
from quadrant_lstm.data.orderings import numbered_names
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.files import expanded, parse_yaml
from quadrant_lstm.kinds import Dataset
from quadrant_lstm.run.predictor import Predictor, files_of_clips, files_of_images, names_or_numbers

CLIPS = CLASSES["quadrant_lstm.data.clips.Clips"]
READ = {name: CLIPS[name] for name in ("num_frames", "frame_step", "layout")} | {"dataset": Dataset}


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
        raise UserError(
            f"model: {model} cannot be read ({reason}); give a file that export.py format=onnx wrote."
        ) from error


def predictor_of_session(session: Any) -> Predictor:
    (given,), metadata = session.get_inputs(), session.get_modelmeta().custom_metadata_map
    *steps, channels, height, width = given.shape[1:]
    if given.name != ("clips" if steps else "images"):
        raise ValueError(f"its input is called {given.name}")
    shape = int(channels), int(height), int(width)
    num_frames = steps[0] if steps and isinstance(steps[0], int) else None  # None for any number

    def run(samples: np.ndarray) -> np.ndarray:
        return session.run(["probabilities"], {given.name: samples.astype(np.float32) / 255})[0]

    def predict(samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        if steps and num_frames is None:
            return [run(clip[None]) for clip in samples]  # the program takes no lengths of padded clips
        return list(run(np.stack(samples))[:, None])

    data = data_settings(metadata["config"])
    if steps:
        files = files_of_clips(data, shape, num_frames or data["num_frames"], num_frames or 1)
        example = np.zeros((num_frames or 2, *shape), np.uint8)
    else:
        files, example = files_of_images(shape, data), np.zeros(shape, np.uint8)
    for count in (1, 2):  # a program of images must take batches of any size
        probabilities = predict([example] * count)
    num_classes = probabilities[0].shape[1]
    names = json.loads(metadata["class_names"]) if "class_names" in metadata else numbered_names(num_classes)
    if len(names) != num_classes or not all(isinstance(name, str) for name in names):
        raise ValueError(f"it has {num_classes} classes, but the names {names}")
    "".join(names).encode()  # raises an error for half a surrogate pair, which no file could hold
    return Predictor(files, predict, 1, names_or_numbers(names))


def data_settings(config: str) -> dict[str, Any]:
    """Returns what the config of a run, which may come from somebody else, says about reading images or clips."""
    data = resolve_interpolations(parse_yaml(config), trusted=False)["data"]
    settings = {name: data[name] for name in READ if name in data}
    for name, value in settings.items():
        check_value(f"data.{name}", value, READ[name])
    return settings

"""Checks that the data of a config exists and fits its keys.

Data sets that are downloaded are checked when training starts.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quadrant_lstm.data.clip_index import find_clips
from quadrant_lstm.data.images import Images, load_images
from quadrant_lstm.data.orderings import Shape, frame_shape_of, orderings_of
from quadrant_lstm.errors import UserError


def check_orderings(data: Mapping[str, Any]) -> None:
    """Raises UserError for what is neither a permutation of the pieces of the grid nor a name."""
    for key in ("orderings", "train_orderings", "test_orderings"):
        try:
            orderings_of(data.get(key) or (), data.get("grid", ()))
        except ValueError as error:
            raise UserError(f"data.{key}: {error}") from error


def check_image_sequences(data: Mapping[str, Any]) -> Shape | None:
    num_stacked = len(data["orderings"])
    for key in ("train_orderings", "test_orderings"):
        if data.get(key) and len(data[key]) % num_stacked:
            raise UserError(
                f"data.{key}: {len(data[key])} orderings cannot fill frames that stack {num_stacked}; "
                f"write a multiple of {num_stacked}."
            )
    images = available_images(data)
    if images is None:
        return None
    images.check_grid(data["grid"])
    return frame_shape_of(images.image_shape, num_stacked, data["grid"])


def check_moving_digits(data: Mapping[str, Any]) -> Shape | None:
    if data["label"] == "motion":
        check_motion(data["num_frames"], data["canvas"], data["speed"])
    images = available_images(data)
    if images is None:
        return None
    images.check_canvas(data["canvas"])
    return images.image_shape[0], *data["canvas"]


def check_motion(num_frames: int, canvas: Sequence[int], speed: int) -> None:
    """Raises UserError if clips cannot tell the directions apart."""
    if num_frames < 2:
        raise UserError(f"data.num_frames: {num_frames} shows no motion; write at least 2 for data.label=motion.")
    if any(2 * speed % size == 0 for size in canvas):  # a digit that leaves the canvas enters it on the opposite side
        raise UserError(
            f"data.speed: with {speed} pixels, opposite directions look alike on a canvas of {canvas[0]} x "
            f"{canvas[1]}; write another speed for data.label=motion."
        )


def check_clips(data: Mapping[str, Any]) -> Shape | None:
    if data["num_workers"] and not hasattr(os, "fork"):
        raise UserError(
            f"data.num_workers: {data['num_workers']}, but this system cannot fork the processes that read clips; "
            "write data.num_workers=0."
        )
    find_clips(data["root"], data["test_share"], data["validation_seed"], data["layout"])
    return None if data["size"] is None else (data["channels"], *data["size"])


def available_images(data: Mapping[str, Any]) -> Images | None:
    """Returns the images of a data set on this machine; raises UserError if none would be left to train on."""
    if data["dataset"] not in ("mnist", "idx"):
        return None
    images = load_images(data["dataset"], data["root"])
    images.validation_range(data["validation_images"], data["fold"], data["num_folds"])
    return images


# By the class of the data: functions that return the shape of a frame, or None if it is not known yet.
DATA_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], Shape | None]] = {
    "quadrant_lstm.data.image_sequences.ImageSequences": check_image_sequences,
    "quadrant_lstm.data.moving_digits.MovingDigits": check_moving_digits,
    "quadrant_lstm.data.clips.Clips": check_clips,
}

"""Defines shapes of images and frames, and names of metrics, in plain Python: configs are checked without torch."""

from collections.abc import Sequence

Shape = Sequence[int]  # channels, height, width
STEPS = 4


def step_accuracy_names(split: str) -> tuple[str, ...]:
    """Returns e.g. "val/accuracy_step_1" to "val/accuracy_step_4" for the split "val"."""
    return tuple(f"{split}/accuracy_step_{step}" for step in range(1, STEPS + 1))


def frame_shape_of(image_shape: Shape, num_orderings: int) -> tuple[int, int, int]:
    """Returns the shape of a frame, which stacks one quadrant of the image for each ordering."""
    channels, height, width = image_shape
    return channels, num_orderings * height // 2, width // 2


def image_shape_of(frame_shape: Shape, num_orderings: int) -> tuple[int, int, int]:
    channels, height, width = frame_shape
    return channels, 2 * height // num_orderings, 2 * width

"""The shapes of images and frames, and the number of steps, in plain Python: a config is checked without torch."""

from collections.abc import Sequence

Shape = Sequence[int]  # channels, height, width
STEPS = 4


def after_steps(stage: str) -> tuple[str, ...]:
    """The metrics train/accuracy_step_1 to train/accuracy_step_4, for `stage` "train"."""
    return tuple(f"{stage}/accuracy_step_{step}" for step in range(1, STEPS + 1))


def frame_shape_of(image_shape: Shape, num_orderings: int) -> tuple[int, int, int]:
    """A frame stacks one quadrant of the image for each ordering."""
    channels, height, width = image_shape
    return channels, num_orderings * height // 2, width // 2


def image_shape_of(frame_shape: Shape, num_orderings: int) -> tuple[int, int, int]:
    """The image whose quadrants are stacked in such frames."""
    channels, height, width = frame_shape
    return channels, 2 * height // num_orderings, 2 * width

"""Defines shapes of images and frames in plain Python: configs are checked without torch."""

from collections.abc import Sequence
from typing import NamedTuple

from quadrant_lstm.kinds import Grid

Shape = Sequence[int]  # channels, height, width


class SequenceSpec(NamedTuple):
    """What a network has to fit. A checkpoint stores it."""

    frame_shape: tuple[int, int, int]
    num_steps: int
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def numbered_names(num_classes: int) -> tuple[str, ...]:
    """Returns the names of classes that have none: 0, 1, 2, ..."""
    return tuple(map(str, range(num_classes)))


def frame_shape_of(image_shape: Shape, num_orderings: int, grid: Grid) -> tuple[int, int, int]:
    """Returns the shape of a frame, which stacks one piece of the image for each ordering."""
    channels, height, width = image_shape
    return channels, num_orderings * (height // grid[0]), width // grid[1]


def image_shape_of(frame_shape: Shape, num_orderings: int, grid: Grid) -> tuple[int, int, int]:
    channels, height, width = frame_shape
    return channels, grid[0] * height // num_orderings, grid[1] * width

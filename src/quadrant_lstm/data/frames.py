"""Defines shapes of images and frames, and names of metrics, in plain Python: configs are checked without torch."""

from collections.abc import Iterable, Sequence
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


def step_accuracy_names(split: str, num_steps: int) -> tuple[str, ...]:
    """Returns e.g. "val/accuracy_step_1" to "val/accuracy_step_4" for the split "val" and four steps."""
    return tuple(f"{split}/accuracy_step_{step}" for step in range(1, num_steps + 1))


def step_accuracies_in(split: str, values: Iterable[str]) -> list[str]:
    """Returns those of the names that step_accuracy_names gives for some number of steps, in the order of the steps."""
    start = f"{split}/accuracy_step_"
    return sorted((name for name in values if name.startswith(start)), key=lambda name: int(name.removeprefix(start)))


def frame_shape_of(image_shape: Shape, num_orderings: int, grid: Grid) -> tuple[int, int, int]:
    """Returns the shape of a frame, which stacks one piece of the image for each ordering."""
    channels, height, width = image_shape
    return channels, num_orderings * (height // grid[0]), width // grid[1]


def image_shape_of(frame_shape: Shape, num_orderings: int, grid: Grid) -> tuple[int, int, int]:
    channels, height, width = frame_shape
    return channels, grid[0] * height // num_orderings, grid[1] * width

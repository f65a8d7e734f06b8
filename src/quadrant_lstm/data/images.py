"""Holds the images and labels of a data set, with its image shape, number of classes and checksum."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quadrant_lstm.data.split import validation_range
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import Grid


class Images(NamedTuple):
    """Images are uint8 [images, channels, height, width], labels int64 [images]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def without_channels(
        cls, train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
    ) -> "Images":
        """Adds a channel axis to the images, and converts the labels to int64."""
        labels = (train_labels.astype(np.int64), test_labels.astype(np.int64))
        return cls(train_images[:, None], labels[0], test_images[:, None], labels[1])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def validation_range(self, validation_images: int, fold: int | None, num_folds: int) -> tuple[int, int]:
        return validation_range(len(self.train_images), validation_images, fold, num_folds, "data.validation_images")

    def check_grid(self, grid: Grid) -> None:
        """Raises UserError if the grid does not split the images into equal pieces."""
        _, height, width = self.image_shape
        if height % grid[0] or width % grid[1]:
            raise UserError(
                f"data.grid: {list(grid)} does not split images of {height} x {width} into equal pieces; write "
                "another, or pad or crop the images."
            )

    def check_canvas(self, canvas: Sequence[int]) -> None:
        """Raises UserError if the images are larger than the canvas, height and width."""
        _, height, width = self.image_shape
        if canvas[0] < height or canvas[1] < width:
            raise UserError(
                f"data.canvas: {list(canvas)} is smaller than the images of {height} x {width}; write at least "
                f"[{height},{width}]."
            )

    def sha256(self) -> str:
        """Returns the checksum of all pixels and labels, which does not depend on the file format."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

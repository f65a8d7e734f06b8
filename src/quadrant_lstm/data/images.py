"""Holds the images and labels of a data set, with its image shape, number of classes and checksum."""

import hashlib
from typing import NamedTuple

import numpy as np

from quadrant_lstm.errors import UserError


class Images(NamedTuple):
    """Images are uint8 [images, channels, height, width], labels int64 [images]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def without_channels(cls, **parts: np.ndarray) -> "Images":
        """Takes images without a channel axis and labels of any integer type, by the names of the parts."""
        images = {part: array[:, None] for part, array in parts.items() if part.endswith("images")}
        return cls(**images, **{part: array.astype(np.int64) for part, array in parts.items() if part not in images})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def check_split(self, validation_images: int) -> None:
        if validation_images >= len(self.train_images):
            raise UserError(
                f"data.validation_images: {validation_images} of {len(self.train_images)} training images leave none "
                "to train on; write fewer."
            )

    def sha256(self) -> str:
        """Returns the checksum of all pixels and labels, which does not depend on the file format."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(repr(array.shape).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

"""Makes clips of digits that move over a canvas, batch by batch, on the device. Nothing but the digits is stored.

A digit keeps its direction and its speed. A canvas has no edges: what leaves it on one side enters it again on the
opposite side. So each position of a digit is as likely as any other, in each frame and for each direction, and no
single frame tells the direction. With a canvas of 40 x 40, speed 3 and direction 0, the columns of a digit's left edge
are e.g. 31, 34, 37, 0, 3, 6, 9, 12.

The directions, which are the classes of `label="motion"`:

    5 6 7
    4   0
    3 2 1
"""

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int64, Num, UInt8
from torch import Tensor
from torch.utils.data import TensorDataset

from quadrant_lstm.data.datamodule import Batch, SequenceDataModule, draw_validation
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import SequenceSpec, numbered_names, scaled
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import AtLeastTwo, Count, Dataset, Natural, Size

ARROWS = ("→", "↘", "↓", "↙", "←", "↖", "↑", "↗")
VELOCITIES = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # rows down, columns to the right


class MovingDigits(SequenceDataModule):
    """conf/data/moving_digits.yaml explains the arguments. Raises UserError for images that are missing or damaged.

    A validation or test image always moves in the same way, for all runs with the same `validation_seed`. A training
    image moves in another way in each epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        root: str | None,
        label: Literal["digit", "motion"],
        num_frames: Count,
        canvas: Size,
        speed: Count,
        validation_images: Natural,
        validation_seed: Natural,
        batch_size: Count,
        seed: Natural,
        fold: Natural | None = None,
        num_folds: AtLeastTwo = 5,
    ):
        if label == "motion" and num_frames < 2:
            raise UserError(f"data.num_frames: {num_frames} shows no motion; write at least 2 for data.label=motion.")
        if label == "motion" and any(2 * speed % size == 0 for size in canvas):  # half the way around it
            rule = f"on a canvas of {canvas[0]} x {canvas[1]} pixels, opposite directions look alike"
            raise UserError(f"data.speed: {speed}, but {rule}; write another speed for data.label=motion.")
        images = load_images(dataset, root)
        _, channels, image_height, image_width = images.train_images.shape
        height, width = canvas
        if height < image_height or width < image_width:
            remedy = f"write at least [{image_height},{image_width}]"
            raise UserError(f"data.canvas: {list(canvas)} is smaller than the images; {remedy}.")
        generator = torch.Generator().manual_seed(validation_seed)
        train, test = (
            TensorDataset(*data.tensors, draw_motions(len(data), (height, width), generator))
            for data in images.datasets()
        )
        names = ARROWS if label == "motion" else numbered_names(images.num_classes)
        spec = SequenceSpec((channels, height, width), num_frames, names)
        held_out = draw_validation(len(train), validation_images, validation_seed, fold, num_folds)
        super().__init__(spec, train, test, held_out, batch_size, seed)
        self.canvas, self.images, self.label, self.speed = (height, width), images, label, speed

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor, Tensor], dataloader_idx: int) -> Batch:
        images, labels, motions = batch
        if self.is_training and not self.repeats_batches:
            motions = draw_motions(len(images), self.canvas, device=images.device)
        clips = self.make_clips(images, labels, motions)
        return clips._replace(frames=scaled(clips.frames))

    def make_clips(self, images: Tensor, labels: Tensor, motions: Tensor) -> Batch:
        frames = move(images, motions, self.spec.num_steps, self.canvas, self.speed)
        return Batch(frames, motions[:, 0] if self.label == "motion" else labels)

    def class_counts(self) -> Num[Tensor, " classes"]:
        """Each epoch draws other motions, all with the same probability."""
        return super().class_counts() if self.label == "digit" else torch.ones(len(ARROWS))

    def test_samples(self, indices: Int64[Tensor, " samples"], num_windows: int = 1) -> Batch:
        return self.make_clips(*self.test[indices])


def draw_motions(
    count: int, canvas: Sequence[int], generator: torch.Generator | None = None, device: torch.device | None = None
) -> Int64[Tensor, "count 3"]:
    """Draws a direction, and the row and the column of the upper left corner in the first frame."""
    sizes = (len(VELOCITIES), *canvas)
    return torch.stack([torch.randint(size, (count,), generator=generator, device=device) for size in sizes], dim=1)


@functools.cache  # a copy to the device would make a GPU wait, for each batch
def velocities(device: torch.device) -> Int64[Tensor, "directions 2"]:
    return torch.tensor(VELOCITIES, device=device)


def move(
    images: UInt8[Tensor, "batch channels height width"],
    motions: Int64[Tensor, "batch 3"],
    num_frames: int,
    canvas: Sequence[int],
    speed: int,
) -> UInt8[Tensor, "batch frames channels rows columns"]:
    """Returns the clips of images that move by `speed` pixels from frame to frame, diagonally by as many down and
    across.
    """
    canvas_height, canvas_width = canvas
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, (0, canvas_width - width, 0, canvas_height - height))
    direction, start = motions[:, 0], motions[:, None, 1:]  # [batch, 1, row and column]
    velocity = speed * velocities(images.device)[direction][:, None]
    corners = start + velocity * torch.arange(num_frames, device=images.device)[:, None]
    rows, columns = (
        (torch.arange(size, device=images.device) - corners[:, :, axis, None]) % size  # of the image, for each pixel
        for axis, size in enumerate(canvas)
    )
    samples = torch.arange(len(images), device=images.device)[:, None, None, None]
    return padded[samples, :, rows[:, :, :, None], columns[:, :, None, :]].movedim(-1, 2)

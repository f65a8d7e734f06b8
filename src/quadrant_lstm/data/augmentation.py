"""Randomly rotates, shifts, zooms, shears, bends and partly erases each image of a batch, on the batch's device; clips
are also cropped, flipped and coloured, and series mirrored, rotated, scaled and given noise.

Images are augmented before they are split, so that their quadrants still fit together. Random numbers come from torch's
default generators, which callbacks/training.py seeds for each epoch.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate
from torchvision.transforms import v2

from quadrant_lstm.data.orderings import FrameBatch, ImageBatch
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import AtMostOne, BelowOne, Features, NonNegative

# Images, each of which has its own random numbers: transforms of torchvision would draw them once for a batch


GRID_SIZE = 5  # an elastic deformation moves 5 x 5 points independently


@dataclass(frozen=True)
class Augmentation:
    """Each argument but `erase` is a maximum: values are drawn uniformly between -maximum and +maximum; 0 turns it off.

    `rotation` is in degrees, `shift` in pixels; `zoom` and `shear` are fractions of the size. `elastic`, in pixels,
    moves the points of a coarse grid and interpolates smoothly (as Ronneberger et al. 2015, arXiv 1505.04597). `erase`
    is the probability that a rectangle of up to half the width and height is blank.
    """

    rotation: NonNegative = 0.0
    shift: NonNegative = 0.0
    zoom: BelowOne = 0.0
    shear: NonNegative = 0.0
    elastic: NonNegative = 0.0
    erase: BelowOne = 0.0

    def __call__(self, images: ImageBatch) -> ImageBatch:
        """Returns images in the same range; as float32, if anything but `erase` is turned on."""
        if self.rotation or self.shift or self.zoom or self.shear or self.elastic:
            images = images.float()
            grid = affine_grid(self.transforms(images), list(images.shape), align_corners=False)
            if self.elastic:
                grid = grid + self.offsets(images)
            images = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if self.erase:
            images = images * ~self.erased(images)
        return images

    def transforms(self, images: ImageBatch) -> Float[Tensor, "batch 2 3"]:
        """Returns maps from positions in the result to positions in the image; both go from -1 to 1."""
        batch, _, height, width = images.shape
        angle, zoom, shear, right, down = (2 * torch.rand(5, batch, device=images.device) - 1).unbind()
        angle = angle * math.radians(self.rotation)
        cos, sin = angle.cos() / (1 + self.zoom * zoom), angle.sin() / (1 + self.zoom * zoom)
        shear = self.shear * shear
        right, down = 2 * self.shift / width * right, 2 * self.shift / height * down
        aspect = height / width
        across, along = (cos * shear - sin) * aspect, sin / aspect
        return torch.stack([cos, across, right, along, sin * shear + cos, down], dim=1).view(-1, 2, 3)

    def offsets(self, images: ImageBatch) -> Float[Tensor, "batch height width 2"]:
        """Returns what the elastic deformation adds to positions in the image, to the right and down."""
        batch, _, height, width = images.shape
        right, down = (2 * torch.rand(batch, 2, GRID_SIZE, GRID_SIZE, device=images.device) - 1).unbind(1)
        points = torch.stack([right * (2 * self.elastic / width), down * (2 * self.elastic / height)], dim=1)
        return interpolate(points, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    def erased(self, images: ImageBatch) -> Shaped[Tensor, "batch 1 height width"]:
        batch, _, height, width = images.shape
        draw, rows, columns, top, left = torch.rand(5, batch, 1, device=images.device).unbind()
        rows, columns = rows * height / 2, columns * width / 2
        y, x = (torch.arange(size, device=images.device) for size in (height, width))
        top, left = top * (height - rows), left * (width - columns)
        inside_rows = (y >= top) & (y < top + rows) & (draw < self.erase)
        inside_columns = (x >= left) & (x < left + columns)
        return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]


# Clips, all of whose frames have the same random numbers


@dataclass(frozen=True)
class ClipAugmentation:
    """Composes transforms of torchvision; conf/data/clips.yaml explains the arguments. 0 turns each of them off. Pixels
    at the edges are repeated, because a network learns black borders by heart.
    """

    flip: AtMostOne
    crop: BelowOne
    colour: BelowOne
    rotation: NonNegative
    shift: NonNegative
    erase: BelowOne

    def __call__(self, clips: FrameBatch) -> FrameBatch:
        transforms = self.transforms(*clips.shape[3:])
        return torch.stack([v2.Compose(transforms)(clip) for clip in clips]) if transforms else clips

    def transforms(self, height: int, width: int) -> list[v2.Transform]:
        size, transforms = (height, width), list[v2.Transform]()
        if self.crop:
            transforms.append(v2.RandomResizedCrop(size, (1 - self.crop, 1), (width / height, width / height)))
        if self.shift:
            transforms.append(v2.RandomCrop(size, round(self.shift), padding_mode="edge"))
        if self.rotation:
            margin = math.ceil(math.sin(math.radians(min(self.rotation, 90))) * max(size) / 2)
            rotate = v2.RandomRotation(self.rotation, v2.InterpolationMode.BILINEAR)
            transforms += [v2.Pad(margin, padding_mode="edge"), rotate, v2.CenterCrop(size)]
        if self.flip:
            transforms.append(v2.RandomHorizontalFlip(self.flip))
        if self.colour:
            transforms.append(v2.ColorJitter(self.colour, self.colour, self.colour))  # hue would take much longer
        if self.erase:
            transforms.append(v2.RandomErasing(self.erase, scale=(0.02, 0.25)))
        return transforms


# Series, each of which has its own random numbers


@dataclass(frozen=True)
class SeriesAugmentation:
    """Changes all values of a series alike, but for the noise (Um et al. 2017, arXiv 1706.00527, for sensors);
    conf/data/series.yaml explains the arguments. 0, or an empty list, turns each of them off.
    """

    mirror: Features = ()
    rotation: NonNegative = 0.0
    scale: BelowOne = 0.0
    noise: NonNegative = 0.0

    def check(self, num_features: int) -> None:
        """Raises UserError for a feature that is not there, and for a rotation of features that are no triples."""
        if wrong := [number for number in self.mirror if number > num_features]:
            rule = f"but the series have {num_features} features"
            raise UserError(f"data.augmentation.mirror: {wrong[0]}, {rule}; write numbers from 1 to {num_features}.")
        if self.rotation and num_features % 3:
            rule = f"turns three features together, but the series have {num_features}"
            raise UserError(f"data.augmentation.rotation: {self.rotation:g} {rule}; write 0.")

    def __call__(
        self, series: Float[Tensor, "batch steps features ..."], deviation: Float[Tensor, " features"]
    ) -> Float[Tensor, "batch steps features ..."]:
        """Takes the deviation of each feature, of which `noise` is a fraction."""
        by_feature = 1, len(deviation), *[1] * (series.ndim - 3)
        if self.mirror or self.scale:
            series = series * self.factors(len(series), len(deviation), series.device).view(-1, *by_feature)
        if self.rotation:
            rotations, triples = self.rotations(len(series), series.device), series.unflatten(2, (-1, 3))
            series = torch.einsum("bij,btsj...->btsi...", rotations, triples).flatten(2, 3)
        if self.noise:
            series = series + self.noise * deviation.view(by_feature) * torch.randn_like(series)
        return series

    def factors(self, batch: int, features: int, device: torch.device) -> Float[Tensor, "batch features"]:
        signs = torch.ones(features, device=device)
        signs[[number - 1 for number in self.mirror]] = -1
        is_mirrored = torch.rand(batch, 1, device=device) < 0.5
        scales = 1 + self.scale * (2 * torch.rand(batch, features, device=device) - 1)
        return scales * torch.where(is_mirrored, signs, 1)

    def rotations(self, batch: int, device: torch.device) -> Float[Tensor, "batch 3 3"]:
        """Returns rotations by angles of up to `rotation` about axes in all directions."""
        axes = torch.nn.functional.normalize(torch.randn(batch, 3, device=device))
        x, y, z = (math.radians(self.rotation) * torch.rand(batch, 1, device=device) * axes).unbind(1)
        zero = torch.zeros_like(x)
        return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3))

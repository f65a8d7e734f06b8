"""A batch of images -> the same, each turned, moved, scaled, slanted, bent and partly erased by chance, where they lie.

Done before an image is cut, so that its quadrants still fit together. The random numbers are those of the device, which
run/reseed.py seeds for each epoch.
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

BENDS = 5  # points in a row, and rows of them, that are moved by themselves when an image is bent


class Augmentation:
    """Each value is the most that is drawn, evenly, in both directions; 0 leaves it out.

    `rotation` in degrees, `shift` in pixels, `zoom` and `shear` as shares of the size. `elastic`, in pixels, moves
    points of a coarse grid, and all between them smoothly along (as Ronneberger et al. 2015, arXiv 1505.04597). `erase`
    is the probability that a rectangle of up to half the width and height is blank.
    """

    def __init__(
        self,
        rotation: float = 0.0,
        shift: float = 0.0,
        zoom: float = 0.0,
        shear: float = 0.0,
        elastic: float = 0.0,
        erase: float = 0.0,
    ):
        self.rotation, self.shift, self.zoom, self.shear = rotation, shift, zoom, shear
        self.elastic, self.erase = elastic, erase

    def __call__(
        self, images: Shaped[Tensor, "batch channels height width"]
    ) -> Shaped[Tensor, "batch channels height width"]:
        """In the type they come in where nothing is drawn, else in float32, of the same range."""
        if self.rotation or self.shift or self.zoom or self.shear or self.elastic:
            images = images.float()
            grid = affine_grid(self.transforms(images), list(images.shape), align_corners=False)
            if self.elastic:
                grid = grid + self.bends(images)
            images = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if self.erase:
            images = images * ~self.erased(images)
        return images

    def transforms(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 2 3"]:
        """From a place in the result to that in the image, both in [-1, 1] from edge to edge."""
        batch, _, height, width = images.shape
        angle, zoom, shear, right, down = (2 * torch.rand(5, batch, device=images.device) - 1).unbind()
        angle = angle * math.radians(self.rotation)
        cos, sin = angle.cos() / (1 + self.zoom * zoom), angle.sin() / (1 + self.zoom * zoom)
        shear = self.shear * shear
        right, down = 2 * self.shift / width * right, 2 * self.shift / height * down
        aspect = height / width
        across, along = (cos * shear - sin) * aspect, sin / aspect
        return torch.stack([cos, across, right, along, sin * shear + cos, down], dim=1).view(-1, 2, 3)

    def bends(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch height width 2"]:
        """How far the place in the image lies from where it would be, right and down."""
        batch, _, height, width = images.shape
        right, down = (2 * torch.rand(batch, 2, BENDS, BENDS, device=images.device) - 1).unbind(1)
        points = torch.stack([right * (2 * self.elastic / width), down * (2 * self.elastic / height)], dim=1)
        return interpolate(points, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)

    def erased(self, images: Shaped[Tensor, "batch channels height width"]) -> Shaped[Tensor, "batch 1 height width"]:
        batch, _, height, width = images.shape
        chance, rows, columns, top, left = torch.rand(5, batch, 1, device=images.device).unbind()
        rows, columns = rows * height / 2, columns * width / 2
        y, x = (torch.arange(size, device=images.device) for size in (height, width))
        top, left = top * (height - rows), left * (width - columns)
        inside_rows = (y >= top) & (y < top + rows) & (chance < self.erase)
        inside_columns = (x >= left) & (x < left + columns)
        return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]

"""Picture files -> images as the network was trained on.

A picture of the training size is taken as it is. Any other is brought to MNIST's form as MNIST itself was: the ink is
cropped, scaled to 20/28 of the size, and laid with its centre of mass in the middle.
"""

import contextlib
import glob
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from quadrant_lstm.errors import UserError

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
INK = 50  # of 255; below it is background
BOX = 20 / 28
MOST_PIXELS = 50_000_000


def find_pictures(images: str | None) -> list[Path]:
    """The files that `images=` means: a file, all pictures of a folder, or a glob."""
    if images is None:
        raise UserError("images: is missing; add images=FILE, a folder, or a quoted glob.")
    path = Path(images).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    else:
        found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise UserError(f"images: {images} matches no picture; give a file, a folder, or a glob in quotes.")
    for file in found:
        with opened(file):
            pass
    return found


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """Its size is known and within bounds, its pixels are not read yet; raises UserError, also where that fails."""
    quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)  # ours is stricter
    try:
        with quiet, Image.open(file) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height}, more than {MOST_PIXELS:,} pixels")
            yield picture
    except Exception as error:  # each format's decoder has its own
        raise UserError(f"{file}: cannot be read as a picture ({error}); give a PNG or JPEG file.") from error


def read_picture(file: Path, image_shape: tuple[int, int, int], invert: bool | None) -> np.ndarray:
    """uint8 [channels, height, width]; `invert=None` inverts a picture whose border is light."""
    channels, height, width = image_shape
    with opened(file) as original:
        picture: Image.Image = ImageOps.exif_transpose(original)
        if picture.has_transparency_data:  # what is transparent counts as white paper
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if invert or (invert is None and border.mean() > 127):
        picture = ImageOps.invert(picture)
    if picture.size != (width, height):
        picture = centre(picture, height, width)
    array = np.array(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def centre(picture: Image.Image, height: int, width: int) -> Image.Image:
    ink = picture.convert("L").point(lambda value: 255 if value > INK else 0).getbbox()
    if ink is None:
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    digit = ImageOps.contain(picture.crop(ink), (round(BOX * width), round(BOX * height)), Image.Resampling.LANCZOS)
    weights = np.asarray(digit.convert("L"), dtype=float)
    rows, columns = np.indices(weights.shape)
    left = round(width / 2 - (columns * weights).sum() / weights.sum())
    top = round(height / 2 - (rows * weights).sum() / weights.sum())
    page = Image.new(picture.mode, (width, height))
    page.paste(digit, (left, top))
    return page

"""Reads image files as images like those of the training data.

An image of the training size is neither cropped nor scaled. Others are prepared like MNIST's digits: the ink is
cropped, scaled to 20/28 of the image size, and placed with its centre of mass in the middle.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from quadrant_lstm.data.image_files import on_paper, open_image

INK_THRESHOLD = 50  # of 255; darker pixels are background
MIN_CONTRAST = 10  # of 255; JPEG files of a blank page have some contrast
WHITE = (1, 255, 2**16 - 1, 2**32 - 1)  # of images with more than 8 bits: the first that no pixel exceeds
DIGIT_SHARE = 20 / 28  # of the height and width


def read_image(file: Path, image_shape: Sequence[int], invert: bool | None) -> np.ndarray | None:
    """Returns uint8 [1, height, width], or None for an image without ink, or with ink that is too faint.

    `invert=None` inverts images with a light border.
    """
    _, height, width = image_shape
    with open_image(file) as original:
        image = in_grey(ImageOps.exif_transpose(original))
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if invert or (invert is None and border.mean() > 127):
        image = ImageOps.invert(image)
    ink = image.point(lambda value: 255 if value > INK_THRESHOLD else 0).getbbox()
    if ink is None or is_blank(image):
        return None
    centred = image if image.size == (width, height) else centre_digit(image, ink, height, width)
    return None if centred is None else np.array(centred)[None]


def in_grey(image: Image.Image) -> Image.Image:
    """Returns the image in 8-bit grey; a transparent one on white or black paper, where its ink has more contrast."""
    if image.has_transparency_data:
        return max((on_paper(image, paper).convert("L") for paper in ("white", "black")), key=contrast)
    if image.mode == "F" or image.mode.startswith("I"):  # of 16 or 32 bits; Pillow would clip them at 255
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64).clip(min=0), posinf=0)
        white = next((white for white in WHITE if levels.max() <= white), levels.max())
        return Image.fromarray((255 * levels / white).round().astype(np.uint8))
    return image.convert("L")


def contrast(image: Image.Image) -> float:
    return float(np.asarray(image).std())


def is_blank(image: Image.Image) -> bool:
    return bool(np.ptp(np.asarray(image)) < MIN_CONTRAST)


def contained_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest size within the box that keeps the proportions, but at least one pixel each way."""
    proportion = size[0] / size[1]
    if proportion > box[0] / box[1]:
        return box[0], max(round(size[1] / size[0] * box[0]), 1)
    return max(round(proportion * box[1]), 1), box[1]


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes rows, then columns. In one call, the order and so the result would depend on the version of Pillow."""
    for step in ((size[0], image.height), size):
        image = image.resize(step, Image.Resampling.LANCZOS)
    return image


def centre_digit(image: Image.Image, ink: tuple[int, int, int, int], height: int, width: int) -> Image.Image | None:
    """Returns None if the ink is lost when it is scaled, as that of a few specks on a large page."""
    box = (round(DIGIT_SHARE * width), round(DIGIT_SHARE * height))
    digit = image.crop(ink)
    digit = resize(digit, contained_size(digit.size, box))
    weights = np.asarray(digit, dtype=float)
    if not weights.any():
        return None
    rows, columns = np.indices(weights.shape)
    left = round(width / 2 - (columns * weights).sum() / weights.sum())
    top = round(height / 2 - (rows * weights).sum() / weights.sum())
    page = Image.new("L", (width, height))
    page.paste(digit, (left, top))
    return page

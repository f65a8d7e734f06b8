"""Reads image files as images like those of MNIST, from scans as well as from photographs.

1. The picture becomes grey, upright, and small: blocks of pixels are averaged.
2. Ink becomes bright: dark ink on light paper is inverted.
3. The paper around each pixel is subtracted, with shadows and uneven light. What is left is divided by what ink could
   add at most, so that the same pen is as strong in a shadow as beside it.
4. Levels are stretched from the noise of the paper to the strength of the ink. What is not beside strong ink is erased.
5. The ink is cropped, scaled to 20/28 of the image size, stretched once more, and placed with its centre of mass in the
   middle.

templates/drawing/picture.js does the same with the same whole numbers.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from quadrant_lstm.data.image_files import on_paper, open_image

WORKING_SIZE = 640  # pixels of the longer side after averaging, at most
MIN_STRENGTH = 40  # of 255; fainter ink is not told from the paper
MIN_SEPARATION = 0.75  # of ink and paper; a normal distribution, such as noise, has 0.64
CELLS = 64  # along the longer side; ink in neighbouring cells belongs together
INK_THRESHOLD = 50  # of 255, after stretching; darker pixels are not cropped
FAINT = 25  # of 255; pixels beside a stroke are not stronger
MIN_CONTRAST = 10  # of 255; JPEG files of a blank page have some contrast
WHITE = (1, 255, 1023, 4095, 2**16 - 1, 2**32 - 1)  # of images with more than 8 bits: the first that no pixel exceeds
DIGIT_SHARE = 20 / 28  # of the height and width


class Reading(NamedTuple):
    pixels: np.ndarray | None  # uint8, or floats of a series; None if nothing is drawn
    note: str = ""  # what makes the prediction doubtful
    window: tuple[float, ...] = ()  # its start and end in seconds, of a part of a video


def read_image(
    source: Path | np.ndarray, image_shape: Sequence[int], invert: bool | None, like_mnist: bool = True
) -> Reading:
    """Returns uint8 [1, height, width] of a file, or of pixels as Pillow takes them: uint8 [height, width], or with
    channels last. `invert=None` inverts pictures that look like dark ink on light paper.

    `like_mnist=False` is for data that are not centred as MNIST's digits are: a file of their size is only inverted if
    `invert` is true.
    """
    _, height, width = image_shape
    opened = open_image(source) if isinstance(source, Path) else contextlib.nullcontext(Image.fromarray(source))
    with opened as original:
        levels = np.asarray(in_grey(ImageOps.exif_transpose(original)))
    if not like_mnist and levels.shape == (height, width):
        unprepared = 255 - levels if invert else levels.copy()
        return Reading(unprepared[None] if np.ptp(levels) else None)
    levels = shrink(levels)
    if invert or (invert is None and is_light(levels)):
        levels = 255 - levels
    ink, note = separate_ink(levels)
    image = Image.fromarray(ink)
    box = image.point(lambda level: 255 if level > INK_THRESHOLD else 0).getbbox()
    if box is None or np.ptp(ink) < MIN_CONTRAST:
        return Reading(None)
    centred = centre_digit(image, box, height, width)
    return Reading(None) if centred is None else Reading(np.array(centred)[None], note)


def in_grey(image: Image.Image) -> Image.Image:
    """Returns the image in 8-bit grey; a transparent one on white or black paper, where its ink has more contrast."""
    if image.has_transparency_data:
        papers = (on_paper(image, paper).convert("L") for paper in ("white", "black"))
        return max(papers, key=lambda grey: float(np.asarray(grey).std()))
    if image.mode == "F" or image.mode.startswith("I"):  # of 16 or 32 bits; Pillow would clip them at 255
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64).clip(min=0), posinf=0)
        white = next((white for white in WHITE if levels.max() <= white), levels.max())
        return Image.fromarray((255 * levels / white).round().astype(np.uint8))
    return image.convert("L")


def shrink(levels: np.ndarray) -> np.ndarray:
    """Averages blocks of pixels, and with them the noise of a camera. Leaves out what fills no block at the end."""
    block = -(-max(levels.shape) // WORKING_SIZE)
    down, across = (min(block, size) for size in levels.shape)
    rows, columns = levels.shape[0] // down, levels.shape[1] // across
    blocks = levels[: rows * down, : columns * across].reshape(rows, down, columns, across)
    sums = blocks.sum(axis=1, dtype=np.uint32).sum(axis=2)
    return ((sums + down * across // 2) // (down * across)).astype(np.uint8)


def is_light(levels: np.ndarray) -> bool:
    """Tells dark ink on light paper from light ink on dark paper.

    Ink covers the smaller part of most surroundings, so that differences from their means are skewed towards it. Where
    they are hardly skewed, as in a picture that the ink fills, the border counts as paper.
    """
    differences = levels.astype(np.int64) - local_means(levels, 2 * (max(levels.shape) // 10) + 1)
    squares, cubes = float((differences**2).sum()), float((differences**3).sum())
    if levels.size * cubes * cubes > squares * squares * squares:
        return cubes < 0
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    return bool(2 * int(border.sum()) > (int(levels.min()) + int(levels.max())) * border.size)


def local_means(levels: np.ndarray, window: int) -> np.ndarray:
    def sums(values: np.ndarray) -> np.ndarray:
        before = np.pad(values.astype(np.int64), (window // 2 + 1, window // 2)).cumsum(0).cumsum(1)
        across = before[:, window:] - before[:, :-window]
        return across[window:] - across[:-window]

    return sums(levels) // sums(np.ones_like(levels))


def separate_ink(levels: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns the ink of a picture in which it is bright, from 0 to 255, and what is doubtful about it.

    Twice: first with surroundings that are wider than any stroke, then with some that fit the strokes which are found,
    and so follow the light more closely.
    """
    side = max(levels.shape)
    window = 2 * side // 5
    ink = above_paper(levels, window)
    _, threshold, _ = strengths(ink)
    ink = above_paper(levels, min(max(3 * stroke_width(ink > threshold), side // 16), window))
    noise, threshold, strongest = strengths(ink)
    strong = ink > threshold
    if strongest < max(MIN_STRENGTH, 2 * noise):
        return np.zeros_like(levels), ""
    strong &= near_largest(strong)
    near = extremes(strong, 2 * (1 + stroke_width(strong) // 2) + 1, np.maximum)
    stretched = (ink.astype(np.int64) - noise).clip(0) * 255 // (strongest - noise)
    at_edge = strong[0].any() or strong[-1].any() or strong[:, 0].any() or strong[:, -1].any()
    note = "ink touches the edge of the picture" if at_edge else ""
    if 2 * int(strong.sum()) > strong.size:
        note = "more than half of the picture is ink"
    return np.where(near, stretched.clip(max=255), 0).astype(np.uint8), note


def above_paper(levels: np.ndarray, window: int) -> np.ndarray:
    """Returns by how much each pixel is brighter than the paper around it, from 0 to 255 for the brightest ink.

    The paper is the morphological opening: what is left of the picture without all that is brighter than its
    surroundings and smaller than the window.
    """
    paper = extremes(extremes(levels, window, np.minimum), window, np.maximum)
    room = np.maximum(255 - paper.astype(np.int64), 64)  # of very bright paper, noise would become ink
    return (255 * (levels.astype(np.int64) - paper) // room).astype(np.uint8)


def extremes(levels: np.ndarray, window: int, better: np.ufunc) -> np.ndarray:
    """Returns the smallest or largest level in a square window around each pixel."""
    result = np.pad(levels, window // 2, mode="edge")
    for _ in range(2):  # down, then across
        span = 1
        while span < window // 2 * 2 + 1:
            step = min(span, window // 2 * 2 + 1 - span)
            result = better(result[:-step], result[step:])
            span += step
        result = result.T
    return result


def strengths(ink: np.ndarray) -> tuple[int, int, int]:
    """Returns the noise of the paper, below which pixels are background; a threshold, above which they are certainly
    ink; and the strength of the ink, but for its strongest tenth.
    """
    counts = np.bincount(ink.ravel(), minlength=256)
    low, usual = quantile(counts, 1), quantile(counts, 4)  # of paper, which covers more than that
    noise = usual + 4 * (usual - low)
    if 2 * noise >= int(ink.max()) and otsu(counts, -1)[1] > MIN_SEPARATION:
        noise = low  # ink covers most of the picture
    threshold, _ = otsu(counts, noise)
    counts[: threshold + 1] = 0
    return noise, threshold, quantile(counts, 9)


def quantile(counts: np.ndarray, tenths: int) -> int:
    """Returns the smallest level that so many tenths of the pixels do not exceed."""
    return int(np.argmax(10 * counts.cumsum() >= tenths * counts.sum()))


def otsu(counts: np.ndarray, first: int) -> tuple[int, float]:
    """Divides the levels above `first` into two classes whose means differ most (Otsu 1979). Returns the threshold, and
    the share of the variance that is between the classes.
    """
    levels = np.arange(256.0)
    counts = np.where(levels > first, counts, 0)
    number, total, squares = ((counts * levels**power).sum() for power in (0, 1, 2))
    below, sum_below = counts.cumsum(), (levels * counts).cumsum()
    above = number - below
    means = sum_below / np.maximum(below, 1), (total - sum_below) / np.maximum(above, 1)
    variances = below * above * ((means[0] - means[1]) * (means[0] - means[1]))
    best = int(variances.argmax())
    threshold = best if variances[best] else first
    return threshold, float(variances[best] / max(number * squares - total * total, 1))


def stroke_width(strong: np.ndarray) -> int:
    """Returns twice the ratio of the ink to its outline, which is about the mean width of its strokes."""
    padded = np.pad(strong, 1)
    inner = strong & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return 2 * int(strong.sum()) // max(int((strong & ~inner).sum()), 1)


def near_largest(strong: np.ndarray) -> np.ndarray:
    """Tells which pixels are near the largest connected ink, or near other with at least a tenth as many pixels."""
    cell = -(-max(strong.shape) // CELLS)
    rows, columns = (-(-size // cell) for size in strong.shape)
    padded = np.pad(strong, ((0, rows * cell - strong.shape[0]), (0, columns * cell - strong.shape[1])))
    cells = padded.reshape(rows, cell, columns, cell).sum(axis=(1, 3))
    groups, before = np.where(cells > 0, np.arange(1, cells.size + 1).reshape(cells.shape), 0), None
    while before is None or (groups != before).any():  # the largest number of connected cells spreads over all
        before, groups = groups, np.where(cells > 0, extremes(groups, 3, np.maximum), 0)
    sizes = np.bincount(groups.ravel(), cells.ravel())
    large = (10 * sizes >= sizes.max()) & (sizes > 0)
    return np.kron(large[groups], np.ones((cell, cell), bool))[: strong.shape[0], : strong.shape[1]]


def centre_digit(image: Image.Image, ink: tuple[int, int, int, int], height: int, width: int) -> Image.Image | None:
    """Returns None if the ink is lost when it is scaled, as that of a few specks on a large page."""
    across, down = round(DIGIT_SHARE * width), round(DIGIT_SHARE * height)  # at most
    digit = image.crop(ink)
    proportion = digit.width / digit.height
    if proportion > across / down:
        size = across, max(round(digit.height / digit.width * across), 1)
    else:
        size = max(round(proportion * down), 1), down
    for step in ((size[0], digit.height), size):  # in one call, the order would depend on the version of Pillow
        digit = digit.resize(step, Image.Resampling.LANCZOS)
    levels = np.asarray(digit).astype(np.int64)
    # Strokes that were scaled to less than a pixel have become grey: the strongest tenth of the ink is to be 255 again.
    if strongest := quantile(np.bincount(levels[levels > FAINT], minlength=256), 9):
        levels = (levels * 255 // strongest).clip(max=255)
    digit, weights = Image.fromarray(levels.astype(np.uint8)), levels.astype(float)
    if not weights.any():
        return None
    rows, columns = np.indices(weights.shape)
    left = round(width / 2 - (columns * weights).sum() / weights.sum())
    top = round(height / 2 - (rows * weights).sum() / weights.sum())
    page = Image.new("L", (width, height))
    page.paste(digit, (left, top))
    return page

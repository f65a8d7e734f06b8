"""Draws digits, and photographs of them: on several kinds of paper, in different light, with several pens.

A photograph is paper x light x what the pen lets through, blurred, with the noise of a camera, and compressed as JPEG.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]

# Strokes of the digits: (x, y) from the left and the top of a box, each from 0 to 1, on a smooth curve.
DIGITS: list[list[list[Point]]] = [
    [[(0.66, 0.04), (0.36, 0.06), (0.16, 0.34), (0.14, 0.7), (0.36, 0.97), (0.66, 0.92), (0.86, 0.6), (0.84, 0.24),
      (0.62, 0.05), (0.5, 0.1)]],
    [[(0.3, 0.24), (0.42, 0.14), (0.56, 0.0)], [(0.56, 0.0), (0.53, 0.5), (0.5, 1.0)]],
    [[(0.16, 0.2), (0.4, 0.0), (0.74, 0.08), (0.76, 0.36), (0.5, 0.68), (0.2, 0.92), (0.16, 0.84), (0.3, 0.82),
      (0.56, 0.96), (0.9, 0.9)]],
    [[(0.16, 0.06), (0.5, 0.0), (0.78, 0.12), (0.7, 0.34), (0.44, 0.46), (0.7, 0.52), (0.84, 0.74), (0.62, 0.95),
      (0.3, 1.0), (0.12, 0.94)]],
    [[(0.6, 0.0), (0.36, 0.32), (0.08, 0.66), (0.5, 0.68), (0.94, 0.64)], [(0.7, 0.36), (0.66, 0.7), (0.6, 1.0)]],
    [[(0.86, 0.02), (0.56, 0.04), (0.3, 0.05), (0.24, 0.24), (0.2, 0.44), (0.5, 0.4), (0.76, 0.54), (0.78, 0.8),
      (0.5, 0.98), (0.14, 0.94)]],
    [[(0.56, 0.0), (0.34, 0.3), (0.2, 0.66), (0.3, 0.94), (0.58, 0.98), (0.76, 0.8), (0.66, 0.6), (0.4, 0.6),
      (0.24, 0.74)]],
    [[(0.12, 0.1), (0.3, 0.06), (0.6, 0.08), (0.86, 0.03)], [(0.86, 0.03), (0.64, 0.4), (0.5, 0.7), (0.42, 1.0)],
     [(0.36, 0.52), (0.56, 0.5), (0.76, 0.48)]],
    [[(0.8, 0.1), (0.5, 0.0), (0.26, 0.12), (0.3, 0.34), (0.58, 0.5), (0.74, 0.76), (0.56, 0.98), (0.3, 0.94),
      (0.24, 0.74), (0.46, 0.5), (0.74, 0.3), (0.8, 0.08)]],
    [[(0.76, 0.16), (0.5, 0.0), (0.24, 0.16), (0.26, 0.4), (0.5, 0.46), (0.72, 0.3), (0.78, 0.1), (0.76, 0.5),
      (0.66, 0.82), (0.4, 0.99), (0.2, 0.92)]],
]  # fmt: skip


class Pen(NamedTuple):
    colour: tuple[float, float, float]  # the share of the light that ink reflects, as paper does 1
    width: float  # of the height of the digit
    grain: float = 0.0  # the share of the ink that rough paper leaves out


PENS = {
    "felt pen": Pen((0.1, 0.1, 0.12), 0.11),
    "ballpoint": Pen((0.22, 0.28, 0.6), 0.045),
    "pencil": Pen((0.62, 0.62, 0.64), 0.05, 0.5),
    "chalk": Pen((5.0, 5.0, 4.6), 0.08, 0.35),
}
KINDS = {  # of pictures: the pens of each
    "scan": ("felt pen", "ballpoint"),
    "bright": ("felt pen", "ballpoint"),
    "grey": ("felt pen", "ballpoint"),
    "lined": ("ballpoint", "pencil"),
    "squared": ("ballpoint", "felt pen"),
    "pencil": ("pencil",),
    "shadow": ("ballpoint", "felt pen"),
    "hand": ("ballpoint", "pencil"),
    "crumpled": ("ballpoint", "felt pen"),
    "blackboard": ("chalk",),
}


class Photograph(NamedTuple):
    picture: Image.Image
    ink: np.ndarray  # the share of each pixel that the pen covered


def photograph(kind: str, digit: int | None, seed: int) -> Photograph:
    """Returns a picture of the digit, or of the sheet alone for None."""
    # "quick" is the hand, and keeps the pictures those of docs/drawing.md
    rng = np.random.default_rng([seed, *map(ord, f"{kind}quick"), 10 if digit is None else digit])
    height, width = rng.integers(600, 1300, 2).tolist()
    pen = PENS[str(rng.choice(KINDS[kind]))]
    paper, light = paper_of(kind, height, width, rng), light_of(kind, height, width, rng)
    ink = drawn([] if digit is None else DIGITS[digit], pen, height, width, rng)
    through = 1 - np.multiply.outer(ink, 1 - np.array(pen.colour))
    levels = 255 * np.clip(paper * light[..., None] * through, 0, 1)
    picture = Image.fromarray(levels.round().astype(np.uint8))
    if kind == "scan":
        return Photograph(picture, ink)
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 1.8)))
    noisy = np.asarray(picture) + rng.normal(0, rng.uniform(2, 6), (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(60, 93)))
    return Photograph(Image.open(file), ink)


def drawn(
    strokes: Sequence[Sequence[Point]], pen: Pen, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns the share of each pixel that is covered by ink."""
    size = rng.uniform(0.3, 0.75) * min(height, width)
    left, top = rng.uniform(0.06 * width, 0.94 * width - 0.8 * size), rng.uniform(0.06 * height, 0.94 * height - size)
    slant, narrow, turn = rng.uniform(-0.05, 0.2), rng.uniform(0.55, 0.7), rng.uniform(-0.08, 0.08)
    page = Image.new("L", (2 * width, 2 * height))
    draw, thickness = ImageDraw.Draw(page), max(2 * pen.width * rng.uniform(0.8, 1.3) * size, 5)
    for stroke in strokes:
        points = np.array(smooth([(x + rng.normal(0, 0.012), y + rng.normal(0, 0.012)) for x, y in stroke])) - 0.5
        x, y = narrow * points[:, 0] - slant * points[:, 1], points[:, 1]
        x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        places = 2 * np.stack([left + size * (x + 0.4), top + size * (y + 0.5)], axis=1)
        draw.line([tuple(place) for place in places.tolist()], fill=255, width=round(thickness), joint="curve")
        for px, py in places.tolist():
            draw.ellipse([px - thickness / 2, py - thickness / 2, px + thickness / 2, py + thickness / 2], fill=255)
    covered = np.asarray(page.resize((width, height), Image.Resampling.BOX)) / 255
    return covered * (1 - pen.grain * rng.random((height, width)))


def smooth(points: Sequence[Point]) -> list[Point]:
    """Puts nine points on the curve between each two, as a hand would (Catmull-Rom splines)."""
    curve = list(points[:1])
    for a, b, c, d in zip([points[0], *points], points, points[1:], [*points[2:], points[-1]], strict=False):
        for t in np.linspace(0.1, 1, 10):
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            x, y = (sum(w * point[axis] for w, point in zip(weights, (a, b, c, d), strict=True)) / 2 for axis in (0, 1))
            curve.append((float(x), float(y)))
    return curve


def paper_of(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the share of the light that each pixel of the sheet reflects, by colour."""
    rows, columns = np.indices((height, width))
    if kind == "blackboard":
        wiped = clouds(height, width, 6, rng)
        return (0.13 + 0.05 * wiped)[..., None] * np.array([0.9, 1.0, 0.92])
    paper = np.full((height, width, 1), 0.97) * np.array([1.0, rng.uniform(0.96, 1), rng.uniform(0.88, 1)])
    if kind in ("lined", "squared"):
        gap, tilt, strength = rng.uniform(0.06, 0.12) * height, rng.uniform(-0.04, 0.04), rng.uniform(0.12, 0.3)
        thickness = rng.uniform(1.2, 3)
        places = [rows + tilt * columns] + ([columns - tilt * rows] if kind == "squared" else [])
        for place in places:
            line = np.clip(thickness / 2 + 0.5 - np.abs((place + rng.uniform(0, gap)) % gap - gap / 2), 0, 1)
            paper = paper * (1 - np.multiply.outer(line, strength * np.array([1.0, 0.8, 0.4])))
    if kind == "crumpled":
        folds = sum(np.abs(clouds(height, width, cells, rng) - 0.5) * share for cells, share in ((3, 0.5), (7, 0.35)))
        paper = paper * (1.03 - 0.8 * folds)[..., None]
    return paper


def light_of(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices((height, width))
    y, x = rows / height - 0.5, columns / width - 0.5
    if kind == "scan":
        return np.ones((height, width))
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    light = (1 - rng.uniform(0.2, 0.5) * (x**2 + y**2)) * (1 + rng.uniform(0, 0.25) * along)
    if kind == "grey":
        return light * rng.uniform(0.4, 0.7)
    if kind == "shadow":  # of something with a straight edge
        edge = 0.5 + (along - rng.uniform(-0.15, 0.15)) / rng.uniform(0.004, 0.03)
        return light * (1 - rng.uniform(0.3, 0.5) * np.clip(edge, 0, 1))
    if kind == "hand":
        corner_y, corner_x = rng.choice([-0.5, 0.5]), rng.uniform(-0.5, 0.5)
        far = np.hypot(y - corner_y, x - corner_x) + 0.1 * clouds(height, width, 4, rng)
        return light * (1 - rng.uniform(0.3, 0.5) * np.clip((rng.uniform(0.5, 0.65) - far) / 0.15, 0, 1))
    return light * rng.uniform(0.75, 0.95)


def clouds(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Returns smooth noise from 0 to 1."""
    noise = Image.fromarray(rng.random((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)

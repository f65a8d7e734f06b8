"""Finds the image files that a user names, and opens them safely."""

import contextlib
import glob
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import as_text, expanded

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
MAX_PIXELS = 50_000_000


def find_image_files(images: str) -> Iterable[Path]:
    """Returns the files of `images`: a file, a folder, a glob, or `-` for the lines of standard input."""
    if images == "-":
        return files_of_stdin()
    path = expanded(images)
    if path.is_file():  # also one whose name has the characters of a glob
        return [path]
    if path.is_dir():
        found = image_files_in(path)
    else:
        found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise UserError(f"images: {as_text(images)} matches no image file; give a file, a folder, or a glob in quotes.")
    return found


def files_of_stdin() -> Iterator[Path]:
    """Returns the files that the lines of standard input name, as they come. Raises UserError if it is closed."""
    if sys.stdin is None:
        raise UserError("images: - reads standard input, which is closed; give a file, a folder, or a glob.")
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)  # names may hold any bytes
    return (Path(os.fsdecode(name)) for name in lines if name)


def image_files_in(folder: Path) -> list[Path]:
    return sorted(unsorted_image_files(folder), key=lambda file: natural(file.name))


def unsorted_image_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and visible(file))


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a key by which numbers in names are sorted as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def visible(path: Path) -> bool:
    """Tells files and folders from those that systems hide."""
    return not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")


def check_num_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height}, more than {MAX_PIXELS:,} pixels")


def check_regular(file: Path) -> None:
    """Raises ValueError for what may be read for ever, such as a named pipe, and OSError if there is no such file."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is not a regular file")


@contextlib.contextmanager
def opened_image(file: Path) -> Iterator[Image.Image]:
    """Opens an image file and checks its size before its pixels are read. Raises errors of many types."""
    check_regular(file)
    quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
    with quiet, Image.open(file) as image:
        check_num_pixels(image.width, image.height)
        yield image


@contextlib.contextmanager
def open_image(file: Path) -> Iterator[Image.Image]:
    """Opens a file that holds one image. Errors, also later ones, become UserErrors."""
    try:
        with opened_image(file) as image:
            if (pages := getattr(image, "n_frames", 1)) > 1:
                raise ValueError(f"it holds {pages} pictures; save one of them")
            yield image
    except Exception as error:  # decoders raise errors of many types
        remedy = "correct its name" if isinstance(error, FileNotFoundError) else "give a PNG or JPEG file"
        raise UserError(f"{as_text(file)}: cannot be read as an image ({as_text(str(error))}); {remedy}.") from error


def on_paper(image: Image.Image, colour: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image.convert("RGBA"))

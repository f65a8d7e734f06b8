"""Finds the image files that a user names, and opens them safely."""

import collections
import contextlib
import glob
import os
import re
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from quadrant_lstm.errors import UserError, printable, reason_of
from quadrant_lstm.files import expanded

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
MAX_PIXELS = 50_000_000


def find_files(images: str, kind: str, is_wanted: Callable[[Path], bool]) -> Iterable[Path]:
    """Returns the paths of `images`: a file, those that are wanted of a folder, or a glob, sorted; or for `-`, those of
    the lines of standard input, as they come. Names the suffixes of a folder's files that are left out on stderr.
    """
    if images == "-":
        lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)  # names may hold any bytes
        return (Path(os.fsdecode(name)) for name in lines if name)
    path = expanded(images)
    if path.is_file():  # also one whose name has the characters of a glob
        return [path]
    suffixes: collections.Counter[str] = collections.Counter()
    found = files_below(path, is_wanted, suffixes) if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    paths = sorted(found, key=lambda path: list(map(natural, path.parts)))
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(suffixes.items()))
    if not paths:
        only = f", only {counts}" if counts else ""
        raise UserError(f"images: {images} matches no {kind}{only}; give a file, a folder, or a glob in quotes.")
    if counts:
        print(printable(f"images: {images} holds files that are left out: {counts}."), file=sys.stderr)
    return paths


def files_below(
    path: Path, is_wanted: Callable[[Path], bool], left_out: collections.Counter[str], above: Iterable[Path] = ()
) -> Iterator[Path]:
    """Yields the path if it is wanted, or what is wanted in this folder; counts the suffixes of other files. Passes
    over what is hidden, and over a link to one of the folders `above`.
    """
    if is_wanted(path):
        if path.is_dir() and any(map(is_visible, next(os.walk(path))[1])):
            rule = "holds pictures, so it is one clip, and the folders in it are left out"
            print(printable(f"images: {path} {rule}; name these folders instead if they are clips."), file=sys.stderr)
        yield path
    elif not path.is_dir():
        left_out[path.suffix.lower() or "without a suffix"] += 1
    elif (folder := path.resolve()) not in above:
        try:
            entries = [entry for entry in path.iterdir() if is_visible(entry.name)]
        except OSError as error:
            raise UserError(f"images: {path} cannot be read ({error.strerror}); correct its permissions.") from error
        for entry in entries:
            yield from files_below(entry, is_wanted, left_out, {*above, folder})


def image_files_in(folder: Path) -> list[Path]:
    names = [entry.name for entry in os.scandir(folder) if is_image_name(entry.name) and not entry.is_dir()]
    return [folder / name for name in sorted(names, key=natural)]


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and is_visible(name)


def find_image_files(images: str) -> Iterable[Path]:
    return find_files(images, "image file", lambda path: is_image_name(path.name) and not path.is_dir())


def natural(name: str) -> tuple[list[Any], str]:
    """Returns a key by which numbers in names are sorted as numbers; no two names have the same."""
    key: list[Any] = re.split(r"(\d+)", name)  # a text, a number, a text, ...
    key[1::2] = map(int, key[1::2])
    return key, name


def is_visible(name: str) -> bool:
    """Tells files and folders from those that systems hide."""
    return not name.startswith(".") and name.lower() not in ("thumbs.db", "desktop.ini")


def check_num_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height}, more than {MAX_PIXELS:,} pixels")


def check_regular(file: Path) -> None:
    """Raises ValueError for what may be read for ever, such as a named pipe, and OSError if there is no such file."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is not a regular file")


@contextlib.contextmanager
def opened_image(file: Path) -> Iterator[Image.Image]:
    """Opens a regular file and checks its size before its pixels are read. Raises errors of many types."""
    check_regular(file)
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):  # MAX_PIXELS is stricter
        image = Image.open(file)
    if image.format == "MPO":  # a camera may add a preview, of which Pillow makes the second frame of an animation
        image.close()
        image = JpegImageFile(file)
    with image:
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
    except Image.DecompressionBombError as error:
        raise UserError(f"{file}: is too large ({error}); shrink it to at most {MAX_PIXELS:,} pixels.") from error
    except Exception as error:  # decoders raise errors of many types
        is_path = getattr(error, "strerror", None)
        remedy = "correct the path or its permissions" if is_path else "give a PNG or JPEG file"
        raise UserError(f"{file}: cannot be read as an image ({reason_of(error)}); {remedy}.") from error


def on_paper(image: Image.Image, colour: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image.convert("RGBA"))

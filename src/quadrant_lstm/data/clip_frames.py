"""Opens clips (folders of pictures, animated pictures, arrays and videos) and reads their frames."""

import contextlib
import functools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from quadrant_lstm.data.image_files import (
    MAX_PIXELS,
    check_num_pixels,
    check_regular,
    image_files_in,
    on_paper,
    opened_image,
    unsorted_image_files,
)
from quadrant_lstm.data.videos import VIDEOS, check_container, decoded, is_video
from quadrant_lstm.errors import UserError

# Formats
#
#
# Frames are pictures of Pillow, or arrays, uint8 [height, width] or [height, width, channels].


ANIMATED = {".gif", ".webp", ".png", ".apng"}
ARRAYS = {".npy", ".npz"}
LAYOUTS = {"TCHW": (0, 2, 3, 1), "CTHW": (1, 2, 3, 0), "THWC": (0, 1, 2, 3), "THW": (0, 1, 2)}  # axes to move


def is_clip(path: Path) -> bool:
    """Tells whether the name of a file is that of a clip, or a folder holds still pictures and no videos or arrays."""
    if path.is_dir():
        if any(file.suffix.lower() in ARRAYS | VIDEOS for file in path.iterdir()):
            return False
        pictures = sorted(unsorted_image_files(path))
        first = next((known for picture in pictures if (known := is_animated(picture)) is not None), False)
        return bool(pictures) and not first
    return path.suffix.lower() in ANIMATED | ARRAYS | VIDEOS


def is_animated(picture: Path) -> bool | None:
    """Returns None for a file that cannot be read: the others of its folder tell what it is."""
    if picture.suffix.lower() not in ANIMATED:
        return False
    try:
        with opened_image(picture) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # of many types; the reader of the clip names the file
        return None


class Frames(NamedTuple):
    """Frames that are read by their numbers."""

    number: int
    read: Callable[[int], Image.Image | np.ndarray]


@contextlib.contextmanager
def opened(clip: Path, layout: str | None) -> Iterator[Frames]:
    """Yields the frames of a clip that is not a video."""
    if clip.is_dir():
        files = image_files_in(clip)
        yield Frames(len(files), lambda number: read_picture(files[number]))
    elif clip.suffix.lower() in ARRAYS:
        array = read_array(clip, layout)
        yield Frames(len(array), array.__getitem__)
    else:
        with opened_image(clip) as image:
            check_depth(image)
            yield Frames(getattr(image, "n_frames", 1), functools.partial(frame_of, image))


def frame_of(image: Image.Image, number: int) -> Image.Image:
    image.seek(number)
    return image


def read_picture(file: Path) -> Image.Image:
    with named(file), opened_image(file) as image:
        check_depth(image)
        if getattr(image, "is_animated", False):
            raise ValueError("it is animated, but the other files of the folder are single frames")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


@contextlib.contextmanager
def named(picture: Path) -> Iterator[None]:
    """Adds the name of a file to errors about it."""
    try:
        yield
    except Exception as error:  # decoders raise errors of many types
        raise ValueError(f"{picture.name}: {error}") from error


def check_depth(image: Image.Image) -> None:
    if image.mode[0] in "IF":
        raise ValueError("it has more than 8 bits per pixel")


def files_of(clip: Path) -> list[Path]:
    return image_files_in(clip) if clip.is_dir() else [clip]


def check_whole(clip: Path) -> None:
    """Raises an error for a file that is cut off where its decoder would not notice."""
    if is_video(clip):
        check_container(clip)
    elif clip.is_dir():
        for picture in image_files_in(clip):
            with named(picture):
                check_image(picture)
    elif clip.suffix.lower() not in ARRAYS:
        check_image(clip)


def check_image(file: Path) -> None:
    with opened_image(file) as image:
        if image.format == "PNG":
            image.verify()  # the checksums of its chunks, as far as the last
        elif image.format == "GIF" and not has_trailer(file.read_bytes()):
            raise ValueError("it is cut off")
        elif image.format == "WEBP" and num_webp_frames(file.read_bytes()) != getattr(image, "n_frames", 1):
            raise ValueError("it is cut off or damaged")


def num_webp_frames(webp: bytes) -> int:
    """Counts the frames by the chunks of the file, or returns 0 if these do not fill it. Pillow reads those before the
    first damaged one.
    """
    position, frames, end = 12, 0, 8 + int.from_bytes(webp[4:8], "little")
    while position < end <= len(webp) and (chunk := webp[position : position + 4]).strip().isalnum():
        frames += chunk == b"ANMF"
        size = int.from_bytes(webp[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return max(frames, 1) if position == end else 0


def has_trailer(gif: bytes) -> bool:
    """Tells whether the blocks of a GIF end with its trailer. Pillow reads a file without it as a shorter one."""
    position = 13 + size_of_colours(gif[10])
    while position < len(gif) and gif[position] != 0x3B:
        if gif[position : position + 1] == b"!":  # an extension
            position = end_of_blocks(gif, position + 2)
        elif gif[position : position + 1] == b",":  # an image
            flags = int.from_bytes(gif[position + 9 : position + 10])
            position = end_of_blocks(gif, position + 11 + size_of_colours(flags))
        else:  # Pillow passes over it, too
            position += 1
    return position < len(gif)


def size_of_colours(flags: int) -> int:
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def end_of_blocks(gif: bytes, position: int) -> int:
    while size := int.from_bytes(gif[position : position + 1]):
        position += 1 + size
    return position + 1


def read_array(clip: Path, layout: str | None) -> np.ndarray:
    """Returns uint8 [frames, height, width] or [frames, height, width, channels]. Reads only what is indexed later of
    a .npy file.
    """
    if layout is None:
        raise UserError(
            f"{clip}: is an array, but data.layout=null does not tell the order of its axes; train with e.g. "
            "data.layout=THWC, or save it as pictures."
        )
    check_regular(clip)
    array = np.load(clip, mmap_mode="r", allow_pickle=False) if clip.suffix.lower() == ".npy" else read_npz(clip)
    if array.dtype != np.uint8:
        raise ValueError(f"its type is {array.dtype}, not uint8")
    if array.ndim != len(layout):
        raise ValueError(f"its shape is {list(array.shape)}, but data.layout={layout} has {len(layout)} axes")
    moved = array.transpose(LAYOUTS[layout])
    if moved.ndim == 4 and moved.shape[3] not in (1, 3):
        raise ValueError(f"it has {moved.shape[3]} channels by data.layout={layout}, not 1 or 3")
    check_num_pixels(moved.shape[2], moved.shape[1])
    return moved[..., 0] if moved.ndim == 4 and moved.shape[3] == 1 else moved


def read_npz(clip: Path) -> np.ndarray:
    with zipfile.ZipFile(clip) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > 100 * MAX_PIXELS:
            raise ValueError(f"it holds more than {100 * MAX_PIXELS:,} bytes")
    with np.load(clip, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise ValueError(f"it holds {len(arrays.files)} arrays, not one")
        return arrays[arrays.files[0]]


# Frames
#
# a folder of image files          in natural order: frame2.png before frame10.png
# an animated GIF, WebP or PNG     its images
# .npy, or .npz with one array     uint8, its axes in the order of `layout`
# .mp4, .mkv, .webm, .avi, .mov    by PyAV, from the extra `video`
#
# A frame becomes uint8 [height, width, channels], in grey or in colour, and is resized if a size is given. What is
# transparent becomes white. The channels remain last, as decoders write them, because moving them takes time.


MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
FFMPEG_FORMATS = {1: "gray", 3: "rgb24"}


def steps_in(num_frames: int, frame_step: int) -> int:
    """Returns how many frames are left when every n-th is taken."""
    return -(-num_frames // frame_step)


def frame_numbers(first_step: int, num_steps: int, frame_step: int) -> range:
    return range(first_step * frame_step, (first_step + num_steps) * frame_step, frame_step)


class BrokenClip(UserError):
    """A file that cannot be read as a clip. The message names it and lacks a remedy."""


class FrameFormat(NamedTuple):
    channels: int  # 1 for grey, 3 for colour
    size: tuple[int, int] | None  # height and width; None keeps those of the file
    layout: str | None  # of arrays


def read_frames(clip: Path, frame_format: FrameFormat, numbers: range, out: np.ndarray) -> None:
    """Writes the frames with these numbers to `out`, uint8 [frames, height, width, channels]. Raises BrokenClip."""
    with decoder_errors_explained(clip):
        count = 0
        for place, frame in zip(out, frames_of(clip, frame_format, numbers), strict=False):
            if frame.shape != place.shape:
                raise ValueError(f"a frame has the shape {list(frame.shape)}, not {list(place.shape)}")
            place[:] = frame
            count += 1
        if count < len(numbers):
            raise ValueError(f"it has no frame {numbers[count] + 1}")


def count_frames(clip: Path, layout: str | None) -> int:
    """Counts frames without converting them. Raises BrokenClip."""
    with decoder_errors_explained(clip):
        if not clip.is_dir():  # of a folder, all files are counted, and those that are read are checked
            check_whole(clip)
        if is_video(clip):
            count = sum(1 for _ in decoded(clip))
        else:
            with opened(clip, layout) as frames:
                count = frames.number
        if count == 0:
            raise ValueError("it holds no frames")
        return count


def examine_frames(clip: Path, frame_format: FrameFormat) -> tuple[int, tuple[int, int]]:
    """Decodes all frames, and returns their number, height and width. Raises BrokenClip."""
    with decoder_errors_explained(clip):
        check_whole(clip)
        sizes: dict[tuple[int, int], None] = {}
        count = 0
        for frame in frames_of(clip, frame_format):
            count += 1
            sizes[frame.shape[:2]] = None
        if count == 0:
            raise ValueError("it holds no frames")
        if len(sizes) > 1:
            listed = " and ".join(f"{height} x {width}" for height, width in sizes)
            raise ValueError(f"its frames are of {listed}; data.size=[HEIGHT,WIDTH] would resize them")
        return count, next(iter(sizes))


def frames_of(clip: Path, frame_format: FrameFormat, numbers: range | None = None) -> Iterator[np.ndarray]:
    """Yields frames, uint8 [height, width, channels]: those with the numbers, or all."""
    if not is_video(clip):
        with opened(clip, frame_format.layout) as frames:
            for number in range(frames.number) if numbers is None else numbers:
                yield as_array(frames.read(number), frame_format)
        return
    for number, frame in enumerate(decoded(clip)):  # decoding starts at the beginning
        if numbers is not None and number > numbers[-1]:
            return
        if numbers is None or number in numbers:
            yield as_array(frame.to_ndarray(format=FFMPEG_FORMATS[frame_format.channels]), frame_format)


@contextlib.contextmanager
def decoder_errors_explained(clip: Path) -> Iterator[None]:
    """Turns the errors of decoders, which have many types, into BrokenClip. Other mistakes of the user remain."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]  # of OSError, and of PyAV's errors
        reason = reason.rstrip(".") or type(error).__name__
        raise BrokenClip(f"{clip}: cannot be read as a clip ({reason})") from error


def as_array(frame: Image.Image | np.ndarray, frame_format: FrameFormat) -> np.ndarray:
    """Returns uint8 [height, width, channels]."""
    channels, size, _ = frame_format
    if isinstance(frame, np.ndarray):
        if (frame.ndim == 3) == (channels == 3) and size in (None, frame.shape[:2]):
            return frame if frame.ndim == 3 else frame[:, :, None]
        frame = Image.fromarray(frame)
    if frame.has_transparency_data:
        frame = on_paper(frame, "white")
    if frame.mode != MODES[channels]:
        frame = frame.convert(MODES[channels])
    if size is not None and frame.size != size[::-1]:
        frame = frame.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(frame).reshape(frame.height, frame.width, channels)

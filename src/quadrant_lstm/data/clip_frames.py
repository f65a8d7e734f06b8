"""Reads the frames of clips. Imports no torch.

a folder of image files          in natural order: frame2.png before frame10.png
an animated GIF, WebP or PNG     its images
.npy, or .npz with one array     uint8, its axes in the order of `layout`
.mp4, .mkv, .webm, .avi, .mov    by PyAV, from the extra `video`

A frame becomes uint8 [height, width, channels], in grey or in colour, and is resized if a size is given. What is
transparent becomes white. The channels remain last, as decoders write them, because moving them takes time.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from quadrant_lstm.data.clip_formats import check_whole, opened
from quadrant_lstm.data.image_files import on_paper
from quadrant_lstm.data.videos import decoded, is_video
from quadrant_lstm.errors import UserError

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
            with opened(clip, layout) as found:
                count = len(found)
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
        with opened(clip, frame_format.layout) as found:
            for number in range(len(found)) if numbers is None else numbers:
                yield as_array(found[number], frame_format)
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
        fits = (frame.ndim == 3) == (channels == 3) and size in (None, frame.shape[:2])
        pixels = frame if fits else as_pixels(Image.fromarray(frame), frame_format)
    else:
        pixels = as_pixels(frame, frame_format)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def as_pixels(image: Image.Image, frame_format: FrameFormat) -> np.ndarray:
    channels, size, _ = frame_format
    if image.has_transparency_data:
        image = on_paper(image, "white")
    image = image if image.mode == MODES[channels] else image.convert(MODES[channels])
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)

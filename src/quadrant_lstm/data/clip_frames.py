"""Reads the frames of clips: folders of pictures, animated pictures, arrays and videos. Chooses which are read.

a folder of image files          in natural order: frame2.png before frame10.png
an animated GIF, WebP or PNG     its images
.npy, or .npz with one array     uint8, its axes in the order of `layout`
.mp4, .mkv, .webm, .avi, .mov    by PyAV, from the extra `video`

A frame becomes uint8 [height, width, channels], in grey or in colour. It is turned as its file asks, and resized if a
size is given. What is transparent becomes white. The channels remain last, as decoders write them, because moving them
takes time.
"""

import collections
import contextlib
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageOps

from quadrant_lstm.data import image_files, videos
from quadrant_lstm.data.image_files import check_num_pixels, check_regular, image_files_in, on_paper, opened_image
from quadrant_lstm.errors import UserError, reason_of
from quadrant_lstm.kinds import Fit

ANIMATED = {".gif", ".webp", ".png", ".apng"}
ARRAYS = {".npy", ".npz"}
LAYOUTS = {"TCHW": (0, 2, 3, 1), "CTHW": (1, 2, 3, 0), "THWC": (0, 1, 2, 3), "THW": (0, 1, 2)}  # axes to move


def is_clip(path: Path) -> bool:
    """Tells whether the name of a file is that of a clip, or a folder holds still pictures and no videos or arrays."""
    if not path.is_dir():
        return path.suffix.lower() in ANIMATED | ARRAYS | videos.VIDEOS
    if any(file.suffix.lower() in ARRAYS | videos.VIDEOS for file in path.iterdir()):
        return False
    pictures = image_files_in(path)
    for picture in pictures:
        with contextlib.suppress(Exception), opened_image(picture) as image:
            return not getattr(image, "is_animated", False)  # of the first that can be read
    return bool(pictures)


find_clip_files = partial(image_files.find_files, kind="clip", is_wanted=is_clip)


def is_still(clip: Path, num_frames: int) -> bool:
    """Tells a picture, perhaps a frame of a clip, from a clip of one frame, such as a GIF or WebP file."""
    is_other = clip.is_dir() or clip.suffix.lower() in {".gif", ".webp"} | ARRAYS | videos.VIDEOS
    return num_frames == 1 and not is_other


def is_video(clip: Path) -> bool:
    return clip.suffix.lower() in videos.VIDEOS and not clip.is_dir()


def files_of(clip: Path) -> list[Path]:
    return image_files_in(clip) if clip.is_dir() else [clip]


def frames_in(
    clip: Path, layout: str | None, numbers: Sequence[int] | None = None, key_frames: videos.KeyFrames = ()
) -> Iterator[Any]:
    """Yields pictures of Pillow, arrays or frames of PyAV: those with the numbers, which increase, or all. Raises
    errors of many types; if it yields all, also for a file that is cut off where its decoder would not notice.
    """

    def chosen(frames: Any) -> Iterator[Any]:
        return iter(frames) if numbers is None else (frames[number] for number in numbers if number < len(frames))

    if clip.is_dir():
        for file in chosen(image_files_in(clip)):
            yield read_picture(file, examine=numbers is None)
        return
    check_regular(clip)
    if is_video(clip):
        if numbers is None:
            videos.check_container(clip)
            with videos.opened_video(clip) as video:
                yield from videos.decoded(*video)
        else:
            yield from videos.frames_at(clip, numbers, key_frames)
    elif clip.suffix.lower() in ARRAYS:
        yield from chosen(read_array(clip, layout))
    else:
        if numbers is None:
            check_picture(clip)
        with opened_image(clip) as image:
            if not getattr(image, "is_animated", False):
                ImageOps.exif_transpose(image, in_place=True)
            for number in chosen(range(getattr(image, "n_frames", 1))):
                image.seek(number)
                yield image


def read_picture(file: Path, examine: bool) -> Image.Image:
    try:
        if examine:
            check_picture(file)
        with opened_image(file) as image:
            if getattr(image, "is_animated", False):
                raise ValueError("it is animated, but the other files of the folder are single frames")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Exception as error:  # decoders raise errors of many types
        raise ValueError(f"{file.name}: {error}") from error


def check_picture(file: Path) -> None:
    with opened_image(file) as image:
        if image.format == "PNG":
            image.verify()  # the checksums of its chunks, as far as the last
        elif image.format == "WEBP":
            videos.check_container(file)  # Pillow reads the frames before the first damaged one
        elif image.format == "GIF" and not has_trailer(file.read_bytes()):  # Pillow reads it as a shorter one
            raise ValueError("it is cut off, it lacks bytes, or something follows its end")


def has_trailer(gif: bytes) -> bool:
    """Tells whether the blocks of a GIF lead to its trailer, and nothing follows it."""
    position = 13 + size_of_colours(gif, 10)
    while (kind := gif[position : position + 1]) and kind in b"!,\0":  # an extension, an image, or a byte too many
        position += 1
        if kind != b"\0":
            position += 1 if kind == b"!" else 10 + size_of_colours(gif, position + 8)
            while size := int.from_bytes(gif[position : position + 1]):
                position += 1 + size
            position += 1
    return gif[position : position + 1] == b";" and not gif[position:].strip(b";\0")


def size_of_colours(gif: bytes, position: int) -> int:
    flags = int.from_bytes(gif[position : position + 1])
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def load_array(file: Path) -> np.ndarray:
    """Reads a .npy file, or an .npz file with one array. Raises errors of many types, also for arrays of objects."""
    array = np.load(file, mmap_mode="r")
    if isinstance(array, np.ndarray):
        return array
    with array as arrays:
        if sum(entry.file_size for entry in arrays.zip.infolist()) > 100 * image_files.MAX_PIXELS:
            raise ValueError(f"it holds more than {100 * image_files.MAX_PIXELS:,} bytes")
        if len(arrays.files) != 1:
            raise ValueError(f"it holds {len(arrays.files)} arrays, not one")
        return arrays[arrays.files[0]]


def read_array(clip: Path, layout: str | None) -> np.ndarray:
    """Returns uint8 [frames, height, width] or [frames, height, width, channels]. Reads only what is indexed later of
    a .npy file.
    """
    if layout is None:
        remedy = "train with e.g. data.layout=THWC, or save it as pictures"
        raise UserError(f"{clip}: is an array, but data.layout=null does not tell the order of its axes; {remedy}.")
    array = load_array(clip)
    if array.dtype != np.uint8:
        raise ValueError(f"its type is {array.dtype}, not uint8")
    if array.ndim != len(layout):
        raise ValueError(f"its shape is {list(array.shape)}, but data.layout={layout} has {len(layout)} axes")
    moved = array.transpose(LAYOUTS[layout])
    if moved.ndim == 4 and moved.shape[3] not in (1, 3):
        raise ValueError(f"it has {moved.shape[3]} channels by data.layout={layout}, not 1 or 3")
    check_num_pixels(moved.shape[2], moved.shape[1])
    return moved[..., 0] if moved.ndim == 4 and moved.shape[3] == 1 else moved


# Clips


class BrokenClip(UserError):
    """A file that cannot be read as a clip. The message names it and lacks a remedy."""


class FrameFormat(NamedTuple):
    channels: int  # 1 for grey, 3 for colour
    size: tuple[int, int] | None  # height and width; None keeps those of the file
    layout: str | None  # of arrays
    fit: Fit  # to the size


TOLERANCE = 0.002  # seconds, of the times of frames


class Note(NamedTuple):
    """What is known of a clip, as a list of a JSON file holds it."""

    state: str | None
    num_frames: int
    height: int  # after turning and resizing
    width: int
    sha256: str  # of its files
    seconds: float | None  # how long it is shown; None for folders, arrays and still pictures, which have no times
    times: Sequence[float] | None  # in seconds, from 0; None if frame k is shown at k * seconds / num_frames
    key_frames: videos.KeyFrames  # of a video


def frame_times(note: Note) -> np.ndarray:
    """Returns the seconds at which each frame of a clip is shown, from 0. The clip must have times."""
    assert note.seconds is not None
    return np.arange(note.num_frames) * note.seconds / note.num_frames if note.times is None else np.array(note.times)


def examine(clip: Path, frame_format: FrameFormat, checks_files: bool = True) -> Note:
    """Decodes all frames. Raises BrokenClip. Without checks of its files, which are for a training, the pictures of a
    folder are only counted, and the Note has no state, no checksum and no key frames.
    """
    with decoder_errors_explained(clip):
        state = state_of(clip) if checks_files else None
        if clip.is_dir() and not checks_files:
            if not (number := len(image_files_in(clip))):
                raise ValueError("it holds no pictures")
            return Note(None, number, *(frame_format.size or (0, 0)), "", None, None, [])
        shapes: collections.Counter[Any] = collections.Counter()
        frames = count_shapes(frames_in(clip, frame_format.layout), frame_format, shapes)
        times, seconds, key_frames = (
            videos.timeline(clip, frames, checks_files) if is_video(clip) else animation_times(frames)
        )
        if not shapes:
            raise ValueError("it holds no frames")
        if len(shapes) > 1:
            listed = " and ".join(f"{height} x {width}" for height, width in shapes)
            raise ValueError(f"its frames are of {listed}; data.size=[HEIGHT,WIDTH] would resize them")
        digest = hashlib.sha256()
        for file in files_of(clip) if checks_files else ():
            digest.update(file.read_bytes())
        (((height, width), num_frames),) = shapes.items()
        note = Note(state, num_frames, height, width, digest.hexdigest(), seconds, None, key_frames)
        if times is None or np.allclose(frame_times(note), times, rtol=0, atol=TOLERANCE):
            return note
        return note._replace(times=[round(time, 4) for time in times])


def count_shapes(frames: Iterable[Any], frame_format: FrameFormat, shapes: collections.Counter[Any]) -> Iterator[Any]:
    """Counts the shapes of the frames as arrays. Converts pictures, and one of the frames that must be alike."""
    known: dict[Any, Any] = {}
    for frame in frames:
        kind = frame.shape if isinstance(frame, np.ndarray) else None
        if not isinstance(frame, np.ndarray | Image.Image):
            kind = frame.format.name, frame.width, frame.height, frame.rotation
        if kind is None or kind not in known:
            known[kind] = as_array(frame, frame_format).shape[:2]
        shapes[known[kind]] += 1
        yield frame


def animation_times(frames: Iterable[Any]) -> tuple[list[float] | None, float | None, videos.KeyFrames]:
    """Returns the seconds at which each picture of an animation is shown, and how long all are; None for others."""
    durations = [frame.info.get("duration", 0) or 100 for frame in frames if getattr(frame, "is_animated", False)]
    *times, seconds = itertools.accumulate((duration / 1000 for duration in durations), initial=0.0)
    return (times, seconds, []) if durations else (None, None, [])


def state_of(clip: Path) -> str | None:
    """Returns what changes with the path and the content, hashed: the names of the files, their bytes and the times of
    their last changes, also of those that restore the time of the content; None for a clip whose files cannot be
    listed or found, such as a link that leads nowhere.
    """
    with contextlib.suppress(OSError, ValueError):
        files = [(file.name, file.stat()) for file in files_of(clip)]
        states = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in files]
        return hashlib.sha256(repr((str(clip.absolute()), states)).encode()).hexdigest()
    return None


def read_frames(
    clip: Path, frame_format: FrameFormat, numbers: Sequence[int], out: np.ndarray, key_frames: videos.KeyFrames = ()
) -> None:
    """Writes the frames with these numbers, which may repeat but not decrease, to `out`, uint8 [frames, height, width,
    channels]. Raises BrokenClip.
    """
    with decoder_errors_explained(clip):
        frames = frames_in(clip, frame_format.layout, list(dict.fromkeys(numbers)), key_frames)
        for _, places in itertools.groupby(range(len(numbers)), key=numbers.__getitem__):
            if (frame := next(frames, None)) is None:
                raise ValueError("it has fewer frames")
            first, *others = places
            out[first : first + 1 + len(others)] = as_array(frame, frame_format)


@contextlib.contextmanager
def decoder_errors_explained(clip: Path) -> Iterator[None]:
    """Turns the errors of decoders, which have many types, into BrokenClip. Other mistakes of the user remain."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise BrokenClip(f"{clip}: cannot be read as a clip ({reason_of(error)})") from error


def as_array(frame: Any, frame_format: FrameFormat) -> np.ndarray:
    """Returns uint8 [height, width, channels]."""
    channels, size, _, fit = frame_format
    mode, video_format = ("L", "gray") if channels == 1 else ("RGB", "rgb24")
    if not isinstance(frame, Image.Image):
        pixels = frame if isinstance(frame, np.ndarray) else videos.pixels_of(frame, video_format)
        if pixels.shape[2:] == ((3,) if channels == 3 else ()) and size in (None, pixels.shape[:2]):
            return pixels if pixels.ndim == 3 else pixels[:, :, None]
        frame = Image.fromarray(pixels)
    if frame.mode[0] in "IF":
        raise ValueError("it has more than 8 bits per pixel")
    if frame.has_transparency_data:
        frame = on_paper(frame, "white")
    frame = frame if frame.mode == mode else frame.convert(mode)
    if size is not None:
        resize: Any = {"stretch": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[fit]
        frame = resize(frame, size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(frame).reshape(frame.height, frame.width, channels)


# Which frames a network may read


def frames_available(note: Note, frame_step: int, fps: int | float | None) -> Int[np.ndarray, " frames"]:
    """Returns the numbers of every n-th frame; or with `fps`, whatever the rate of the file, of those that are shown at
    so many moments per second. A frame is shown until the next one appears. Files round their times to milliseconds.
    """
    if fps is None or note.seconds is None:
        return np.arange(0, note.num_frames, frame_step)
    shown = np.arange(max(1, math.ceil(note.seconds * fps - 1e-6))) / fps
    return (np.searchsorted(frame_times(note), shown + 1e-3, side="right") - 1).clip(0)

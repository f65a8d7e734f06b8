"""Decodes videos with PyAV, and refuses files that are cut off or damaged. Imports no torch.

FFmpeg reads what is left of a file that was cut off, mostly without an error. But the parts of each container begin
with their lengths, which tell whether the file is whole:

    mp4, mov     boxes                              [moov ...] [mdat ...]
    avi          chunks, some of which hold others  [RIFF [LIST [00dc ...] [00dc ...]] [idx1 ...]]
    mkv, webm    elements, likewise                 [EBML ...] [Segment [Info ...] [Cluster [SimpleBlock ...]]]
"""

import bisect
import collections
import contextlib
import itertools
import mmap
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quadrant_lstm.data.image_files import check_num_pixels
from quadrant_lstm.errors import needs_extra

VIDEOS = {".mp4", ".mkv", ".webm", ".avi", ".mov"}
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}  # raises errors where FFmpeg would conceal damage
# H.264 and HEVC forbid three zero bytes in a row, except before a start code. The coders of the others do not write as
# many: 41 are the most in the files that this was tried with, and 11 in uniform pictures of 3840 x 2160.
WITHOUT_ZEROS = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d"}
HOLE = re.compile(rb"\0{128}\0*[^\0\1]")


@contextlib.contextmanager
def opened_video(clip: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a container of PyAV and its first video of a known codec."""
    with needs_extra(str(clip), "video"):
        import av
    with av.open(str(clip), options=STRICT, metadata_errors="replace") as container:
        stream = next((stream for stream in container.streams.video if stream.codec_context), None)
        if stream is None:
            raise ValueError("it holds no video of a known codec")
        check_num_pixels(stream.width, stream.height)
        stream.codec_context.thread_count = 1  # the others would be started and ended at each seek, which takes longer
        yield container, stream


def decoded(container: Any, stream: Any, start: int | None = None) -> Iterator[Any]:
    """Yields the frames of a video as PyAV decodes them, all or those from a key frame with the time `start` on. Raises
    ValueError where some are missing or damaged.
    """
    codec, is_mp4 = stream.codec_context.name, "mp4" in container.format.name
    end = 0  # of the packets, in units of stream.time_base, as all times here
    shown: list[int] = []  # times of the packets that an edit list does not hide
    times: list[int] = []  # of the frames
    if start is not None:
        container.seek(start, stream=stream)
    packet: Any
    for packet in container.demux(stream):
        data = bytes(packet)
        has_hole = codec in WITHOUT_ZEROS and HOLE.search(data)
        ends_in_hole = is_mp4 and codec in ("h264", "hevc") and data.endswith(bytes(128))  # elsewhere, padding
        if packet.is_corrupt or has_hole or ends_in_hole:
            seconds = float(packet.pts * packet.time_base) if packet.pts else 0
            raise ValueError(f"it is cut off or damaged at {seconds:.1f} seconds")
        if packet.pts is not None:
            end = max(end, packet.pts + (packet.duration or 0))
            shown += [] if packet.is_discard else [packet.pts]
        for frame in packet.decode():
            if start is not None and not times and frame.pts < start:
                continue  # it follows the key frame in the file, and may need frames before that
            if frame.is_corrupt:
                raise ValueError("a frame is damaged")
            times.append(frame.pts)
            yield frame
    # a recording in Matroska may show its last frame for long; packets may hold none
    if start is not None or "matroska" in container.format.name:
        return
    is_placeholder = stream.frames > container.size  # of a writer that could not return to its header
    if stream.duration and end < 0.9 * stream.duration and not is_placeholder:
        raise ValueError(f"its frames end after {100 * end // stream.duration} % of its duration")
    # packets of an avi may hold no frame, and the first frames may need others that are not in the file
    if times and is_mp4 and len(times) < sum(time >= times[0] for time in shown):
        raise ValueError(f"only {len(times)} of {len(shown)} frames can be decoded")


def pixels_of(frame: Any, video_format: str) -> np.ndarray:
    """Converts the pixels, to RGBA if some may be transparent. Applies the matrix of a video, x' = a x + c y and y' =
    b x + d y, where y points down, in steps of 90 degrees.
    """
    from av.sidedata import sidedata

    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if has_alpha else video_format, threads=1)  # starting more takes 0.5 ms
    # frame.side_data would refer to its frame, and keep the frame's memory until the next garbage collection
    container: Any = sidedata.SideDataContainer
    if (matrix := container(frame).get("DISPLAYMATRIX")) is None:
        return pixels
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    pixels = pixels.swapaxes(0, 1) if abs(b) > abs(a) else pixels
    return pixels[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]


# Times and key frames
#
# Decoding can begin at a key frame only if it then gives the same frames as from the start of the file. That depends on
# the codec, the container and the coder, so it is tried at every key frame before any is noted.


KeyFrames = Sequence[Sequence[int]]  # the number of each frame, and its time in units of the stream
APART = 12  # frames between key frames that are noted: decoding so many takes about as long as a seek


def timeline(clip: Path, frames: Iterable[Any], tries_keys: bool) -> tuple[list[float] | None, float | None, KeyFrames]:
    """Returns the seconds at which each frame is shown, from 0, or None if the file does not tell; how long all are
    shown; and key frames after the first frame, or none if they are not to be tried, which takes as long.
    """
    times, checksums = [], []
    keys: list[int] = []
    for number, frame in enumerate(frames):
        times.append(frame.pts)
        if tries_keys and frame.key_frame and number - (keys or [0])[-1] >= APART:
            keys.append(number)
        checksums.append(checksum(frame) if keys else None)
    known = [time for time in times if time is not None]
    if not known:
        return None, None, []
    unit, span = float(frame.time_base), max(known) - min(known)
    seconds = unit * (span + (frame.duration or span / max(1, len(known) - 1)))
    if known != times or any(later <= time for time, later in itertools.pairwise(times)):
        return None, seconds, []  # an AVI file does not tell when B-frames are shown
    if keys:
        again = []
        with contextlib.suppress(Exception), opened_video(clip) as video:
            frames = sought(*video, range(keys[0], len(times)), {key: times[key] for key in keys})
            again = [(frame.pts, checksum(frame)) for frame in frames]
        if again != list(zip(times, checksums, strict=True))[keys[0] :] or None in checksums[keys[0] :]:
            keys = []
    return [unit * (time - times[0]) for time in times], seconds, [[key, times[key]] for key in keys]


def checksum(frame: Any) -> int | None:
    """Returns None for a frame whose pixels PyAV cannot show."""
    with contextlib.suppress(Exception):
        return zlib.crc32(frame.to_ndarray().tobytes())
    return None


def frames_at(clip: Path, numbers: Sequence[int], key_frames: KeyFrames) -> Iterator[Any]:
    """Yields the frames with these numbers, which increase, by way of key frames where that is shorter."""
    remaining = collections.deque(numbers)
    for times in ({key[0]: key[1] for key in key_frames}, {}):
        # what fails after a seek is tried again from the start
        with contextlib.suppress(*([Exception] if times else [])), opened_video(clip) as video:
            for frame in sought(*video, tuple(remaining), times):
                remaining.popleft()
                yield frame
            return


def sought(container: Any, stream: Any, numbers: Sequence[int], times: Mapping[int, int]) -> Iterator[Any]:
    frames, position, start, keys = decoded(container, stream), 0, 0, [0, *times]
    for number in numbers:
        key = keys[bisect.bisect(keys, number) - 1]
        if key > (start or position):  # after a seek, also a key frame that comes next: so it was tried
            frames, position, start = decoded(container, stream, times[key]), key, key
        for frame in frames:
            if position in times and (frame.pts != times[position] or not frame.key_frame):
                raise ValueError("it has another key frame")
            position += 1
            if position > number:
                yield frame
                break
        else:
            raise ValueError("it has fewer frames")


class Part(NamedTuple):
    content: int  # where it begins in the file
    end: int
    is_parent: bool = False  # of other parts


FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot")  # of mp4 and of QuickTime
UNKNOWN = 0xFFFFFFFF  # the length of a chunk whose writer could not return to it
PARENTS = (0x18538067, 0x1654AE6B, 0xAE, 0x1F43B675, 0xA0)  # Segment, Tracks, TrackEntry, Cluster, BlockGroup: RFC 9559
TRACK_NUMBER, BLOCKS = 0xD7, (0xA1, 0xA3)  # a block begins with the number of its track
CRC_32 = b"\xbf\x84"  # and four bytes: the first element of a parent, for the others in it (RFC 8794)


def check_container(video: Path) -> None:
    """Raises ValueError if the parts of the file are damaged, or longer than the file."""
    if not video.stat().st_size:  # mmap refuses it less clearly
        raise ValueError("it is empty")
    with video.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        readers = {b"RIFF": chunk, b"\x1a\x45\xdf\xa3": element}
        read = readers.get(data[:4], box if data[4:8] in FIRST_BOXES else None)
        position, parents = 0, [len(data)]  # the ends of those that hold the next part
        tracks: set[int] = set()  # their numbers
        while read and position + 8 <= len(data) and (part := read(data, position, parents, tracks)):
            if part.end > len(data):
                raise ValueError(f"it is cut off: {len(data):,} of at least {part.end:,} bytes")
            if read is element and part.end > min(parents):  # FFmpeg passes over this, too
                raise damaged(position)
            if part.is_parent and parents[-3:] != 3 * [part.end]:  # all Clusters of a recording end with the file
                parents.append(part.end)
            position = part.content if part.is_parent else part.end
            parents = [end for end in parents if end > position]


def box(data: mmap.mmap, position: int, *_: Any) -> Part | None:
    size = int.from_bytes(data[position : position + 4])
    if not data[position + 4 : position + 8].isalnum():
        if data.find(b"mdat", position) != -1:
            raise damaged(position)
        return None  # what follows is no box
    if size == 1:
        size = int.from_bytes(data[position + 8 : position + 16])
    return Part(position + 8, position + max(size, 8) if size else len(data))


def chunk(data: mmap.mmap, position: int, parents: Sequence[int], _: Any) -> Part | None:
    position += position % 2
    name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
    if name != b"RIFF" and len(parents) == 1:
        return None  # what follows is no chunk
    if not name.isascii() or not name.decode().isprintable():
        raise damaged(position)
    is_parent = name == b"RIFF" or (name == b"LIST" and data[position + 8 : position + 12] in (b"movi", b"rec "))
    return Part(position + 12, len(data) if size == UNKNOWN else position + 8 + size, is_parent)


def element(data: mmap.mmap, position: int, parents: Sequence[int], tracks: set[int]) -> Part:
    identity, _, after = vint(data, position)
    marked, mask, content = vint(data, after)
    size = marked & mask
    if identity == TRACK_NUMBER:
        tracks.add(int.from_bytes(data[content : content + size]))
    if identity in BLOCKS:
        marked_track, track_mask, _ = vint(data, content)
        # Without an error, FFmpeg ends the video at an unknown track, and passes over what is in no Cluster
        if marked_track & track_mask not in tracks or len(parents) < 3:
            raise damaged(position)
    if identity not in PARENTS:
        return Part(content, content + size)
    end = min(parents) if size == mask else content + size  # unknown, of a recording
    following = content + 6
    has_checksum = data[content : content + 2] == CRC_32 and end <= len(data)
    if has_checksum and int.from_bytes(data[content + 2 : following], "little") != zlib.crc32(data[following:end]):
        raise damaged(position)
    return Part(content, end, is_parent=True)


def vint(data: mmap.mmap, position: int) -> tuple[int, int, int]:
    """Reads a number of variable length. Returns it with the bit that marks its length, a mask that removes this bit,
    and the position of the next byte.
    """
    length = 9 - (data[position].bit_length() if position < len(data) else 0)
    if length > 8:
        raise damaged(position)
    return int.from_bytes(data[position : position + length]), 2 ** (7 * length) - 1, position + length


def damaged(position: int) -> ValueError:
    return ValueError(f"it is damaged near byte {position:,}")

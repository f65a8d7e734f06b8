"""Decodes videos with PyAV, and refuses files that are cut off or damaged. Imports no torch.

FFmpeg reads what is left of a file that was cut off, mostly without an error. But the parts of each container begin
with their lengths, which tell whether the file is whole:

    mp4, mov     boxes                              [moov ...] [mdat ...]
    avi          chunks, some of which hold others  [RIFF [LIST [00dc ...] [00dc ...]] [idx1 ...]]
    mkv, webm    elements, likewise                 [EBML ...] [Segment [Info ...] [Cluster [SimpleBlock ...]]]
"""

import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quadrant_lstm.data.image_files import check_num_pixels, check_regular
from quadrant_lstm.errors import needs_extra

VIDEOS = {".mp4", ".mkv", ".webm", ".avi", ".mov"}
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}  # raises errors where FFmpeg would conceal damage
# H.264 and HEVC forbid three zero bytes in a row, except before a start code. The coders of the others do not write as
# many: 41 are the most in the files that this was tried with, and 11 in uniform pictures of 3840 x 2160.
WITHOUT_ZEROS = {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d"}
HOLE = re.compile(rb"\0{128}\0*[^\0\1]")
# Segment, Tracks, TrackEntry, Cluster, BlockGroup of RFC 9559
PARENTS = (0x18538067, 0x1654AE6B, 0xAE, 0x1F43B675, 0xA0)
TRACK_NUMBER, BLOCKS = 0xD7, (0xA1, 0xA3)
CRC_32 = 0xBF  # RFC 8794
FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot")  # of mp4 and of QuickTime
UNKNOWN = 0xFFFFFFFF  # the length of a chunk whose writer could not return to it


def is_video(clip: Path) -> bool:
    return clip.suffix.lower() in VIDEOS and not clip.is_dir()


def decoded(clip: Path) -> Iterator[Any]:
    """Yields the frames of a video as PyAV decodes them. Raises ValueError where some are missing or damaged."""
    with needs_extra(str(clip), "video"):
        import av
    check_regular(clip)
    with av.open(str(clip), options=STRICT, metadata_errors="replace") as container:
        stream = next((stream for stream in container.streams.video if stream.codec_context), None)
        if stream is None:
            raise ValueError("it holds no video of a known codec")
        check_num_pixels(stream.width, stream.height)
        end = 0  # of the packets, in units of stream.time_base, as all times here
        shown: list[int] = []  # times of the packets that an edit list does not hide
        times: list[int] = []  # of the frames
        packet: Any
        for packet in container.demux(stream):
            check_packet(packet, is_mp4="mp4" in container.format.name)
            if packet.pts is not None:
                end = max(end, packet.pts + (packet.duration or 0))
                if not packet.is_discard:
                    shown.append(packet.pts)
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ValueError(f"frame {len(times) + 1} is damaged")
                times.append(frame.pts)
                yield frame
        if "matroska" in container.format.name:  # a recording may show its last frame for long; packets may hold none
            return
        is_placeholder = stream.frames > clip.stat().st_size  # of a writer that could not return to its header
        if stream.duration and end < 0.9 * stream.duration and not is_placeholder:
            raise ValueError(f"its frames end after {100 * end // stream.duration} % of its duration")
        # packets of an avi may hold no frame, and the first frames may need others that are not in the file
        if times and "mp4" in container.format.name and len(times) < sum(time >= times[0] for time in shown):
            raise ValueError(f"only {len(times)} of {len(shown)} frames can be decoded")


def check_packet(packet: Any, is_mp4: bool) -> None:
    codec, data = packet.stream.codec_context.name, bytes(packet)
    has_hole = codec in WITHOUT_ZEROS and HOLE.search(data) is not None
    ends_in_hole = is_mp4 and codec in ("h264", "hevc") and data.endswith(bytes(128))  # elsewhere, padding is allowed
    if packet.is_corrupt or has_hole or ends_in_hole:
        raise ValueError("it is cut off or damaged" + ("" if packet.time is None else f" at {packet.time:.1f} seconds"))


def check_container(video: Path) -> None:
    """Raises ValueError if the parts of the file are damaged, or longer than the file."""
    check_regular(video)
    if not video.stat().st_size:  # mmap refuses it less clearly
        raise ValueError("it is empty")
    with video.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == b"RIFF":
            check_chunks(data)
        elif data[:4] == b"\x1a\x45\xdf\xa3":  # EBML
            check_elements(data, 0, len(data), set())
        elif data[4:8] in FIRST_BOXES:
            check_boxes(data)


def check_boxes(data: mmap.mmap) -> None:
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        if not data[position + 4 : position + 8].isalnum():
            if data.find(b"mdat", position) != -1:
                raise damaged(position)
            return  # what follows is no box
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16])
        if size == 0:  # up to the end of the file
            return
        position += max(size, 8)
        check_end(position, data)


def check_chunks(data: mmap.mmap) -> None:
    position = end = 0
    while position + 8 <= len(data):
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if name == b"RIFF":
            end = len(data) if size == UNKNOWN else position + 8 + size
        elif position >= end:
            return  # what follows is no chunk
        if not name.isascii() or not name.decode().isprintable():
            raise damaged(position)
        if size != UNKNOWN:
            check_end(position + 8 + size, data)
        is_opened = name == b"RIFF" or (name == b"LIST" and data[position + 8 : position + 12] in (b"movi", b"rec "))
        position += 12 if is_opened else 8 + size + size % 2


def check_elements(data: mmap.mmap, start: int, end: int, tracks: set[int]) -> None:
    """Checks the elements from `start` to `end`, and those in them as far as the frames, with their checksums.

    Adds the numbers of tracks to `tracks`. FFmpeg ends the video at a frame of a track that does not exist.
    """
    position = start
    while position < end:
        identity, _, after = vint(data, position)
        marked, mask, content = vint(data, after)
        size = marked & mask
        if size == mask and identity in PARENTS:  # unknown, of a recording; the elements in it follow
            position = content
            continue
        following = content + size
        check_end(following, data)
        if identity == TRACK_NUMBER:
            tracks.add(int.from_bytes(data[content:following]))
        if identity in BLOCKS:
            track, mask, _ = vint(data, content)
            if tracks and track & mask not in tracks:
                raise damaged(position)
        if following > end:
            raise damaged(position)
        if identity == CRC_32 and int.from_bytes(data[content:following], "little") != zlib.crc32(data[following:end]):
            raise damaged(position)
        if identity in PARENTS:
            check_elements(data, content, following, tracks)
        position = following


def vint(data: mmap.mmap, position: int) -> tuple[int, int, int]:
    """Reads a number of variable length. Returns it with the bit that marks its length, a mask that removes this bit,
    and the position of the next byte.
    """
    check_end(position + 1, data)
    length = 9 - data[position].bit_length()
    if length > 8:
        raise damaged(position)
    check_end(position + length, data)
    return int.from_bytes(data[position : position + length]), 2 ** (7 * length) - 1, position + length


def check_end(position: int, data: mmap.mmap) -> None:
    if position > len(data):
        raise ValueError(f"it is cut off: {len(data):,} of at least {position:,} bytes")


def damaged(position: int) -> ValueError:
    return ValueError(f"it is damaged near byte {position:,}")

"""Compares an epoch of data=clips with a loop over the files, in as many processes, that only decodes them. Seeks in a
long video with and without its noted key frames.
"""

import collections
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import Ways, milliseconds, table
from quadrant_lstm.cli.command import compose_config
from quadrant_lstm.data.clip_frames import FrameFormat, examine, read_frames
from quadrant_lstm.data.datamodule import end_unnoticed
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.run.build import build_data

NUM_CLIPS, NUM_FRAMES, SIZE, WORKERS = 250, 32, 112, 2
LONG, FEW = 10_000, 16  # frames of the long video, and those that are read from its middle
KEYS = f"cache_gb=0.0 batch_size=4 validation_share=0.0 test_share=0.04 num_workers={WORKERS} num_frames={NUM_FRAMES}"


def tables(out: Path, rounds: int = 7) -> Iterator[str]:
    with needs_extra("clips", "video"):
        import av  # noqa: F401
    # a Pool ends its processes by SIGTERM; with the command's own handler of it, they may wait for ever
    pool = multiprocessing.get_context("fork").Pool(WORKERS, end_unnoticed, (0,))
    with tempfile.TemporaryDirectory() as folder, pool:
        os.environ["HOME"] = folder  # where notes of clips are kept
        cases = ((name, ways_to_read(pool, Path(folder, name), *functions)) for name, functions in FORMATS.items())
        yield from table(f"frames of {SIZE} x {SIZE} per second", cases, rounds, "per s")
        yield ""
        seeking = [("mp4", ways_to_seek(Path(folder, "long")))]
        yield from table(f"{FEW} frames from the middle of {LONG:,}", seeking, rounds)


def ways_to_read(pool: Any, root: Path, write: Callable[..., None], decode: Callable[[Path], None]) -> Ways:
    write_clips(root, write)
    data = build_data(compose_config(["data=clips", f"data.root={root}", *(f"data.{key}" for key in KEYS.split())]))
    loader, files = data.train_dataloader(), [clip.path for clip in data.train.samples]

    def frames_per_second(read: Callable[[], object]) -> float:
        return 1000 * len(files) * NUM_FRAMES / milliseconds(read)

    return {
        "decoding alone": partial(frames_per_second, lambda: pool.map(decode, files, chunksize=1)),
        "`data=clips`": partial(frames_per_second, lambda: collections.deque(loader, maxlen=0)),
    }


def write_clips(root: Path, write: Callable[[Path, Sequence[np.ndarray]], None]) -> None:
    random = np.random.default_rng(0)
    for number in range(NUM_CLIPS):
        path = root / ("one", "other")[number % 2] / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, moving_cloud(random))


def moving_cloud(random: np.random.Generator) -> list[np.ndarray]:
    """Returns frames that change a little from one to the next, and compress like photographs."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8))
    large = np.asarray(coarse.resize((SIZE + NUM_FRAMES, SIZE + NUM_FRAMES), Image.Resampling.BICUBIC))
    return [large[t : t + SIZE, t : t + SIZE] for t in range(NUM_FRAMES)]


def ways_to_seek(path: Path) -> Ways:
    cloud = moving_cloud(np.random.default_rng(0))  # without a jump, at which there would be another key frame
    write_video(path, ([*cloud, *reversed(cloud)] * (LONG // NUM_FRAMES))[:LONG])
    video, form = path.with_suffix(".mp4"), FrameFormat(3, None, None, "stretch")
    first = LONG // 2 - 125  # halfway between two key frames
    wanted = video, form, range(first, first + FEW), np.empty((FEW, SIZE, SIZE, 3), np.uint8)
    return {
        "decoding from the start": partial(milliseconds, read_frames, *wanted),
        "from a noted key frame": partial(milliseconds, read_frames, *wanted, examine(video, form).key_frames),
    }


def write_pictures(path: Path, frames: Sequence[np.ndarray]) -> None:
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number}.png")


def decode_pictures(path: Path) -> None:
    for file in path.iterdir():
        np.asarray(Image.open(file).convert("RGB"))


def write_video(path: Path, frames: Sequence[np.ndarray]) -> None:
    import av

    with av.open(f"{path}.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def decode_video(path: Path, threads: int = 0) -> None:
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = threads
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24", threads=threads)


Functions = tuple[Callable[[Path, Sequence[np.ndarray]], None], Callable[[Path], None]]
FORMATS: dict[str, Functions] = {
    "PNG files": (write_pictures, decode_pictures),
    "mp4": (write_video, decode_video),
    "mp4 on one thread": (write_video, partial(decode_video, threads=1)),
}

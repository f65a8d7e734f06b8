"""Compares an epoch of data=clips with a loop over the files in as many processes that only decodes them.

The DataModule has two workers and no cache; the loop uses Pillow or PyAV.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from quadrant_lstm.benchmark.report import Rounds, median_and_range, row
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.clips import Clips

NUM_CLIPS, NUM_FRAMES, SIZE = 240, 32, 112  # of the clips that are decoded
WORKERS = 2


def reading_rows(folder: Path, rounds: int) -> Iterator[str]:
    for name, write, decode in (("PNG files", write_pictures, decode_pictures), ("mp4", write_video, decode_video)):
        yield reading_row(name, folder / name, write, decode, rounds)


def reading_row(
    name: str, root: Path, write: Callable[[Path, np.ndarray], None], decode: Callable[[Path], int], rounds: int
) -> str:
    write_clips(root, write)
    data = clips_in(root, NUM_FRAMES)
    loader = data.train_dataloader()
    files = [clip.path for clip in data.train.clips]
    measured = Rounds()
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        for number in range(1 + rounds):
            alone = per_second(lambda: sum(pool.map(decode, files, chunksize=1)))
            ours = per_second(lambda: sum(batch.frames.shape[0] * NUM_FRAMES for batch in loader))
            if number:
                measured.add("alone", alone)
                measured.add("this project", ours)
    cells = (median_and_range(measured[way], 0) for way in ("alone", "this project"))
    return row(name, *cells, median_and_range(measured.ratios("this project", "alone"), 2))


def clips_in(root: Path, num_frames: int, layout: str | None = None, cache_gb: float = 0.0) -> Clips:
    return Clips(
        str(root), num_frames, frame_step=1, size=None, channels=3, layout=layout,  # type: ignore[arg-type]
        test_share=0.2,
        validation_share=0.02, validation_seed=0, batch_size=4, num_workers=WORKERS, cache_gb=cache_gb,
        skip_broken=False, seed=1, augmentation=Augmentation(),
    )  # fmt: skip


def per_second(read: Callable[[], int]) -> float:
    start = time.perf_counter()
    count = read()
    return count / (time.perf_counter() - start)


def write_clips(root: Path, write: Callable[[Path, np.ndarray], None]) -> None:
    random = np.random.default_rng(0)
    for half in ("train", "test"):
        for name in ("one", "other"):
            (root / half / name).mkdir(parents=True)
            for number in range(NUM_CLIPS // 2 if half == "train" else 1):
                write(root / half / name / str(number), smooth_frames(random))


def smooth_frames(random: np.random.Generator) -> np.ndarray:
    """Returns random clouds that move a little from frame to frame, which compress like photographs."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3)).astype(np.uint8))
    large = np.asarray(coarse.resize((SIZE + NUM_FRAMES, SIZE + NUM_FRAMES), Image.Resampling.BICUBIC))
    return np.stack([large[t : t + SIZE, t : t + SIZE] for t in range(NUM_FRAMES)])


def write_pictures(path: Path, frames: np.ndarray) -> None:
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{number}.png")


def decode_pictures(path: Path) -> int:
    """Returns the number of frames."""
    count = 0
    for file in path.iterdir():
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))
        count += 1
    return count


def write_video(path: Path, frames: np.ndarray) -> None:
    import av

    with av.open(f"{path}.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def decode_video(path: Path) -> int:
    import av

    count = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
            count += 1
    return count

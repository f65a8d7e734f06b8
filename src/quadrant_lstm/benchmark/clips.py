"""Measures how fast clips are read and made, beside decoding alone and the training step, and the memory of a training.

python -m pip install -e ".[video]" && python -m quadrant_lstm.benchmark.clips       five minutes

Decoding alone is a loop over the files in two processes, with Pillow or PyAV; ours is an epoch of the DataModule with
two workers and without a cache. Both take turns in every round; a first round warms up and does not count. The memory
is measured on 10 GB of frames, in arrays whose files are linked to each other. Writes clips.md.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch.nn.functional import cross_entropy

from quadrant_lstm.benchmark.command import new_parser, write_page
from quadrant_lstm.benchmark.report import Rounds, median_and_range, row
from quadrant_lstm.cli.command import check_project_root, handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.data.augmentation import Augmentation
from quadrant_lstm.data.clips import Clips
from quadrant_lstm.errors import needs_extra
from quadrant_lstm.kinds import AtLeastTwo
from quadrant_lstm.processes.prepare import prepare_for_training
from quadrant_lstm.run.build import build_data, build_network

NUM_CLIPS, NUM_FRAMES, SIZE = 240, 32, 112  # of the clips that are decoded
WORKERS = 2


def main() -> None:
    options = new_parser(__doc__, rounds=7).parse_args()
    check_value("--rounds", options.rounds, AtLeastTwo)
    check_project_root("benchmark.clips")
    with needs_extra("benchmark", "video"):
        import av  # noqa: F401
    prepare_for_training()
    write_page(options.out, "clips", tables(options.rounds))


def tables(rounds: int) -> Iterator[str]:
    yield row(f"frames of {SIZE} x {SIZE} per second, median (minimum to maximum)", "decoding alone", "ours", "ratio")
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder  # where notes of clips are kept
        for name, write, decode in (("PNG files", write_pictures, decode_pictures), ("mp4", write_video, decode_video)):
            yield reading_row(name, Path(folder, name), write, decode, rounds)
        yield ""
        yield row("clips of `experiment=motion` per second, median (minimum to maximum)", "")
        yield "|---|---|"
        yield from making_rows(rounds)
        yield ""
        yield row("memory while training on 10 GB of frames", "GB")
        yield "|---|---|"
        for cache_gb in (0.0, 1.0):
            yield row(
                f"`data.cache_gb={cache_gb:.0f}`", f"{memory_of_training(Path(folder, 'large'), cache_gb) / 1e9:.2f}"
            )


def reading_row(
    name: str, root: Path, write: Callable[[Path, np.ndarray], None], decode: Callable[[Path], int], rounds: int
) -> str:
    write_clips(root, write)
    data = clips_in(root)
    loader = data.train_dataloader()
    files = [clip.path for clip in data.train.clips]
    measured = Rounds()
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        for number in range(1 + rounds):
            alone = frames_per_second(lambda: sum(pool.map(decode, files, chunksize=1)))
            ours = frames_per_second(lambda: sum(batch.frames.shape[0] * NUM_FRAMES for batch in loader))
            if number:
                measured.add("alone", alone)
                measured.add("ours", ours)
    cells = (median_and_range(measured[way], 0) for way in ("alone", "ours"))
    return row(name, *cells, median_and_range(measured.ratios("ours", "alone"), 2))


def clips_in(root: Path, num_frames: int = NUM_FRAMES, cache_gb: float = 0.0) -> Clips:
    layout = "THWC" if root.name == "large" else None
    return Clips(
        str(root), num_frames, 1, None, 3, layout, 0.2, 0.02, 0, 4, WORKERS, cache_gb, False, 1, Augmentation()
    )


def frames_per_second(read: Callable[[], int]) -> float:
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
    for file in path.iterdir():
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))
    return NUM_FRAMES


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

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
    return NUM_FRAMES


def making_rows(rounds: int) -> Iterator[str]:
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        cfg = compose("train", ["experiment=motion"])
    data = build_data(cfg)
    network = build_network(cfg, data.spec).train()
    samples = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(samples, 0)

    def step() -> int:
        with torch.autocast("cpu", torch.bfloat16):
            cross_entropy(network(batch.frames), batch.labels).backward()
        return len(batch.labels)

    def make() -> int:
        return len(data.on_after_batch_transfer(samples, 0).labels)

    measured = Rounds()
    for number in range(1 + 3 * rounds):
        for name, way in (("made", make), ("read by the training step, bf16", step)):
            speed = frames_per_second(way)
            if number:
                measured.add(name, speed)
    for name, speeds in measured.items():
        yield row(name, median_and_range(speeds, 0))
    yield row("ratio", median_and_range(measured.ratios("made", "read by the training step, bf16")))


def memory_of_training(root: Path, cache_gb: float) -> int:
    """Returns the largest memory of this process and its workers during an epoch, without what is shared twice."""
    if not root.exists():
        write_large(root)
    process = multiprocessing.get_context("spawn").Process(target=train, args=(root, cache_gb))
    process.start()
    largest = 0
    while process.is_alive():
        largest = max(largest, memory_of_tree(process.pid or 0))
        time.sleep(0.1)
    return largest


def write_large(root: Path) -> None:
    """Writes 16,600 clips of 16 frames, 10 GB, as links to 20 files."""
    frames = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE, 3)).astype(np.uint8)
    for half, count in (("train", 8300), ("test", 10)):
        for name in ("one", "other"):
            folder = root / half / name
            folder.mkdir(parents=True)
            for number in range(count):
                if number < 10:
                    np.save(folder / f"{number}.npy", np.roll(frames, number))
                else:
                    os.link(folder / f"{number % 10}.npy", folder / f"{number}.npy")


def train(root: Path, cache_gb: float) -> None:
    prepare_for_training()
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        cfg = compose("train", ["data=clips", "model=join", "model/encoder=padded", "model.encoder.blocks=[[4],[4]]"])
    data = clips_in(root, 16, cache_gb)
    network = build_network(cfg, data.spec)
    for number, batch in enumerate(data.train_dataloader()):
        frames, labels, _ = data.on_after_batch_transfer(batch, 0)
        if number % 10 == 0:  # the others are only read
            cross_entropy(network(frames), labels).backward()


def memory_of_tree(pid: int) -> int:
    """Returns the bytes of a process and its children; what n of them share counts 1/n for each."""
    total = 0
    for each in (pid, *children(pid)):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return total


def children(pid: int) -> Sequence[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    with handle_errors():
        main()

"""Measures the memory of a training on 10 GB of frames, in arrays whose files are linked to each other."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch.nn.functional import cross_entropy

from quadrant_lstm.benchmark.clip_reading import SIZE, clips_in
from quadrant_lstm.cli.command import compose_config
from quadrant_lstm.data.clips import Clips
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run.build import build_network


def memory_of_training(root: Path, cache_gb: float) -> int:
    """Returns the largest memory of a training and its workers during an epoch, without what is shared twice.

    The first call writes the clips and examines them, which is not measured.
    """
    if not root.exists():
        write_large(root)
        peak_memory(large_clips, root, 0.0)
    return peak_memory(train_with_cache, root, cache_gb)


def peak_memory(function: Callable[..., object], *arguments: object) -> int:
    """Runs the function in a new process, and returns the largest memory of this process and its children."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    largest = 0
    while process.is_alive():
        largest = max(largest, memory_of_tree(process.pid or 0))
        time.sleep(0.1)
    if process.exitcode:
        raise RuntimeError("see the traceback above")
    return largest


def write_large(root: Path) -> None:
    """Writes 16,600 training clips of 16 frames, 10 GB, as hard links to 20 files, and 20 test clips."""
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


def large_clips(root: Path, cache_gb: float) -> Clips:
    return clips_in(root, 16, "THWC", cache_gb)


def train_with_cache(root: Path, cache_gb: float) -> None:
    prepare_for_training()
    model = ("model=join", "model/encoder=padded", "model.encoder.blocks=[[4],[4]]")
    cfg = compose_config(["data=clips", f"data.root={root}", "data.layout=THWC", *model])
    data = large_clips(root, cache_gb)
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

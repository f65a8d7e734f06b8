"""Computes how long an all-reduce of the gradients takes between several machines, and its share of a training step."""

import math
from collections.abc import Iterator, Mapping

from quadrant_lstm.benchmark.peers import ours
from quadrant_lstm.benchmark.report import row
from quadrant_lstm.model.protocols import count_parameters

LATENCY = 25e-6  # seconds of a message between two machines: an assumption, usual for TCP in one data centre


def computed_table(step_seconds: Mapping[int, float]) -> Iterator[str]:
    """Returns lines of Markdown. `step_seconds` maps a batch size to the seconds of a training step."""
    size = 4 * count_parameters(ours(4))
    latency = f"{1e6 * LATENCY:.0f} µs"
    yield f"Computed: an all-reduce of {size / 1000:.0f} kB, where a message costs {latency} besides its bytes."
    yield ""
    titles = (f"ring / step of {batch} images, {1000 * step:.0f} ms" for batch, step in step_seconds.items())
    yield row("devices", "network", "ring", "tree", *titles)
    yield "|---|---|---|---|---|---|"
    for devices in (1, 8, 64, 512):
        for gigabits in (10, 100):
            ring, tree = all_reduce_seconds(size, devices, gigabits * 1e9 / 8)
            shares = (f"{100 * ring / step:.1f} %" for step in step_seconds.values())
            yield row(f"{devices}", f"{gigabits} Gbit/s", f"{1000 * ring:.2f} ms", f"{1000 * tree:.2f} ms", *shares)


def all_reduce_seconds(size: int, devices: int, speed: float) -> tuple[float, float]:
    """Returns the seconds of a ring and of a tree. `size` is in bytes, `speed` in bytes per second.

    Around a ring, each device sends one part after another to its neighbour, twice (Patarasuk and Yuan 2009). In a
    tree, everything is sent up and down, in parts that follow each other.
    """
    ring = 2 * (devices - 1) * (LATENCY + size / devices / speed)
    levels = math.ceil(math.log2(devices))
    return ring, 2 * levels * LATENCY + (2 * size / speed if levels else 0)

"""Measures TimeDistributed, ConvLSTM and SharedTiles on this machine, beside other ways to compute the same.

python -m pip install -e ".[bench]" && python -m quadrant_lstm.benchmark.layers       four minutes

A training step here is the forward and the backward pass of the layer alone. All ways take turns in every round; a
first round warms up and does not count. A cell holds the median time, the median ratio to the first column, and the
range of the middle half of the ratios. Writes layers.md.
"""

import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import nn

from quadrant_lstm.benchmark.command import new_parser, write_page
from quadrant_lstm.benchmark.conv_lstm import conv_lstm_table
from quadrant_lstm.benchmark.report import row, times
from quadrant_lstm.benchmark.tiles import shared_tiles_table
from quadrant_lstm.benchmark.ways import Way, measure
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.kinds import AtLeastTwo
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.processes.launch import prepare_for_training

CLIPS = ((1, 16, 32, 16), (4, 16, 32, 16), (16, 16, 32, 16), (4, 16, 64, 16), (32, 16, 14, 32))


def main() -> None:
    options = new_parser(__doc__, rounds=15).parse_args()
    check_value("--rounds", options.rounds, AtLeastTwo)
    prepare_for_training()
    write_page(options.out, "layers", tables(options.rounds))


def tables(rounds: int) -> Iterator[str]:
    yield from time_distributed_table(rounds)
    yield ""
    yield from memory_table()
    yield ""
    yield from conv_lstm_table(rounds)
    yield ""
    yield from shared_tiles_table(rounds)


def time_distributed_table(rounds: int) -> Iterator[str]:
    yield row("clips, steps, size, filters", "TimeDistributed", "one fold", "a loop over the steps", "half masked")
    yield "|---|---|---|---|---|"
    for sizes in CLIPS:
        measured = measure(ways_to_encode(*sizes), rounds)
        yield row(", ".join(map(str, sizes)), *times(measured, "layer", ["fold", "loop", "half masked"]))


def ways_to_encode(clips: int, steps: int, size: int, filters: int) -> dict[str, Way]:
    layer = TimeDistributed(encoder(filters))
    frames = torch.randn(clips, steps, 3, size, size)
    half = (torch.arange(clips * steps) % 2 == 0).view(clips, steps)
    return {
        "fold": lambda: layer.module(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]),
        "layer": lambda: layer(frames),
        "loop": lambda: torch.stack([layer.module(frame) for frame in frames.unbind(1)], dim=1),
        "half masked": lambda: layer(frames, mask=half),
    }


def encoder(filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, filters, 3), nn.ReLU(), nn.Conv2d(filters, filters, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    )


def memory_table() -> Iterator[str]:
    yield row("a training step on 2,000 frames of 64 x 64", "memory, MB")
    yield "|---|---|"
    for options in ({}, {"chunk": 100, "checkpoint": True}):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            arguments = "".join(f", {name}={value}" for name, value in options.items())
            used = process.submit(memory_of_a_step, options).result()
        yield row(f"`TimeDistributed(encoder{arguments})`", f"{used / 1e6:,.0f}")


def memory_of_a_step(options: dict[str, Any]) -> int:
    """Returns by how many bytes the step raises the largest memory of this process, without its frames."""
    layer = TimeDistributed(nn.Sequential(*encoder(16), nn.Linear(16 * 30 * 30, 16)), **options)
    frames = torch.randn(20, 100, 3, 64, 64)
    layer(frames[:1, :10]).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layer(frames).sum().backward()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    with handle_errors():
        main()

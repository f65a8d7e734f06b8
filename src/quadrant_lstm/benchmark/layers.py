"""Measures TimeDistributed, ConvLSTM and SharedTiles on this machine, beside other ways to compute the same.

python -m pip install -e ".[bench]" && python -m quadrant_lstm.benchmark.layers       four minutes

A training step here is the forward and the backward pass of the layer alone. All ways take turns in every round; a
first round warms up and does not count. A cell holds the median time, the median ratio to the first column, and the
range of the middle half of the ratios. Writes layers.md.
"""

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from quadrant_lstm.benchmark.command import new_parser, write_page
from quadrant_lstm.benchmark.report import Rounds, row, times
from quadrant_lstm.benchmark.worker import discard_output
from quadrant_lstm.cli.command import handle_errors
from quadrant_lstm.config.check import check_value
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.data.scans import orderings_of
from quadrant_lstm.kinds import AtLeastTwo
from quadrant_lstm.model.conv_lstm import ConvLSTM
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.shared_tiles import SharedTiles
from quadrant_lstm.model.time_distributed import TimeDistributed
from quadrant_lstm.processes.prepare import prepare_for_training

Way = Callable[[], Tensor | float]  # returns outputs that have gradients, or the seconds of a training step elsewhere
KERAS = "Keras, TensorFlow"
CLIPS = ((1, 16, 32, 16), (4, 16, 32, 16), (16, 16, 32, 16), (4, 16, 64, 16), (32, 16, 14, 32))
SCANS = ("rows", "columns", "snake", "spiral")
TILED = (((2, 2), SCANS), ((4, 4), SCANS), ((7, 7), SCANS), ((4, 4), ("rows", "reversed-rows")))
CLIPS_OF_MAPS = ((4, 16, 32, 3, 16), (8, 10, 64, 1, 16), (2, 20, 64, 1, 32))

keras_step: Callable[[], Any]  # in the process of Keras


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


def shared_tiles_table(rounds: int) -> Iterator[str]:
    """`predicted` is the ratio of the floating-point operations of a training step, which the plan of tiles decides."""
    yield row("images of 112 x 112, grid", "orderings", "every frame", "shared tiles", "predicted")
    yield "|---|---|---|---|---|"
    for grid, orderings in TILED:
        ways = ways_to_share(grid, orderings)
        operations = {name: count_operations(way) for name, way in ways.items()}
        predicted = operations["shared"] / operations["full"]
        cells = times(measure(ways, rounds), "full", ["shared"])
        yield row(f"{grid[0]} x {grid[1]}", ", ".join(orderings), *cells, f"{predicted:.2f}")


def ways_to_share(grid: tuple[int, int], orderings: Sequence[str]) -> dict[str, Way]:
    shared = SharedTiles(ConvEncoder(1, [32, 32], 3, 2), orderings_of(orderings, grid), 112 // grid[0])
    full = TimeDistributed(shared.module)
    frames = sequences(torch.randn(8, 1, 112, 112), orderings, grid)
    return {"full": lambda: full(frames), "shared": lambda: shared(frames)}


def count_operations(way: Way) -> int:
    with FlopCounterMode(display=False) as counter:
        result = way()
        if isinstance(result, Tensor):
            result.square().mean().backward()
    return counter.get_total_flops()


def conv_lstm_table(rounds: int) -> Iterator[str]:
    others = ["convolved together", KERAS, "bf16", "compiled", "bf16, compiled"]
    yield row("clips, steps, size, channels, hidden", "ConvLSTM", *others)
    yield f"|{'---|' * (2 + len(others))}"
    for sizes in CLIPS_OF_MAPS:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            ways = ways_to_convolve(*sizes)
            if find_spec("tensorflow") and find_spec("keras"):
                process.submit(build_keras_layer, *sizes).result()
                ways[KERAS] = partial(time_elsewhere, process)
            measured = measure(ways, rounds)
        yield row(", ".join(map(str, sizes)), *times(measured, "layer", others))


def ways_to_convolve(clips: int, steps: int, size: int, channels: int, hidden: int) -> dict[str, Way]:
    layer = ConvLSTM(channels, hidden, kernel_size=3)
    compiled = torch.compile(layer, dynamic=False)
    frames = torch.randn(clips, steps, channels, size, size)
    return {
        "layer": lambda: layer(frames)[0],
        "convolved together": lambda: convolved_together(layer, frames),
        "bf16": lambda: in_bf16(layer, frames),
        "compiled": lambda: compiled(frames)[0],
        "bf16, compiled": lambda: in_bf16(compiled, frames),
    }


def convolved_together(layer: ConvLSTM, frames: Tensor) -> Tensor:
    """The usual code: each step convolves its frame and the state in one call."""
    weight = torch.cat([layer.weight_ih, layer.weight_hh], dim=1)
    h = c = frames.new_zeros(frames.shape[0], layer.hidden_channels, *frames.shape[3:])
    outputs = []
    for frame in frames.unbind(1):
        i, f, g, o = conv2d(torch.cat([frame, h], dim=1), weight, layer.bias, padding="same").chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def in_bf16(layer: Any, frames: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return layer(frames)[0]


def build_keras_layer(clips: int, steps: int, size: int, channels: int, hidden: int) -> None:
    global keras_step
    discard_output()
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    import keras
    import tensorflow as tf

    layer = keras.layers.ConvLSTM2D(hidden, 3, padding="same", return_sequences=True)
    frames = tf.random.normal((clips, steps, size, size, channels))
    layer.build(frames.shape)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(frames) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    keras_step = step


def time_keras() -> float:
    start = time.perf_counter()
    for gradient in keras_step():
        gradient.numpy()
    return time.perf_counter() - start


def time_elsewhere(process: ProcessPoolExecutor) -> float:
    return process.submit(time_keras).result()


def measure(ways: dict[str, Way], rounds: int) -> Rounds:
    """Returns the milliseconds of a training step of each way in each round."""
    measured = Rounds()
    for number in range(1 + rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            result = way()
            if isinstance(result, Tensor):
                result.float().square().mean().backward()
                result = time.perf_counter() - start
            if number:
                measured.add(name, 1000 * result)
    return measured


if __name__ == "__main__":
    with handle_errors():
        main()

"""Compares TimeDistributed, ConvLSTM and SharedTiles, on the CPU, with other ways to compute the same. A training
step here is the forward and the backward pass of the layer alone.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from benchmarks.measure import Process, Ways, header, milliseconds, peak_memory, row, table
from benchmarks.question import KERAS, encoder
from quadrant_lstm.data.orderings import frames_of, orderings_of
from quadrant_lstm.model.conv_lstm import ConvLSTM
from quadrant_lstm.model.encoder import ConvEncoder
from quadrant_lstm.model.shared_tiles import SharedTiles
from quadrant_lstm.model.time_distributed import TimeDistributed

Outputs = dict[str, Callable[[], Tensor]]  # each computes the same
CLIPS = ((1, 16, 32, 16), (4, 16, 32, 16), (16, 16, 32, 16), (4, 16, 64, 16), (32, 16, 14, 32))
MAPS = ((4, 16, 32, 3, 16), (8, 10, 64, 1, 16), (2, 20, 64, 1, 32))
ORDERINGS = ("rows", "columns", "snake", "spiral")


def tables(out: Path, rounds: int = 15) -> Iterator[str]:
    encoded = ((str(sizes), steps_of(ways_to_encode(*sizes))) for sizes in CLIPS)
    yield from table("clips, steps, size, filters", encoded, rounds)
    yield from ["", header("a training step on 2,000 frames of 64 x 64", "memory")]
    for options in ({}, {"chunk": 100, "checkpoint": True}):
        arguments = "".join(f", {name}={value}" for name, value in options.items())
        yield row(
            f"`TimeDistributed(encoder{arguments})`", f"{Process().submit(memory_of_a_step, options).result():,.0f} MB"
        )
    yield ""
    convolved = ((str(sizes), steps_of(ways_to_convolve(*sizes)) | keras_step(*sizes)) for sizes in MAPS)
    yield from table("clips, steps, size, channels, hidden", convolved, rounds)
    yield ""
    shared = ((f"{size} x {size}", steps_of(ways_to_share(size))) for size in (2, 4, 7))
    yield from table(f"grid of images of 112 x 112, {', '.join(ORDERINGS)}", shared, rounds)


def steps_of(ways: Outputs) -> Ways:
    """Returns functions that make a training step and return its milliseconds."""

    def step(way: Callable[[], Tensor]) -> None:
        way().float().square().mean().backward()

    return {name: partial(milliseconds, step, way) for name, way in ways.items()}


def ways_to_encode(clips: int, steps: int, size: int, filters: int) -> Outputs:
    layer = TimeDistributed(encoder(3, filters))
    frames = torch.randn(clips, steps, 3, size, size)
    half = (torch.arange(clips * steps) % 2 == 0).view(clips, steps)
    return {
        "TimeDistributed": lambda: layer(frames),
        "one fold": lambda: layer.module(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]),
        "a loop over the steps": lambda: torch.stack([layer.module(frame) for frame in frames.unbind(1)], dim=1),
        "half masked": lambda: layer(frames, mask=half),
    }


def memory_of_a_step(options: dict[str, Any]) -> float:
    """Returns by how many megabytes the step raises the largest memory of this process, without its frames."""
    layer = TimeDistributed(nn.Sequential(*encoder(3, 16), nn.Linear(16 * 30 * 30, 16)), **options)
    frames = torch.randn(20, 100, 3, 64, 64)
    layer(frames[:1, :10]).sum().backward()
    before = peak_memory()
    layer(frames).sum().backward()
    return peak_memory() - before


def ways_to_convolve(clips: int, steps: int, size: int, channels: int, hidden: int) -> Outputs:
    layer = ConvLSTM(channels, hidden, kernel_size=3)
    compiled = torch.compile(layer, dynamic=False)
    frames = torch.randn(clips, steps, channels, size, size)
    in_bf16 = torch.autocast("cpu", torch.bfloat16)
    return {
        "ConvLSTM": lambda: layer(frames)[0],
        "convolved together": lambda: convolved_together(layer, frames),
        "bf16": in_bf16(lambda: layer(frames)[0]),
        "compiled": lambda: compiled(frames)[0],
        "bf16, compiled": in_bf16(lambda: compiled(frames)[0]),
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


def keras_step(*sizes: int) -> Ways:
    is_installed = find_spec("tensorflow") and find_spec("keras")
    return {KERAS.name: partial(Process(keras_conv_lstm, *sizes).step, "train", sizes[0], 1)} if is_installed else {}


def keras_conv_lstm(clips: int, steps: int, size: int, channels: int, hidden: int) -> SimpleNamespace:
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras
    import tensorflow as tf

    layer = keras.layers.ConvLSTM2D(hidden, 3, padding="same", return_sequences=True)
    frames = tf.random.normal((clips, steps, size, size, channels))
    layer.build(frames.shape)

    @tf.function
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(frames) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    return SimpleNamespace(train=lambda batch, steps: [gradient.numpy() for gradient in gradients()])


def ways_to_share(size: int) -> Outputs:
    orderings = orderings_of(ORDERINGS, (size, size))
    shared = SharedTiles(ConvEncoder(1, [32, 32], 3, 2), orderings, 112 // size)
    full = TimeDistributed(shared.module)
    frames = frames_of(torch.randn(8, 1, 112, 112), orderings, (size, size))
    return {"every frame": lambda: full(frames), "shared tiles": lambda: shared(frames)}

"""Measures ConvLSTM beside Keras's, beside the usual code, and in bf16 and compiled."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from quadrant_lstm.benchmark.report import KERAS, row, times
from quadrant_lstm.benchmark.ways import Way, measure
from quadrant_lstm.benchmark.worker import discard_output
from quadrant_lstm.model.conv_lstm import ConvLSTM

CLIPS_OF_MAPS = ((4, 16, 32, 3, 16), (8, 10, 64, 1, 16), (2, 20, 64, 1, 32))

keras_step: Callable[[], Any]  # in the process of Keras


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

"""Who is measured: each is built from nothing but its name, in a process of its own (worker.py).

A peer trains and infers on MNIST's training images, `steps` batches of `batch` images from the first on, and returns
the seconds that took. What it does before its first step does not count: the benchmark warms each up.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from quadrant_lstm.data.orderings import ORDERINGS, sequences
from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.data.sources import load_images

ALL_ORDERINGS = tuple(itertools.permutations((1, 2, 3, 4)))


class Plain(nn.Module):
    """PyTorch as one would write it: the steps folded into the batch, every frame encoded in full."""

    def __init__(self, num_orderings: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )
        self.dropout = nn.Dropout(0.25)
        self.lstm = nn.LSTM(32 * ((14 * num_orderings - 4) // 2) * 5, 5, batch_first=True)
        self.dense = nn.Linear(5, 50)
        self.head = nn.Linear(50, 10)

    def forward(self, frames: Tensor) -> Tensor:
        features = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.head(self.dense(self.lstm(self.dropout(features))[0][:, -1]))


def ours(num_orderings: int) -> nn.Module:
    from quadrant_lstm.model.network import CNNLSTM
    from quadrant_lstm.processes.prepare import set_up_cpu

    set_up_cpu()  # as load_run does
    return CNNLSTM((1, 14 * num_orderings, 14), 10, ALL_ORDERINGS[:num_orderings] if num_orderings != 4 else ORDERINGS,
                   [32, 32], 3, 2, 0.25, "lstm", 5, 50, shared_tiles=True)  # fmt: skip


def compiled(num_orderings: int) -> nn.Module:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 64  # quadrants and seams, batches of 64 and 512, with gradients and without
    network: Any = ours(num_orderings)
    network.encoder.module.compile(dynamic=False)
    return network


def bare_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    frames: Tensor,
    labels: Tensor,
    autocast: contextlib.AbstractContextManager[object],
) -> None:
    """A training step without Lightning."""
    optimizer.zero_grad()
    with autocast:
        loss = cross_entropy(network(frames), labels)
    loss.backward()
    optimizer.step()


class Torch:
    def __init__(self, network: Callable[[int], nn.Module], bf16: bool, num_orderings: int = 4):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.orderings = ORDERINGS if num_orderings == 4 else ALL_ORDERINGS[:num_orderings]
        self.network = network(num_orderings).to(self.device)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=network is not Plain)
        data = load_images("mnist", None)
        self.images = torch.from_numpy(data.train_images).to(self.device)
        self.labels = torch.from_numpy(data.train_labels).to(self.device)

    def batches(self, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.randperm(len(self.images), device=self.device)[: batch * steps].split(batch):
            yield scaled(sequences(self.images[indices], self.orderings)), self.labels[indices]

    def train(self, batch: int, steps: int) -> float:
        self.network.train()
        start = time.perf_counter()
        for frames, labels in self.batches(batch, steps):
            bare_step(self.network, self.optimizer, frames, labels, self.autocast)
        return self.wait() - start

    def infer(self, batch: int, steps: int) -> float:
        self.network.eval()
        start = time.perf_counter()
        with torch.inference_mode(), self.autocast:
            for frames, _ in self.batches(batch, steps):
                self.network(frames).softmax(1)
        return self.wait() - start

    def wait(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Compiled(Torch):
    def __init__(self, bf16: bool):
        super().__init__(compiled, bf16)
        self.train(64, 1)  # where nothing can be compiled, it fails now


class Keras:
    """Trains and predicts on the stacked frames of all images, [60000, 4, 56, 14, 1], as the question had them."""

    def __init__(self, backend: str):
        import os

        os.environ["KERAS_BACKEND"] = backend
        from quadrant_lstm.benchmark.keras_network import keras_network

        data = load_images("mnist", None)
        self.frames = scaled(sequences(torch.from_numpy(data.train_images)).permute(0, 1, 3, 4, 2)).numpy()
        self.labels = data.train_labels
        self.model = keras_network(activation="softmax")
        self.model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    def train(self, batch: int, steps: int) -> float:
        """By train_on_batch, which on two cores takes three quarters of the time of fit."""
        start = time.perf_counter()
        for first in range(0, batch * steps, batch):
            self.model.train_on_batch(self.frames[first : first + batch], self.labels[first : first + batch])
        return time.perf_counter() - start

    def fit(self, batch: int, steps: int) -> float:
        start = time.perf_counter()
        self.model.fit(self.frames[: batch * steps], self.labels[: batch * steps], batch_size=batch, verbose=0)
        return time.perf_counter() - start

    def infer(self, batch: int, steps: int) -> float:
        start = time.perf_counter()
        self.model.predict(self.frames[: batch * steps], batch_size=batch, verbose=0)
        return time.perf_counter() - start


class MatrixProducts:
    """The machine's own rate: products of two square matrices of 4096 rows. Also as 1x1 convs of 64 x 64 pixels, the
    same product by another library: torch.mm, in fp32 by MKL, has half its rate on some AMD processors.
    """

    def __init__(self, dtype: torch.dtype, as_conv: bool):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        shapes = ((1, 4096, 64, 64), (4096, 4096, 1, 1)) if as_conv else ((4096, 4096), (4096, 4096))
        layout = torch.channels_last if as_conv else torch.contiguous_format
        self.one, self.other = (torch.randn(shape, device=device).to(dtype, memory_format=layout) for shape in shapes)
        self.product = torch.conv2d if as_conv else torch.mm

    def train(self, batch: int, steps: int) -> float:
        """Seconds of the fastest of `steps` products."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self.product(self.one, self.other)[0, 0].flatten()[0].item()
            times.append(time.perf_counter() - start)
        return min(times)


PEERS: dict[str, Callable[[], Any]] = {
    "Keras, TensorFlow": lambda: Keras("tensorflow"),
    "Keras, PyTorch": lambda: Keras("torch"),
    "plain PyTorch, fp32": lambda: Torch(Plain, bf16=False),
    "plain PyTorch, bf16": lambda: Torch(Plain, bf16=True),
    "ours, fp32": lambda: Torch(ours, bf16=False),
    "ours, bf16": lambda: Torch(ours, bf16=True),
    "ours, fp32, compiled": lambda: Compiled(bf16=False),
    "ours, bf16, compiled": lambda: Compiled(bf16=True),
    "ours, fp32, 8 orderings": lambda: Torch(ours, bf16=False, num_orderings=8),
    "ours, fp32, 24 orderings": lambda: Torch(ours, bf16=False, num_orderings=24),
    "ours, bf16, 8 orderings": lambda: Torch(ours, bf16=True, num_orderings=8),
    "ours, bf16, 24 orderings": lambda: Torch(ours, bf16=True, num_orderings=24),
    "matrix products, fp32": lambda: MatrixProducts(torch.float32, as_conv=False),
    "matrix products, bf16": lambda: MatrixProducts(torch.bfloat16, as_conv=False),
    "matrix products as convs, fp32": lambda: MatrixProducts(torch.float32, as_conv=True),
    "matrix products as convs, bf16": lambda: MatrixProducts(torch.bfloat16, as_conv=True),
}

"""Defines the peers that the benchmark compares, by name; each is built in a process of its own (worker.py).

The methods of a peer train or infer on `steps` batches of `batch` training images of MNIST, and return the seconds
that this took. The first step may take longer: the benchmark warms up each peer.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from quadrant_lstm.benchmark.keras_peer import KerasPeer
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import ORDERINGS, scaled, sequences
from quadrant_lstm.kinds import Orderings
from quadrant_lstm.model.network import CNNLSTM
from quadrant_lstm.model.rnn import LSTM
from quadrant_lstm.processes.launch import configure_cpu


def some_orderings(number: int) -> Orderings:
    """Returns the four of the question, or another number of orderings."""
    return ORDERINGS if number == 4 else list(itertools.permutations((1, 2, 3, 4)))[:number]


class Plain(nn.Module):
    """The usual PyTorch code: it folds the steps into the batch and encodes each frame in full."""

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
    configure_cpu()  # as load_run does
    sizes: dict[str, Any] = {"filters": [32, 32], "kernel_size": 3, "pool_size": 2, "lstm_units": 5, "dense_units": 50}
    sizes |= {"dropout": 0.25, "recurrent": LSTM, "shared_tiles": True}
    return CNNLSTM((1, 14 * num_orderings, 14), 10, 4, some_orderings(num_orderings), **sizes)


def compiled(num_orderings: int) -> nn.Module:
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 64  # quadrants and seams, two batch sizes, with gradients and without
    network: Any = ours(num_orderings)
    network.encoder.module.compile(dynamic=False)
    return network


class TorchPeer:
    def __init__(self, network: Callable[[int], nn.Module], bf16: bool, num_orderings: int = 4):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.orderings = some_orderings(num_orderings)
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
            self.optimizer.zero_grad()
            with self.autocast:
                loss = cross_entropy(self.network(frames), labels)
            loss.backward()
            self.optimizer.step()
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


PEERS: dict[str, Callable[[], Any]] = {
    "Keras, TensorFlow": lambda: KerasPeer("tensorflow"),
    "Keras, PyTorch": lambda: KerasPeer("torch"),
    "plain PyTorch, fp32": lambda: TorchPeer(Plain, bf16=False),
    "plain PyTorch, bf16": lambda: TorchPeer(Plain, bf16=True),
    "this project, fp32": lambda: TorchPeer(ours, bf16=False),
    "this project, bf16": lambda: TorchPeer(ours, bf16=True),
    "this project, fp32, compiled": lambda: TorchPeer(compiled, bf16=False),
    "this project, bf16, compiled": lambda: TorchPeer(compiled, bf16=True),
    "this project, fp32, 8 orderings": lambda: TorchPeer(ours, bf16=False, num_orderings=8),
    "this project, fp32, 24 orderings": lambda: TorchPeer(ours, bf16=False, num_orderings=24),
    "this project, bf16, 8 orderings": lambda: TorchPeer(ours, bf16=True, num_orderings=8),
    "this project, bf16, 24 orderings": lambda: TorchPeer(ours, bf16=True, num_orderings=24),
}

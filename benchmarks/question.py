"""Compares the network of the question in this project, in plain PyTorch and in Keras: steps, inference, whole epochs.
Each peer runs in a process of its own, and only one computes at a time. Once built, its methods work on `steps` batches
of `batch` training images of MNIST. Writes question.png, too.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.measure import Measured, Process, Ways, cells, header, peak_memory, row, table, take_turns
from quadrant_lstm.cli.command import compose_config
from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import ORDERINGS, SequenceSpec, numbered_names, scaled, sequences
from quadrant_lstm.errors import UserError, with_type
from quadrant_lstm.plotting import ORDERING_COLOURS, new_figure
from quadrant_lstm.processes.launch import configure_cpu
from quadrant_lstm.run.build import bf16_instructions, build_network
from quadrant_lstm.run_folder import read_results


class Peer(NamedTuple):
    library: str
    bf16: bool = False
    compiled: bool = False
    num_orderings: int = 4

    @property
    def name(self) -> str:
        others = ["compiled"] * self.compiled + [f"{self.num_orderings} orderings"] * (self.num_orderings != 4)
        return ", ".join([self.library, "bf16" if self.bf16 else "fp32", *others])

    def build(self) -> Any:
        if self.bf16 and not (torch.cuda.is_available() or bf16_instructions()):
            raise UserError("torch finds no instructions for it, and would take several times as long as in fp32")
        return KerasPeer(BACKENDS[self.library]) if self.library in BACKENDS else TorchPeer(self)


BACKENDS = {"Keras, TensorFlow": "tensorflow", "Keras, PyTorch": "torch"}
KERAS, PLAIN, PLAIN_BF16 = Peer("Keras, TensorFlow"), Peer("plain PyTorch"), Peer("plain PyTorch", bf16=True)
OURS, OURS_BF16 = Peer("this project"), Peer("this project", bf16=True)
COMPILED = [peer._replace(compiled=True) for peer in (OURS, OURS_BF16)]
PEERS = [*map(Peer, BACKENDS), PLAIN, PLAIN_BF16, OURS, OURS_BF16, *COMPILED]
MORE_ORDERINGS = [OURS._replace(num_orderings=number) for number in (8, 24)]
FP32, BF16 = "trainer.precision=32-true", "trainer.precision=bf16-mixed"


class Plain(nn.Module):
    """The usual PyTorch code: it folds the steps into the batch and encodes each frame in full."""

    def __init__(self, num_orderings: int):
        super().__init__()
        self.encoder = encoder(1, 32)
        self.dropout = nn.Dropout(0.25)
        self.lstm = nn.LSTM(32 * ((14 * num_orderings - 4) // 2) * 5, 5, batch_first=True)
        self.head = nn.Sequential(nn.Linear(5, 50), nn.Linear(50, 10))

    def forward(self, frames: Tensor) -> Tensor:
        features = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.head(self.lstm(self.dropout(features))[0][:, -1])


def encoder(channels: int, filters: int) -> nn.Sequential:
    convs = (nn.Conv2d(channels, filters, 3), nn.ReLU(), nn.Conv2d(filters, filters, 3), nn.ReLU())
    return nn.Sequential(*convs, nn.MaxPool2d(2), nn.Flatten())


def our_network(num_orderings: int = 4) -> Any:
    configure_cpu()  # as load_run does
    spec = SequenceSpec((1, 14 * num_orderings, 14), 4, numbered_names(10))
    return build_network(compose_config([f"data.orderings={orderings_for(num_orderings)}"]), spec)


def orderings_for(number: int) -> list[list[int]]:
    """Returns the four of the question, or another number of orderings."""
    return [[*ordering] for ordering in (ORDERINGS if number == 4 else itertools.permutations((1, 2, 3, 4)))][:number]


class TorchPeer:
    def __init__(self, peer: Peer):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.orderings = orderings_for(peer.num_orderings)
        network: Any = Plain if peer.library == PLAIN.library else our_network
        self.network = network(peer.num_orderings).to(self.device)
        if peer.compiled:
            torch._dynamo.config.recompile_limit = 64  # quadrants, seams, two batch sizes, with and without gradients
            self.network.encoder.module.compile(dynamic=False)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=peer.bf16)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=network is not Plain)
        data = load_images("mnist", None)
        self.images = torch.from_numpy(data.train_images).to(self.device)
        self.labels = torch.from_numpy(data.train_labels).to(self.device)

    def batches(self, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.randperm(len(self.images), device=self.device)[: batch * steps].split(batch):
            yield scaled(sequences(self.images[indices], self.orderings)), self.labels[indices]
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def train(self, batch: int, steps: int) -> None:
        self.network.train()
        for frames, labels in self.batches(batch, steps):
            self.optimizer.zero_grad()
            with self.autocast:
                loss = cross_entropy(self.network(frames), labels)
            loss.backward()
            self.optimizer.step()

    def infer(self, batch: int, steps: int) -> None:
        self.network.eval()
        with torch.inference_mode(), self.autocast:
            for frames, _ in self.batches(batch, steps):
                self.network(frames).softmax(1)


class KerasPeer:
    """Works on the stacked frames of all images, [60000, 4, 56, 14, 1], as in the question."""

    def __init__(self, backend: str):
        os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        from quadrant_lstm.run.keras_model import KerasSizes, build_keras_model, keras

        if torch.cuda.is_available() and "gpu" not in str(keras.distribution.list_devices()):
            raise UserError("it finds no GPU; install tensorflow[and-cuda]")
        data, spec = load_images("mnist", None), SequenceSpec((1, 56, 14), 4, numbered_names(10))
        self.frames = scaled(sequences(torch.from_numpy(data.train_images)).permute(0, 1, 3, 4, 2)).numpy()
        self.labels = data.train_labels
        self.model = build_keras_model(KerasSizes(), spec, activation="softmax")
        self.model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    def train(self, batch: int, steps: int) -> None:
        for first in range(0, batch * steps, batch):
            self.model.train_on_batch(self.frames[first : first + batch], self.labels[first : first + batch])

    def fit(self, batch: int, steps: int) -> None:
        self.model.fit(self.frames[: batch * steps], self.labels[: batch * steps], batch_size=batch, verbose=0)

    def infer(self, batch: int, steps: int) -> None:
        self.model.predict(self.frames[: batch * steps], batch_size=batch, verbose=0)


# Steps, inference and whole epochs


def tables(out: Path, rounds: int = 5, steps: int = 30, epochs: int = 5) -> Iterator[str]:
    processes, notes = start([*PEERS, *MORE_ORDERINGS])
    yield from steps_tables(out, processes, rounds, steps)
    if epochs:
        yield ""
        yield from table("", [("an epoch of 60,000 images", ways_to_train(processes))], epochs, "s", warm_up=False)
    yield from (f"\nNot measured: {note}." for note in notes)


def start(peers: Sequence[Peer]) -> tuple[dict[Peer, Process], list[str]]:
    """Returns the processes of the peers that can train, and the reasons why others cannot."""
    processes, notes = {}, []
    for peer in peers:
        try:
            process = Process(peer.build)
            process.step("train", 64, 10)
            processes[peer] = process
        except Exception as error:  # without Keras or a compiler, of many types
            notes.append(f"{peer.name}: {with_type(error)}".partition("\n")[0])
    return processes, notes


def steps_tables(out: Path, processes: Mapping[Peer, Process], rounds: int, steps: int) -> Iterator[str]:
    peers = [peer for peer in PEERS if peer in processes]
    memory = [f"{processes[peer].submit(peak_memory).result():,.0f} MB" for peer in peers]
    training, inference = (
        take_turns({peer.name: partial(processes[peer].step, method, batch, number) for peer in peers}, rounds)
        for method, batch, number in (("train", 64, steps), ("infer", 512, max(2, steps // 8)))
    )
    picture(peers, training, inference).savefig(out / "question.png")
    yield header("", *training)
    yield row("training step, batch 64", *cells(training, "ms"))
    yield row("inference, batch 512", *cells(inference, "ms"))
    yield row("peak main memory, training, batch 64", *memory)
    yield ""
    ways: Ways = {peer.name: partial(processes[peer].step, "train", 64, steps) for peer in (OURS, *MORE_ORDERINGS)}
    yield from table("", [("training step, batch 64", ways)], rounds)


def ways_to_train(processes: Mapping[Peer, Process]) -> Ways:
    loops = {f"{peer.name}, a loop": (peer, "train") for peer in (PLAIN, OURS, OURS_BF16)}
    methods = {f"{KERAS.name}, fit": (KERAS, "fit"), f"{KERAS.name}, train_on_batch": (KERAS, "train"), **loops}
    found = {name: (processes[peer], method) for name, (peer, method) in methods.items() if peer in processes}
    ways: Ways = {name: partial(seconds_of_loop, process, method) for name, (process, method) in found.items()}
    for overrides in ([FP32], [BF16], [BF16, "data.batch_size=512"]):
        if overrides == [FP32] or OURS_BF16 in processes:
            ways[f"python train.py {' '.join(overrides)}"] = partial(seconds_of_train_py, *overrides)
    return ways


def seconds_of_loop(process: Process, method: str) -> float:
    return process.step(method, 64, 938) / 1000 * 60_000 / 64


def seconds_of_train_py(*overrides: str) -> float:
    return 60_000 / train_py("train.py", *overrides)[0]


def train_py(*words: str) -> tuple[float, float]:
    """Trains for two epochs. Returns the images per second of the last one, and the seconds until a step is logged."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *words, "trainer.max_epochs=2", f"hydra.run.dir={folder}/run"]
        start = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        speed = read_results(Path(folder, "run"))["samples_per_second"]
        first, *_ = EventAccumulator(f"{folder}/run").Reload().Scalars("train/batch_loss")
        return speed, first.wall_time - start


def picture(peers: Sequence[Peer], training: Measured, inference: Measured) -> Figure:
    colours = [ORDERING_COLOURS[0] if peer.library == OURS.library else "#bbbbbb" for peer in peers]
    figure = new_figure(9.0, 3.6)
    panels: Any = figure.subplots(1, 2, sharey=True)
    titles = {"a training step, 64 images (ms)": training, "inference, 512 images (ms)": inference}
    for axes, (title, measured) in zip(panels, titles.items(), strict=True):
        medians = [statistics.median(values) for values in measured.values()]
        bars = axes.barh(list(measured), medians, color=colours)
        axes.hlines(list(measured), *zip(*((min(v), max(v)) for v in measured.values()), strict=True), color="black")
        axes.bar_label(bars, [f" {median:.0f}" for median in medians], padding=6)
        axes.set(title=title, xlim=(0, 1.2 * max(map(max, measured.values()))))
    panels[0].invert_yaxis()  # the first peer at the top
    return figure


COMMANDS = {
    "python train.py": "train.py trainer.devices={}",
    "torchrun": "-m torch.distributed.run --nproc-per-node={} train.py",
}
OVERRIDES = (
    "trainer.accelerator=cpu trainer.precision=32-true trainer.log_every_n_steps=1 trainer.limit_train_batches=300 "
    "trainer.limit_val_batches=5 trainer.limit_test_batches=5 ~trainer.callbacks.dashboard"
)


def processes_tables(out: Path, rounds: int = 5) -> Iterator[str]:
    """The network of the question in fp32, on CPUs, with 64 images in a training step of all processes."""
    ways: dict[str, Any] = {}
    for devices, processes in ((1, "one process"), (2, "two processes")):
        for name, command in COMMANDS.items():
            words = f"{command} {OVERRIDES} data.batch_size={64 // devices}".format(devices)
            ways[f"`{name}`, {processes}"] = partial(train_py, *words.split())
    measured = take_turns(ways, rounds)
    yield header("", *measured)
    for place, (title, unit) in enumerate({"images": "per s", "from the command to the first step": "s"}.items()):
        yield row(title, *cells({name: [run[place] for run in runs] for name, runs in measured.items()}, unit))

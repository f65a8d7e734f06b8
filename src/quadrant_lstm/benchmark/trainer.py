"""What the trainer that train.py builds costs above loops without Lightning and Hydra, and whether its memory grows.

All in one process, in turns of 20 steps: same network, optimizer, batches. One loop is bare; one also keeps each step's
losses and answers for the metrics and checks that loss and gradients are finite, as train.py does. A process of its
own: python -m quadrant_lstm.benchmark.trainer PRECISION, which prints JSON.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import cross_entropy

from quadrant_lstm.callbacks.finite import Finite
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.processes.prepare import make_ready
from quadrant_lstm.run.build import build_classifier, build_data, build_trainer
from quadrant_lstm.run.quiet import quiet_lightning

BLOCK, BLOCKS = 20, 40
GROWTH_EPOCHS, GROWTH_STEPS = 10, 100


def config(folder: str, *overrides: str) -> DictConfig:
    always = ("trainer.limit_val_batches=2", f"trainer.logger.tensorboard.save_dir={folder}")
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        return compose("train", [*always, *overrides])


class BareLoop:
    def __init__(self, cfg: DictConfig):
        self.data = build_data(cfg)
        self.classifier = build_classifier(cfg, self.data.frame_shape, self.data.num_classes)
        self.optimizer = self.classifier.optimizer(self.classifier.parameters())
        self.bf16 = cfg.trainer.precision == "bf16-mixed"
        self.size = cfg.data.batch_size

    def steps(self, number: int) -> float:
        """Seconds a step."""
        images, labels = self.data.train.tensors
        indices = self.data.train_indices[torch.randperm(len(self.data.train_indices))][: number * self.size]
        start = time.perf_counter()
        for batch in indices.split(self.size):
            frames = sequences(images[batch], self.data.orderings).float() / 255
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.loss(frames, labels[batch])
            loss.backward()
            self.check()
            self.optimizer.step()
        return (time.perf_counter() - start) / number

    def loss(self, frames: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.classifier.network(frames), labels)

    def check(self) -> None:
        """Nothing."""


class CheckedLoop(BareLoop):
    def __init__(self, cfg: DictConfig):
        super().__init__(cfg)
        self.finite = Finite()

    def loss(self, frames: Tensor, labels: Tensor) -> Tensor:
        return self.classifier.measure("train", (frames, labels))

    def check(self) -> None:
        self.finite.note(self.classifier, self.optimizer)
        self.finite.check_steps(self.classifier)
        self.finite.unchecked.clear()


class InTurns(pl.Callback):
    def __init__(self, **loops: BareLoop):
        self.loops = loops
        self.times: dict[str, list[float]] = {name: [] for name in ("trainer", *loops)}

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % BLOCK == 0:
            self.times["trainer"].append((time.perf_counter() - self.start) / BLOCK)
            for name, loop in self.loops.items():
                self.times[name].append(loop.steps(BLOCK))
            self.start = time.perf_counter()


class Resident(pl.Callback):
    """Bytes that the process holds at the end of each epoch."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def on_train_epoch_end(self, *_: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.bytes.append(pages * resource.getpagesize())


def fit(cfg: DictConfig, folder: str, callback: pl.Callback) -> None:
    data = build_data(cfg)
    trainer: Any = build_trainer(cfg, Path(folder))
    trainer.callbacks.append(callback)
    classifier = build_classifier(cfg, data.frame_shape, data.num_classes)
    make_ready()
    trainer.fit(classifier, datamodule=data)


def main(precision: str) -> None:
    quiet_lightning()
    always = f"trainer.precision={precision}"
    with tempfile.TemporaryDirectory() as folder:
        cfg = config(folder, always, "trainer.max_epochs=1", f"trainer.limit_train_batches={BLOCK * (BLOCKS + 1)}")
        turns = InTurns(bare=BareLoop(cfg), checked=CheckedLoop(cfg))
        fit(cfg, folder, turns)
    with tempfile.TemporaryDirectory() as folder:
        epochs = f"trainer.max_epochs={GROWTH_EPOCHS}"
        cfg = config(folder, always, epochs, f"trainer.limit_train_batches={GROWTH_STEPS}")
        resident = Resident()
        fit(cfg, folder, resident)
    times = {name: values[1:] for name, values in turns.times.items()}  # the first turn warms up
    print(json.dumps(times | {"resident": resident.bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])

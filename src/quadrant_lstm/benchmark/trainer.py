"""Measures how much slower train.py's trainer is than a bare loop, and whether its memory grows over the epochs.

Both take turns of 20 steps in one process. `python -m quadrant_lstm.benchmark.trainer PRECISION` prints JSON.
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

from quadrant_lstm.benchmark.peers import bare_step
from quadrant_lstm.data.orderings import sequences
from quadrant_lstm.data.pixels import scaled
from quadrant_lstm.processes.prepare import prepare_for_training
from quadrant_lstm.run.build import build_classifier, build_data, build_trainer
from quadrant_lstm.run.quiet import quiet_lightning

STEPS_PER_TURN, TURNS = 20, 40
GROWTH_EPOCHS, GROWTH_STEPS = 10, 100


def config(folder: str, *overrides: str) -> DictConfig:
    common = ("trainer.limit_val_batches=2", f"trainer.logger.tensorboard.save_dir={folder}")
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        return compose("train", [*common, *overrides])


class BareLoop:
    """Trains the same network with the same optimizer and batch size, without Lightning and Hydra."""

    def __init__(self, cfg: DictConfig):
        self.data = build_data(cfg)
        self.classifier = build_classifier(cfg, self.data.frame_shape, self.data.num_classes)
        self.optimizer = self.classifier.optimizer(self.classifier.parameters())
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=cfg.trainer.precision == "bf16-mixed")
        self.batch_size = cfg.data.batch_size

    def train(self, steps: int) -> float:
        """Returns the seconds per step."""
        images, labels = self.data.train.tensors
        indices = self.data.train_indices[torch.randperm(len(self.data.train_indices))][: steps * self.batch_size]
        start = time.perf_counter()
        for batch in indices.split(self.batch_size):
            frames = scaled(sequences(images[batch], self.data.orderings))
            bare_step(self.classifier.network, self.optimizer, frames, labels[batch], self.autocast)
        return (time.perf_counter() - start) / steps


class AlternateTiming(pl.Callback):
    """Times the trainer and the bare loop alternately, STEPS_PER_TURN steps each."""

    def __init__(self, loop: BareLoop):
        self.loop = loop
        self.times: dict[str, list[float]] = {"trainer": [], "bare": []}

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % STEPS_PER_TURN == 0:
            self.times["trainer"].append((time.perf_counter() - self.start) / STEPS_PER_TURN)
            self.times["bare"].append(self.loop.train(STEPS_PER_TURN))
            self.start = time.perf_counter()


class ResidentMemory(pl.Callback):
    """Records the resident memory of the process in bytes at the end of each epoch."""

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
    prepare_for_training()
    trainer.fit(classifier, datamodule=data)


def main(precision: str) -> None:
    quiet_lightning()
    override = f"trainer.precision={precision}"
    with tempfile.TemporaryDirectory() as folder:
        steps = STEPS_PER_TURN * (TURNS + 1)
        cfg = config(folder, override, "trainer.max_epochs=1", f"trainer.limit_train_batches={steps}")
        timing = AlternateTiming(BareLoop(cfg))
        fit(cfg, folder, timing)
    with tempfile.TemporaryDirectory() as folder:
        epochs = f"trainer.max_epochs={GROWTH_EPOCHS}"
        cfg = config(folder, override, epochs, f"trainer.limit_train_batches={GROWTH_STEPS}")
        memory = ResidentMemory()
        fit(cfg, folder, memory)
    times = {name: values[1:] for name, values in timing.times.items()}  # the first turn warms up
    print(json.dumps(times | {"resident": memory.bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measures how much slower a step of train.py's trainer is than one of a bare loop with the same network.

Both take turns of 20 steps in one process.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from quadrant_lstm.benchmark.peers import TorchPeer, ours
from quadrant_lstm.cli.command import compose_config
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run.build import build_classifier, build_data, build_trainer, quiet_lightning

STEPS_PER_TURN, TURNS = 20, 40


class AlternateTiming(pl.Callback):
    """Times the trainer and the bare loop alternately, and records the seconds per step of each turn."""

    def __init__(self, bare: TorchPeer, batch_size: int):
        self.bare, self.batch_size = bare, batch_size
        self.seconds: dict[str, list[float]] = {"trainer": [], "bare": []}

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % STEPS_PER_TURN == 0:
            self.seconds["trainer"].append((self.bare.wait() - self.start) / STEPS_PER_TURN)
            self.seconds["bare"].append(self.bare.train(self.batch_size, STEPS_PER_TURN) / STEPS_PER_TURN)
            self.start = time.perf_counter()


def measure(precision: str) -> dict[str, list[float]]:
    """Returns the seconds per step of the trainer and of the bare loop, in each turn."""
    quiet_lightning()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"trainer.precision={precision}", f"trainer.logger.tensorboard.save_dir={folder}"]
        limits = [f"trainer.limit_train_batches={STEPS_PER_TURN * (TURNS + 1)}", "trainer.limit_val_batches=2"]
        cfg = compose_config([*overrides, *limits, "trainer.max_epochs=1"])
        timing = AlternateTiming(TorchPeer(ours, bf16=precision == "bf16-mixed"), cfg.data.batch_size)
        data, trainer = build_data(cfg), build_trainer(cfg, Path(folder))
        trainer.callbacks.append(timing)  # type: ignore[attr-defined]
        prepare_for_training()
        trainer.fit(build_classifier(cfg, data.spec), datamodule=data)
    return {name: values[1:] for name, values in timing.seconds.items()}  # the first turn warms up

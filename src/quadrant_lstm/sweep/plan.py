"""Checks the jobs of a sweep without starting them, and returns a table of their parameters, steps and times."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import cross_entropy

from quadrant_lstm.config.check import check, without_hydra
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.shapes import stages
from quadrant_lstm.pages import duration
from quadrant_lstm.processes.prepare import prepare_for_training
from quadrant_lstm.run.build import build_data, build_network, instantiate_node
from quadrant_lstm.run.memory import check_memory
from quadrant_lstm.run.precision import resolve_precision
from quadrant_lstm.run.quiet import quiet_lightning
from quadrant_lstm.sweep.jobs import Job, readable
from quadrant_lstm.sweep.table import FINISHED

WARM_UP_STEPS, TIMED_STEPS = 2, 5


def describe_plan(jobs: Sequence[Job], compose: Callable[[Job], DictConfig]) -> tuple[str, list[Job]]:
    """Returns the table, and the jobs whose config is invalid."""
    keys = list(jobs[0].swept)
    quiet_lightning()
    logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)  # each job will log its own messages
    prepare_for_training()
    rows = [["job", *keys, "parameters", "steps per epoch", "epochs", "time"]]
    measured: dict[str, tuple[float, float]] = {}
    total, invalid = 0.0, []
    for job in jobs:
        row = [str(job.number), *map(readable, job.swept.values())]
        try:
            parameters, steps, epochs, seconds = estimate(compose(job), measured)
        except UserError as error:
            invalid.append(job)
            rows.append([*row, f"invalid: {error}"])
            continue
        finished = job.results() is not None
        total += 0 if finished else seconds
        time_or_state = FINISHED if finished else duration(seconds)
        rows.append([*row, f"{parameters:,}", f"{steps:,}", str(epochs), time_or_state])
    last = f"{len(jobs)} jobs, about {duration(total)} one after another; nothing was started"
    return "\n".join([*align_columns(rows), last]), invalid


def estimate(cfg: DictConfig, measured: dict[str, tuple[float, float]]) -> tuple[int, int, int, float]:
    """Returns a job's parameters, training steps per epoch, epochs, and seconds in all.

    `measured` caches the seconds per step, for jobs that differ only in values that do not change them.
    """
    cfg = without_hydra(cfg)
    check(cfg)
    data = build_data(cfg)
    shapes = stages(build_network(cfg, data.frame_shape, data.num_classes), data.frame_shape)
    key = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, ["data", "model", "optimizer"])) + str(cfg.trainer.precision)
    if key not in measured:
        measured[key] = measure_steps(cfg, data)
    training_step, evaluation_step = measured[key]
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    num_devices = max(devices, 1) if isinstance(devices := cfg.trainer.get("devices"), int) else 1
    num_train, num_val, num_test = (
        -(-apply_limit(len(loader), cfg.trainer.get(f"limit_{split}_batches")) // num_devices)
        for split, loader in loaders.items()
    )
    epochs = cfg.trainer.max_epochs
    seconds = epochs * (num_train * training_step + num_val * evaluation_step) + num_test * evaluation_step
    return sum(stage.num_parameters for stage in shapes), num_train, epochs, seconds


def apply_limit(batches: int, limit: int | float | None) -> int:
    """Applies Lightning's `limit_*_batches`: an int is a number of batches, a float is a share of them."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def measure_steps(cfg: DictConfig, data: SequenceDataModule) -> tuple[float, float]:
    """Returns the seconds of a training step and of an evaluation step."""
    accelerator = cfg.trainer.get("accelerator", "auto")
    fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision(cfg.trainer.precision, accelerator))
    network: Any = build_network(cfg, data.frame_shape, data.num_classes)
    check_memory(network, data.frame_shape, data.largest_batch, fabric.device, fabric.autocast)
    network, optimizer = fabric.setup(network, instantiate_node("optimizer", cfg.optimizer)(network.parameters()))
    batch = fabric.to_device(next(iter(data.train_dataloader())))
    frames, labels = data.on_after_batch_transfer(batch, 0)

    def train() -> None:
        optimizer.zero_grad()
        fabric.backward(cross_entropy(network(frames), labels))
        optimizer.step()

    @torch.no_grad()
    def evaluate() -> None:
        network(frames)

    return fastest(train, fabric.device), fastest(evaluate, fabric.device)


def fastest(step: Callable[[], None], device: torch.device) -> float:
    """Returns the seconds of the fastest of TIMED_STEPS steps."""
    seconds = []
    for _ in range(WARM_UP_STEPS + TIMED_STEPS):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[WARM_UP_STEPS:])


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pads the cells of each column to one width; a row with fewer cells may end in a text of any length."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]

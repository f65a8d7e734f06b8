"""Checks the jobs of a sweep without starting them, and returns a table of their parameters, steps and times."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import cross_entropy

from quadrant_lstm.config.check import check_config
from quadrant_lstm.config.values import without_hydra
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import make
from quadrant_lstm.model.protocols import as_argument, count_parameters
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run.build import (
    bare_trainer,
    build_data,
    build_network,
    instantiate_node,
    quiet_lightning,
    resolve_precision,
)
from quadrant_lstm.run.check_network import check_network
from quadrant_lstm.sweep.sweep_folder import Job, readable
from quadrant_lstm.sweep.table import FINISHED
from quadrant_lstm.text import align, counted, duration, with_progress

WARM_UP_STEPS, TIMED_STEPS = 2, 5


def describe_plan(jobs: Sequence[Job], compose: Callable[[Job], DictConfig]) -> tuple[str, list[Job]]:
    """Returns the table, and the jobs whose config is invalid."""
    if not jobs:
        return "no job is left to run; nothing was started", []
    keys = list(jobs[0].swept)
    quiet_lightning()
    logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)  # each job will log its own messages
    prepare_for_training()
    rows = [["job", *keys, "parameters", "steps per epoch", "epochs", "time"]]
    measured: dict[str, tuple[float, float]] = {}
    total, invalid, errors = 0.0, [], []
    for job in with_progress(jobs, "checking jobs", transient=True):
        try:
            found = estimate(compose(job), measured)
            finished = job.results() is not None
            total += 0 if finished else found.seconds
            cells = [f"{found.parameters:,}", f"{found.steps_per_epoch:,}", str(found.epochs)]
            cells.append(FINISHED if finished else duration(found.seconds))
        except UserError as error:
            invalid.append(job)
            errors.append(f"job {job.number}: {error}")
            cells = ["", "", "", "invalid"]
        rows.append([str(job.number), *map(readable, job.swept.values()), *cells])
    last = f"{counted(len(jobs), 'job')}, about {duration(total)} one after another; nothing was started"
    return "\n".join([align(rows), *errors, last]), invalid


class Estimate(NamedTuple):
    parameters: int
    steps_per_epoch: int
    epochs: int
    seconds: float  # of the whole job


def estimate(cfg: DictConfig, measured: dict[str, tuple[float, float]]) -> Estimate:
    """`measured` caches the seconds per step, for jobs with the same data, model, optimizer, precision and
    accelerator.
    """
    cfg = without_hydra(cfg)
    check_config(cfg)
    data = build_data(cfg)
    network = build_network(cfg, data.spec)
    key = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, ["data", "model", "optimizer"]))
    key += f"{cfg.trainer.precision} {cfg.trainer.get('accelerator')}"
    processes = bare_trainer(cfg).world_size  # checks the accelerator
    if key not in measured:
        measured[key] = measure_steps(cfg, data, network)
    training_step, evaluation_step = measured[key]
    limits = dict(cfg.trainer)
    if overfitted := cfg.trainer.get("overfit_batches"):
        limits |= {"limit_train_batches": overfitted, "limit_val_batches": overfitted}
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    num_train, num_val, num_test = (
        apply_limit(-(-len(loader) // processes), limits.get(f"limit_{split}_batches") or 1.0)
        for split, loader in loaders.items()
    )
    epochs = cfg.trainer.max_epochs
    seconds = epochs * (num_train * training_step + num_val * evaluation_step) + num_test * evaluation_step
    return Estimate(count_parameters(network), num_train, epochs, seconds)


def apply_limit(batches: int, limit: int | float) -> int:
    """Applies Lightning's `limit_*_batches`: an int is a number of batches, a float is a share of them."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def measure_steps(cfg: DictConfig, data: SequenceDataModule, network: Any) -> tuple[float, float]:
    """Returns the seconds of a training step and of an evaluation step."""
    accelerator = cfg.trainer.get("accelerator", "auto")
    fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision(cfg.trainer.precision, accelerator))
    check_network(network, data, fabric.device, fabric.autocast)
    network, optimizer = fabric.setup(
        network, make("optimizer", instantiate_node("optimizer", cfg.optimizer), network.parameters())
    )
    batch = fabric.to_device(next(iter(data.train_dataloader())))
    frames, labels, lengths = data.on_after_batch_transfer(batch, 0)

    def train() -> None:
        optimizer.zero_grad()
        fabric.backward(cross_entropy(network(frames, **as_argument(lengths)), labels))
        optimizer.step()

    @torch.no_grad()
    def evaluate() -> None:
        network(frames, **as_argument(lengths))

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

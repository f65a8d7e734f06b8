"""Checks the jobs of a sweep without starting them, and prints a table of their parameters, steps and times."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from quadrant_lstm.config import check, values
from quadrant_lstm.data.datamodule import SequenceDataModule
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.processes.launch import prepare_for_training
from quadrant_lstm.run import build
from quadrant_lstm.sweep.sweep_folder import Job, readable
from quadrant_lstm.text import align, counted, duration, say, with_progress

SHORT = {  # instead of the job's own, to measure the fastest of a few steps
    "devices": 1, "num_nodes": 1, "max_epochs": 1, "limit_train_batches": 7, "limit_val_batches": 3, "logger": None,
    "callbacks": None, "profiler": None, "enable_checkpointing": False, "enable_progress_bar": False,
}  # fmt: skip


def show_plan(jobs: Sequence[Job], compose: Callable[[Job], DictConfig]) -> None:
    """Prints the table. Raises UserError if the config of a job is invalid."""
    if not jobs:
        return say("no job is left to run; nothing was started")
    build.quiet_lightning()
    logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)  # each job will log its own messages
    prepare_for_training()
    rows = [["job", *jobs[0].swept, "parameters", "steps per epoch", "epochs", "time"]]
    estimates: dict[str, Estimate] = {}  # of jobs that differ in more than the seed
    measured: dict[str, tuple[float, float]] = {}
    total, errors = 0.0, []
    for job in with_progress(jobs, "checking jobs", transient=True):
        try:
            cfg = values.without_hydra(compose(job))
            check.check_config(cfg)
            others = [str(name) for name in cfg if name not in ("seed", "swept")]
            key = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, others))
            if key not in estimates:
                estimates[key] = estimate(cfg, measured)
            planned = estimates[key]
            finished = job.results() is not None
            total += 0 if finished else planned.seconds
            cells = [f"{planned.parameters:,}", f"{planned.steps_per_epoch:,}", str(planned.epochs)]
            cells.append("finished" if finished else duration(planned.seconds))
        except UserError as error:
            errors.append(f"job {job.number}: {error}")
            cells = ["", "", "", "invalid"]
        rows.append([str(job.number), *map(readable, job.swept.values()), *cells])
    last = f"{counted(len(jobs), 'job')}, about {duration(total)} one after another; nothing was started"
    say("\n".join([align(rows), *errors, last]))
    if errors:
        raise UserError(f"plan: {len(errors)} of {len(jobs)} jobs are invalid, see above; change their values.")


class Estimate(NamedTuple):
    parameters: int
    steps_per_epoch: int
    epochs: int
    seconds: float  # of the whole job


def estimate(cfg: DictConfig, measured: dict[str, tuple[float, float]]) -> Estimate:
    """`measured` caches the seconds per step, for jobs with the same data, model, optimizer, precision and
    accelerator.
    """
    data = build.build_data(cfg)
    classifier = build.build_classifier(cfg, data.spec, data.class_counts())
    key = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, ["data", "model", "optimizer"]))
    key += f"{cfg.trainer.precision} {cfg.trainer.get('accelerator')}"
    processes = build.bare_trainer(cfg).world_size  # checks the accelerator
    if key not in measured:
        measured[key] = measure_steps(cfg, data, classifier)
    overfit, limits = cfg.trainer.get("overfit_batches"), cfg.trainer
    num_train = num_batches(data.train_dataloader(), processes, overfit or limits.limit_train_batches)
    num_val = num_batches(data.val_dataloader(), processes, overfit or limits.limit_val_batches)
    num_test = num_batches(data.test_dataloader(), processes, limits.limit_test_batches)
    training, evaluation = measured[key]
    epochs = cfg.trainer.max_epochs
    seconds = epochs * (num_train * training + num_val * evaluation) + num_test * evaluation
    num_steps = math.ceil(num_train / limits.get("accumulate_grad_batches", 1))
    return Estimate(count_parameters(classifier.network), num_steps, epochs, seconds)


def num_batches(loader: Any, processes: int, limit: int | float | None) -> int:
    """Returns the batches of each process under Lightning's `limit`: a number of batches, or as a float a share."""
    batches = math.ceil(len(loader) / processes)
    return min(batches, limit) if isinstance(limit, int) else int(batches * (limit or 1.0))


def measure_steps(cfg: DictConfig, data: SequenceDataModule, classifier: Classifier) -> tuple[float, float]:
    """Returns the seconds of a training step and of an evaluation step on one device, without loggers and callbacks."""
    short: Any = OmegaConf.merge(cfg, {"trainer": SHORT})
    trainer: Any = build.build_trainer(short, Path())
    trainer.callbacks.append(stopwatch := Stopwatch())
    build.check_network(classifier.network, data)
    trainer.fit(classifier, datamodule=data)
    return stopwatch.fastest(validating=False), stopwatch.fastest(validating=True)


class Stopwatch(pl.Callback):
    def __init__(self) -> None:
        self.times: dict[bool, list[float]] = {False: [], True: []}  # in seconds, of training and of validation

    def note_time(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.strategy.root_device.type != "cpu":
            torch.accelerator.synchronize()
        self.times[trainer.validating].append(time.perf_counter())

    on_train_start = on_train_batch_end = on_validation_start = on_validation_batch_end = note_time

    def fastest(self, validating: bool) -> float:
        return min((end - start for start, end in itertools.pairwise(self.times[validating])), default=0.0)

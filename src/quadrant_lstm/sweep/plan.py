"""A sweep's jobs -> what they would be: checked, built, parameters counted, time estimated. Nothing is started."""

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
from quadrant_lstm.processes.prepare import make_ready
from quadrant_lstm.run.build import build, build_data, build_network
from quadrant_lstm.run.memory import check_memory
from quadrant_lstm.run.precision import resolve
from quadrant_lstm.run.quiet import quiet_lightning
from quadrant_lstm.sweep.jobs import Job, readable

WARM_UP, TIMED = 2, 5  # steps of the probe


def plan(jobs: Sequence[Job], compose: Callable[[Job], DictConfig]) -> tuple[str, list[Job]]:
    """The plan as text, and the jobs that cannot be."""
    keys = list(jobs[0].swept)
    quiet_lightning()
    logging.getLogger("quadrant_lstm").setLevel(logging.WARNING)  # what each job will say
    make_ready()
    rows = [["job", *keys, "parameters", "steps an epoch", "epochs", "time"]]
    probed: dict[str, tuple[float, float]] = {}
    total, wrong = 0.0, []
    for job in jobs:
        try:
            parameters, steps, epochs, seconds = estimate(compose(job), probed)
        except UserError as error:
            wrong.append(job)
            rows.append([str(job.number), *map(readable, job.swept.values()), f"cannot be: {error}"])
            continue
        state = "done" if job.results() else duration(seconds)
        total += 0 if job.results() else seconds
        rows.append(
            [str(job.number), *map(readable, job.swept.values()), f"{parameters:,}", f"{steps:,}", str(epochs), state]
        )
    last = f"{len(jobs)} jobs, about {duration(total)} one after another; nothing was started"
    return "\n".join([*columns(rows), last]), wrong


def estimate(cfg: DictConfig, probed: dict[str, tuple[float, float]]) -> tuple[int, int, int, float]:
    """Parameters, steps an epoch, epochs, and seconds; jobs that differ in what costs no time share a probe."""
    cfg = without_hydra(cfg)
    check(cfg)
    data = build_data(cfg)
    shapes = stages(build_network(cfg, data.frame_shape, data.num_classes), data.frame_shape)
    key = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, ["data", "model", "optimizer"])) + str(cfg.trainer.precision)
    if key not in probed:
        probed[key] = probe(cfg, data)
    step, evaluation = probed[key]
    trained, validated, tested = (
        limited(len(loader), limit)
        for loader, limit in (
            (data.train_dataloader(), cfg.trainer.get("limit_train_batches")),
            (data.val_dataloader(), cfg.trainer.get("limit_val_batches")),
            (data.test_dataloader(), cfg.trainer.get("limit_test_batches")),
        )
    )
    if isinstance(devices := cfg.trainer.get("devices"), int) and devices > 1:
        trained, validated, tested = (-(-batches // devices) for batches in (trained, validated, tested))
    epochs = cfg.trainer.max_epochs
    seconds = epochs * (trained * step + validated * evaluation) + tested * evaluation
    return sum(stage.num_parameters for stage in shapes), trained, epochs, seconds


def limited(batches: int, limit: int | float | None) -> int:
    """As Lightning reads its limits: a number of batches, or a share."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def probe(cfg: DictConfig, data: SequenceDataModule) -> tuple[float, float]:
    """Seconds of a training step and of an evaluation step, the fastest of a few."""
    accelerator = cfg.trainer.get("accelerator", "auto")
    fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve(cfg.trainer.precision, accelerator))
    network: Any = build_network(cfg, data.frame_shape, data.num_classes)
    batch_size = min(cfg.data.batch_size, len(data.train_indices))
    check_memory(network, data.frame_shape, batch_size, fabric.device, fabric.autocast)
    network, optimizer = fabric.setup(network, build("optimizer", cfg.optimizer)(network.parameters()))
    batch = fabric.to_device(next(iter(data.train_dataloader())))
    frames, labels = data.on_after_batch_transfer(batch, 0)

    def train() -> None:
        optimizer.zero_grad()
        fabric.backward(cross_entropy(network(frames), labels))
        optimizer.step()

    @torch.no_grad()
    def evaluate() -> None:
        network(frames)

    return timed(train, fabric.device), timed(evaluate, fabric.device)


def timed(step: Callable[[], None], device: torch.device) -> float:
    seconds = []
    for _ in range(WARM_UP + TIMED):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[WARM_UP:])


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows may end early, with a text of any length."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]

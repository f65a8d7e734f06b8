"""Trains a network as a checked config says, tests the epoch that is kept, and writes the results to the run folder.

If the run folder already has a last.ckpt, training resumes from it.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch.distributed import DistError, destroy_process_group

from quadrant_lstm.data.datamodule import SequenceDataModule, killed_workers_explained
from quadrant_lstm.errors import UserError
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.processes import torchrun
from quadrant_lstm.processes.launch import LostProcess, is_connected, launch, prepare_for_training
from quadrant_lstm.run.build import build_classifier, build_data, build_trainer, num_processes_to_launch
from quadrant_lstm.run.check_network import check_network
from quadrant_lstm.run.initial_weights import copy_weights
from quadrant_lstm.run.load import trained_spec
from quadrant_lstm.run.memory import check_frame_memory
from quadrant_lstm.run.quiet import allow_frozen_modules, quiet_lightning
from quadrant_lstm.run.records import check_resumable, closing, is_finished, record_results, record_start
from quadrant_lstm.run.same_data import check_same_data, keep_num_frames
from quadrant_lstm.run_folder import BEST, LAST, as_typed, check_present, locked, read_results
from quadrant_lstm.text import counted

log = logging.getLogger(__name__)


@runtime_checkable
class HasResults(Protocol):
    """A callback that adds values to results.json; they are read once, after the training and before the test."""

    def results(self) -> dict[str, Any]: ...


def train(cfg: DictConfig) -> float | None:
    """Returns val/accuracy of the kept epoch in the first process, if it has one, and None in the others."""
    quiet_lightning()
    if torchrun.meeting:
        torchrun.meeting.check_same_config(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if is_finished(cfg, folder):
        return read_results(folder).get("val/accuracy")
    if to_launch := num_processes_to_launch(cfg):
        timeout = OmegaConf.select(cfg, "trainer.strategy.timeout", default=1800.0)  # of Lightning's own strategies
        launch(functools.partial(train, cfg), to_launch, folder, timeout)
        return read_results(folder).get("val/accuracy")
    pl.seed_everything(cfg.seed, verbose=False)
    trained = trained_spec(cfg, folder)
    check_resumable(folder, trained)
    data = build_data(keep_num_frames(cfg, trained) if trained else cfg)
    classifier = build_classifier(cfg, data.spec)
    if trained:
        check_same_data(data, trained, folder)
    elif cfg.get("init"):
        copy_weights(classifier.network, cfg.init)
    trainer = build_trainer(cfg, folder)
    device, autocast = trainer.strategy.root_device, trainer.precision_plugin.forward_context
    check_frame_memory(data.frame_bytes, trainer.num_devices)
    check_every_process_has_samples(data, trainer.world_size)
    check_network(classifier.network, data, device, autocast, trainer.num_devices)
    with locked(folder) if trainer.is_global_zero else contextlib.nullcontext(), closing(trainer.loggers):
        accuracy = fit_and_test(cfg, folder, trainer, classifier, data)
    if trainer.world_size > 1:
        destroy_process_group()  # its threads sometimes abort a process that ends without this
    return accuracy


def check_every_process_has_samples(data: SequenceDataModule, num_processes: int) -> None:
    splits = {"training": data.train_indices, "validation": data.validation_indices, "test": data.test}
    for name, samples in splits.items():
        if 0 < len(samples) < num_processes:
            raise UserError(
                f"trainer.devices: {num_processes} processes, but only {counted(len(samples), f'{name} sample')}; use "
                "fewer devices, or more samples."
            )


def fit_and_test(
    cfg: DictConfig, folder: Path, trainer: Any, classifier: Classifier, data: SequenceDataModule
) -> float | None:
    checkpoint = str(folder / LAST) if (folder / LAST).exists() else None
    if trainer.is_global_zero:
        record_start(cfg, folder, trainer, data)
    prepare_for_training()
    allow_frozen_modules(classifier.network)
    trained: dict[str, Any] = {}
    with errors_explained(folder):
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        # read before the test, which loads the state of the kept epoch into all callbacks
        if trainer.is_global_zero:
            for callback in trainer.callbacks:
                if isinstance(callback, HasResults):
                    trained |= callback.results()
        trainer.test(classifier, datamodule=data, ckpt_path=str(folder / BEST), weights_only=True, verbose=False)
    if trainer.is_global_zero:
        parameters = count_parameters(classifier.network)
        record_results(classifier.test_results() | trained | {"parameters": parameters}, cfg, folder, trainer)
    return trained.get("val/accuracy")


@contextlib.contextmanager
def errors_explained(folder: Path) -> Iterator[None]:
    """Turns errors of Lightning and of other processes into one line."""
    killed = (
        "data.num_workers: a process that reads clips was killed, perhaps because memory was short; write fewer, or a "
        f"smaller data.cache_gb, and resume with run={as_typed(folder)}."
    )
    try:
        with killed_workers_explained(killed):
            yield
    except OSError:
        check_present(folder)
        raise
    except MisconfigurationException as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"trainer: {reason}; change a value of trainer.") from error
    except RuntimeError as error:
        if isinstance(error, DistError) or not is_connected():
            if torchrun.meeting:
                time.sleep(1)  # torchrun interrupts this process, too, if the other process has ended for that reason
                torchrun.meeting.check_others()
            reason = f" ({str(error).splitlines()[0]})" if isinstance(error, DistError) else ""
            raise LostProcess(
                "a process of this run has ended, or did not answer within trainer.strategy.timeout"
                f"{reason}; if nothing starts it again, resume with run={as_typed(folder)}."
            ) from error
        raise

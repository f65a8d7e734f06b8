"""Trains a network as a checked config says, tests the epoch that is kept, and writes the results to the run folder.

If the run folder already has a last.ckpt, training resumes from it.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.distributed import DistError, destroy_process_group

from quadrant_lstm.callbacks.checkpoints import read_checkpoint
from quadrant_lstm.data.datamodule import SequenceDataModule, killed_workers_explained
from quadrant_lstm.errors import UserError, needs_extra
from quadrant_lstm.model.classifier import Classifier
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.processes.launch import LostProcess, connect, is_connected, launch, prepare_for_training
from quadrant_lstm.processes.torchrun import Meeting
from quadrant_lstm.run.build import (
    allow_frozen_modules,
    build_classifier,
    build_data,
    build_trainer,
    num_processes_to_launch,
    quiet_lightning,
)
from quadrant_lstm.run.check_network import check_frame_memory, check_network
from quadrant_lstm.run.load import check_same_data, keep_num_frames, trained_spec
from quadrant_lstm.run.records import check_resumable, closing, is_finished, record_results, record_start
from quadrant_lstm.run_folder import BEST, LAST, as_typed, check_present, find_weights, locked, read_results
from quadrant_lstm.text import counted

# Weights of another run, as far as names and shapes match


log = logging.getLogger(__name__)
NETWORK = "network."  # of the names in a checkpoint
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # float8 needs scales, which are not in the file


def copy_weights(network: nn.Module, init: str) -> None:
    """Logs which weights have no counterpart. Raises UserError for a damaged file, for weights of another type or that
    are not finite, and if no weight fits.
    """
    file = find_weights(init)
    weights, own = read_weights(file), network.state_dict()
    fitting = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
    if not fitting:
        raise UserError(f"init: {file} has no weight whose name and shape this network has; choose its model.")
    for name, weight in fitting.items():
        check_values(f"init: {file}: {name}", weight, own[name].dtype)
    network.load_state_dict(fitting, strict=False)
    log.info(f"init: copied {len(fitting)} of {len(own)} tensors from {file}")
    for name in (name for name in own if name not in fitting):
        shape = list(own[name].shape)
        reason = f"the file has {list(weights[name].shape)}" if name in weights else "the file has none"
        log.info(f"init: {name} {shape} keeps its initial values; {reason}")
    for name in (name for name in weights if name not in own):
        log.info(f"init: {name} {list(weights[name].shape)} of the file is not in this network")


def check_values(place: str, weight: Tensor, dtype: torch.dtype) -> None:
    if weight.dtype != dtype and not {weight.dtype, dtype} <= set(FLOATS):
        found, wanted = (str(each).removeprefix("torch.") for each in (weight.dtype, dtype))
        raise UserError(f"{place} is {found}, but {wanted} in this network; save it in that type.")
    if not weight.to(dtype).isfinite().all():
        raise UserError(f"{place} has values that are NaN or infinite; give the weights of an earlier epoch.")


def read_weights(file: Path) -> Mapping[str, Tensor]:
    if file.suffix != ".safetensors":
        state = read_checkpoint(file)["state_dict"]
        return {name.removeprefix(NETWORK): weight for name, weight in state.items() if name.startswith(NETWORK)}
    with needs_extra(f"init={file}", "export"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"init: {file} cannot be read ({error}); export it again.") from error


# The training


@runtime_checkable
class HasResults(Protocol):
    """A callback that adds values to results.json; they are read once, after the training and before the test."""

    def results(self) -> dict[str, Any]: ...


def train(cfg: DictConfig, meeting: Meeting | None = None) -> float | None:
    """Returns val/accuracy of the kept epoch in the first process, if it has one, and None in the others.

    `meeting` holds the processes that torchrun started.
    """
    quiet_lightning()
    folder = Path(HydraConfig.get().runtime.output_dir)
    if meeting:
        meeting.share(folder, cfg)
    if is_finished(cfg, folder):
        return read_results(folder).get("val/accuracy")
    timeout = OmegaConf.select(cfg, "trainer.strategy.timeout", default=1800.0)  # of Lightning's own strategies
    if to_launch := num_processes_to_launch(cfg):
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
    lock = locked(folder) if trainer.is_global_zero else contextlib.nullcontext()
    with lock, closing(trainer.loggers), errors_explained(folder, meeting):
        if trainer.world_size > 1:
            connect(trainer.strategy, meeting, timedelta(seconds=timeout))
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
def errors_explained(folder: Path, meeting: Meeting | None) -> Iterator[None]:
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
            if meeting:
                time.sleep(1)  # torchrun interrupts this process, too, if the other process has ended for that reason
                meeting.check_others()
            reason = f" ({str(error).splitlines()[0]})" if isinstance(error, DistError) else ""
            raise LostProcess(
                "a process of this run has ended, or did not answer within trainer.strategy.timeout"
                f"{reason}; if nothing starts it again, resume with run={as_typed(folder)}."
            ) from error
        raise

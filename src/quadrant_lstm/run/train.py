"""Trains a network as a checked config says, tests the epoch that is kept, and writes the results to the run folder.

If the run folder already has a last.ckpt, training resumes from it: the run keeps its provenance.json, and its
config.yaml becomes the config that it resumes with.
"""

import contextlib
import functools
import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch.distributed import DistError, destroy_process_group

from quadrant_lstm import run_folder
from quadrant_lstm.callbacks.checkpoints import metric_columns, read_checkpoint
from quadrant_lstm.config.check import check_trained_with
from quadrant_lstm.dashboard.dashboard import Dashboard, hyperparameters, log_results
from quadrant_lstm.dashboard.loggers import end_tracking, start_tracking
from quadrant_lstm.dashboard.report import write_run_report
from quadrant_lstm.data.datamodule import SequenceDataModule, killed_workers_explained
from quadrant_lstm.errors import UserError
from quadrant_lstm.files import csv_cell, csv_text, read_csv, read_yaml, write_atomically, write_json
from quadrant_lstm.model.classifier import Classifier, total_arguments
from quadrant_lstm.model.protocols import count_parameters
from quadrant_lstm.processes.launch import LostProcess, connect, is_connected, launch, prepare_for_training
from quadrant_lstm.processes.torchrun import Meeting
from quadrant_lstm.run import build
from quadrant_lstm.run.load import (
    Resumed,
    check_init,
    check_same_data,
    copy_weights,
    keep_num_frames,
    load_teachers,
    read_resumed,
)  # fmt: skip
from quadrant_lstm.run.provenance import provenance
from quadrant_lstm.run_folder import BEST, LAST, METRICS, OUTPUTS, RESULTS, as_typed, read_results
from quadrant_lstm.text import counted, percent

log = logging.getLogger(__name__)

# The training


def train(cfg: DictConfig, meeting: Meeting | None = None) -> None:
    """Trains on the devices of the config, unless the run has finished. `meeting` holds the processes of torchrun."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if meeting:
        meeting.share(folder, OmegaConf.to_yaml(cfg))
    if is_finished(cfg, folder):
        return
    build.quiet_lightning()
    if count := build.num_processes_to_launch(cfg):
        launch(functools.partial(train_here, cfg, folder), count, folder, timeout_of(cfg))
    else:
        train_here(cfg, folder, meeting)


def timeout_of(cfg: DictConfig) -> float:
    """Returns the seconds that a process waits for another."""
    return OmegaConf.select(cfg, "trainer.strategy.timeout", default=1800.0)  # that of Lightning's own strategies


def train_here(cfg: DictConfig, folder: Path, meeting: Meeting | None = None) -> None:
    """Trains and tests in this process, which is one of the run's."""
    build.quiet_lightning()
    pl.seed_everything(cfg.seed, verbose=False)
    resumed = read_resumed(folder)
    check_resumable(folder, resumed)
    data = build.build_data(keep_num_frames(cfg, resumed.spec) if resumed else cfg)
    classifier = build.build_classifier(cfg, data.spec, data.class_counts(), trained=resumed is not None)
    build.set_statistics(classifier.network, data)  # unless a checkpoint or `init` has others
    if resumed:
        if meeting and HydraConfig.get().job.config_name != run_folder.CONFIG.stem:  # torchrun has started it again
            check_trained_with(folder, cfg)
        check_same_data(data, resumed.spec, folder)
    else:
        build.check_used(data, HydraConfig.get().overrides.task)  # again: a sweep's job had no check_fit
    if cfg.get("teacher"):
        classifier.teachers = load_teachers(cfg, data)
    trainer = build.build_trainer(cfg, folder)
    check_every_process_has_samples(data, trainer.world_size)
    build.check_network(classifier.network, data)  # lazy layers then have their sizes
    if "16" in trainer.precision:
        classifier.unreached = build.unreached_weights(classifier.network, data)
    if cfg.get("init") and not resumed:
        check_init(data, cfg.init, cfg.data.root)
        copy_weights(classifier.network, cfg.init, data.spec.feature_names, data.spec.class_names)
    if not classifier.teachers:  # which read frames
        build.keep_features(classifier.network, data)
    lock = run_folder.locked(folder) if trainer.is_global_zero else contextlib.nullcontext()
    with lock, closing(trainer.loggers), errors_explained(cfg, folder, meeting):
        timeout = timedelta(seconds=timeout_of(cfg))
        if meeting:
            meeting.compare_data(data.sha256(), timeout)
        if trainer.world_size > 1:
            connect(trainer.strategy, meeting, timeout)
        if trainer.is_global_zero:
            record_start(cfg, folder, resumed, trainer, data)
        fit_and_test(cfg, folder, trainer, classifier, data)
    if trainer.world_size > 1:
        destroy_process_group()  # its threads sometimes abort a process that ends without this


def check_every_process_has_samples(data: SequenceDataModule, num_processes: int) -> None:
    splits = {"training": data.train_indices, "validation": data.validation_indices, "test": data.test}
    for name, samples in splits.items():
        if 0 < len(samples) < num_processes:
            rule = f"{num_processes} processes, but only {counted(len(samples), f'{name} sample')}"
            raise UserError(f"trainer.devices: {rule}; use fewer devices, or more samples.")


def fit_and_test(cfg: DictConfig, folder: Path, trainer: Any, classifier: Classifier, data: SequenceDataModule) -> None:
    checkpoint = str(folder / LAST) if (folder / LAST).exists() else None
    prepare_for_training()
    trained: dict[str, Any] = {}
    if trainer.precision == "64-true":
        classifier.double()  # Lightning reads a checkpoint before it does so
    trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    # what callbacks add to results.json; the test then loads the state of the kept epoch into all of them
    for callback in trainer.callbacks if trainer.is_global_zero else []:
        trained |= getattr(callback, "results", dict)()
    trainer.test(classifier, datamodule=data, ckpt_path=str(folder / BEST), weights_only=True, verbose=False)
    if trainer.is_global_zero:
        parameters = count_parameters(classifier.network)
        record_results(classifier.test_results() | trained | {"parameters": parameters}, cfg, folder, trainer)


@contextlib.contextmanager
def errors_explained(cfg: DictConfig, folder: Path, meeting: Meeting | None) -> Iterator[None]:
    """Turns errors of Lightning and of other processes into one line."""
    resume = f"resume with run={as_typed(folder)}"
    killed = "data.num_workers: a process that reads clips was killed, perhaps because memory was short"
    try:
        with killed_workers_explained(f"{killed}; write fewer, or a smaller data.cache_gb, and {resume}."):
            yield
    except OSError:
        run_folder.check_present(folder)
        raise
    except (MisconfigurationException, ModuleNotFoundError) as error:  # a callback may need another package
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"trainer: {reason}; change a value of trainer.") from error
    except RuntimeError as error:
        if isinstance(error, DistError) or not is_connected():
            if meeting:
                time.sleep(1)  # torchrun interrupts this process, too, if the other process has ended for that reason
                meeting.check_others()
            reason = f" ({str(error).splitlines()[0]})" if isinstance(error, DistError) else ""
            rule = f"has ended, or did not answer within trainer.strategy.timeout{reason}"
            raise LostProcess(f"a process of this run {rule}; if nothing starts it again, {resume}.") from error
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):  # torch 2.13 on a CPU
            lacking = f"data.batch_size: a step of {cfg.data.batch_size:,} samples does not fit into memory"
            raise UserError(f"{lacking}; write a smaller value, or choose a smaller model.") from error
        raise


# What stands in the run folder at the start and at the end


def check_resumable(folder: Path, resumed: Resumed | None) -> None:
    """Raises UserError if a file that a resumed run needs is lost or damaged."""
    remedy = "restore it, or begin a new run"
    lost = f"is missing, but epochs of this run have finished; {remedy}."
    run_folder.read_overrides(folder)  # needed at the end; this and the next two raise UserError for a damaged file
    rows = run_folder.read_rows(folder / METRICS)
    best = read_checkpoint(folder / BEST) if (folder / BEST).exists() else None
    if resumed is None:
        # a kill in the first epoch may leave a best.ckpt and a row of it, which are written before last.ckpt
        if (best and best["epoch"]) or len(rows) > 1 or (folder / RESULTS).exists():
            raise UserError(f"{folder / LAST}: {lost}")
        return
    header, columns = {name for row in rows for name in row}, set(metric_columns(resumed.spec))
    if rows and header != columns:
        raise UserError(f"{folder / METRICS}: its header is damaged at {min(header ^ columns)!r}; {remedy}.")
    if missing := set(range(1, resumed.epochs + 1)) - {int(row["epoch"]) for row in rows}:
        raise UserError(f"{folder / METRICS}: has no row of epoch {min(missing)}, which has finished; {remedy}.")
    if best is None and any(row.get("val/accuracy") for row in rows):
        raise UserError(f"{folder / BEST}: {lost}")


def record_start(
    cfg: DictConfig, folder: Path, resumed: Resumed | None, trainer: Any, data: SequenceDataModule
) -> None:
    """Writes what a run folder holds from the start; the config and the samples, when the schedule that resumes has not
    refused them, and before the dashboard reads the config.
    """
    changed = OmegaConf.to_container(cfg) != OmegaConf.to_container(read_yaml(folder / run_folder.CONFIG))
    record = functools.partial(record_config_and_data, cfg if changed else None, folder, resumed, data)
    trainer.callbacks.insert(0, LambdaCallback(on_fit_start=lambda *_: record()))
    (folder / run_folder.ERROR).unlink(missing_ok=True)
    if not (folder / run_folder.PROVENANCE).exists():
        write_json(folder / run_folder.PROVENANCE, provenance(cfg, data))
    if resumed:
        changes = f", with {' '.join(HydraConfig.get().overrides.task)}" if changed else ""
        log.info(f"resuming {as_typed(folder)} after its last finished epoch{changes}")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    for logger in trainer.loggers:
        start_tracking(logger, config, folder, resumed.global_step if resumed else 0)


def record_config_and_data(
    changed: DictConfig | None, folder: Path, resumed: Resumed | None, data: SequenceDataModule
) -> None:
    """Writes a config that has changed, the table of the samples, and the list of those that were skipped."""
    if changed:
        write_atomically(folder / run_folder.CONFIG, OmegaConf.to_yaml(changed).encode())
    if data.table:
        table = folder / run_folder.TABLES[data.kind]
        trained = [row for row in read_csv(table) if row["split"] == "training"] if resumed else []  # these rows stay
        rows = {(csv_cell(row["path"]), row["sha256"]): row for row in (*trained, *data.table)}
        write_atomically(table, csv_text(list(data.table[0]), rows.values()).encode())
    (folder / run_folder.SKIPPED).unlink(missing_ok=True)
    if data.skipped:
        write_atomically(folder / run_folder.SKIPPED, "".join(f"{error}\n" for error in data.skipped).encode())
        clips = counted(len(data.skipped), "clip")
        log.info(f"data.skip_broken: left out {clips}; {as_typed(folder / run_folder.SKIPPED)} lists them")


def record_results(results: dict[str, Any], cfg: DictConfig, folder: Path, trainer: Any) -> None:
    """Writes the results to the loggers, then report.html, then results.json, which marks a finished run."""
    run_folder.check_present(folder)
    log_results(trainer, hyperparameters(cfg, run_folder.read_overrides(folder)), results)
    for callback in trainer.callbacks:
        if isinstance(callback, Dashboard):
            write_run_report(folder, results, callback, trainer.datamodule)
    write_json(folder / RESULTS, results)
    log.info(run_summary(results, folder, trainer.loggers))


@contextlib.contextmanager
def closing(loggers: Sequence[Any]) -> Iterator[None]:
    """Ends the tracked runs after the block."""
    try:
        yield
        for logger in loggers:
            end_tracking(logger, "success")
    except BaseException:
        for logger in loggers:
            with contextlib.suppress(Exception):  # the error that ended the run is reported
                end_tracking(logger, "failed")
        raise


def run_summary(results: dict[str, Any], folder: Path, loggers: Sequence[Any]) -> str:
    accuracy, samples = percent(results["test/accuracy"]), f"{results['test/images']:,} samples"
    epochs = f"{results['keep']} epoch {results['best_epoch']} of {results['epochs']}"
    lines = [f"test accuracy  {accuracy}  ({samples}, {epochs}, {results['seconds']:.0f} s)"]
    lines += [f"run folder     {as_typed(folder)}"]
    lines += [f"report         {as_typed(folder / run_folder.REPORT)}"] if (folder / run_folder.REPORT).exists() else []
    if any(isinstance(logger, TensorBoardLogger) for logger in loggers):
        place = OUTPUTS if folder.is_relative_to(OUTPUTS.absolute()) else as_typed(folder)
        lines.append(f"dashboard      tensorboard --logdir {shlex.quote(str(place))}")
    return "\n".join(lines)


def is_finished(cfg: DictConfig, folder: Path) -> bool:
    """Tells whether a job of a sweep needs no more training. Raises UserError for a single run that is finished."""
    results, last = read_results(folder), run_folder.last_epoch(folder)
    if not results or not last:
        return False
    configs, key = (cfg, read_yaml(folder / run_folder.CONFIG)), "trainer.callbacks.early_stopping"
    now, before = (OmegaConf.select(config, key) for config in configs)
    epochs, stopped_early = int(last["epoch"]), results.get("stopped_early") and now == before
    is_short = epochs < cfg.trainer.max_epochs
    if is_short and not stopped_early:
        return False
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        has_end = total_arguments(get_class(cfg.schedule._target_))
        remedies = [] if has_end else [f"add e.g. trainer.max_epochs={epochs + 1}"]
        if is_short:
            remedies = ["raise trainer.callbacks.early_stopping.patience", "leave that callback out"]
        remedies.append(f"start a new run with init={as_typed(folder)}")
        finished = f"has finished its {epochs} epochs{', by early stopping' if is_short else ''}"
        raise UserError(f"run: {as_typed(folder)} {finished}; to train longer, {', or '.join(remedies)}.")
    log.info(f"{as_typed(folder)} has already finished")
    return True
